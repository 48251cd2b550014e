"""Joints of a creature: 17 keypoints in the AP-10K order, solved from the points that paws should touch.

Lengths are fractions of the creature's height; scene coordinates are fractions of the picture, y down. `turn` is -1
(profile, looking left), 0 (facing us), 1 (profile, looking right). The creature's own left is on our right when it
faces us. Proportions are a toy's: the head is half of the height, so that faces survive 128 pixels.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

Point = tuple[float, float]

KEYPOINTS = (
    "left eye",
    "right eye",
    "nose",
    "neck",
    "root of tail",
    "left shoulder",
    "left elbow",
    "left front paw",
    "right shoulder",
    "right elbow",
    "right front paw",
    "left hip",
    "left knee",
    "left back paw",
    "right hip",
    "right knee",
    "right back paw",
)
HIP_HEIGHT = 0.20  # of a standing creature, the paw's radius included
NECK, HEAD = 0.26, 0.535  # neck and middle of the head above the hip
HEAD_SCALE = 1.16  # of head units
NECK_FOLLOW = 0.8  # share of the torso's lean with which the head is carried forward
HEAD_RX, HEAD_RY = 0.275, 0.240
TRUNK_RX, TRUNK_RY, TRUNK_Y = 0.170, 0.190, -0.125
SHOULDER = (0.118, -0.205)
ARM, LEG = 0.125, 0.075  # one segment; a limb has two
STRETCH = 1.75  # plush arms give, so that touching paws really touch
EYE = (0.122, 0.035)  # from the middle of the face
FACE_SHIFT = 0.115  # of the face, for a full turn, in head units


@dataclass(frozen=True)
class Pose:
    """One creature's stance.

    Attributes:
        hip: middle of the hips, scene fractions.
        size: height as a fraction of the picture.
        turn: -1 left profile .. 0 frontal .. 1 right profile.
        hands: (left, right) front paw targets, scene fractions.
        feet: (left, right) back paw targets, scene fractions.
        lean: radians the torso tips to the right.
        tilt: radians the head tips to the right, on top of `lean` times `follow`.
        follow: how much the head follows the torso's lean.
        eyes_closed: drawn as two arcs.
        look: where the pupils point, (x, y) in [-1, 1].
    """

    hip: Point
    size: float
    turn: float
    hands: tuple[Point, Point]
    feet: tuple[Point, Point]
    lean: float = 0.0
    tilt: float = 0.0
    follow: float = 0.35
    eyes_closed: bool = False
    look: Point = (0.0, 0.0)

    @property
    def spread(self) -> float:
        """How wide the shoulders look: 1 frontal, about a third in profile."""
        return math.cos(self.turn * math.radians(68))

    @property
    def head_angle(self) -> float:
        return self.lean * self.follow + self.tilt

    def torso(self, x: float, y: float) -> Point:
        """Map torso coordinates (origin at the hip, y down, in heights) to the scene."""
        return rotated(self.hip, self.size, self.lean, x, y)

    @property
    def head(self) -> Point:
        """Middle of the head in the scene; it sits on the neck and leans most of the way with the torso."""
        return rotated(self.torso(0.0, -NECK), self.size, NECK_FOLLOW * self.lean, 0.0, NECK - HEAD)

    def on_head(self, x: float, y: float) -> Point:
        """Map head coordinates (origin at the head's middle, y down, HEAD_SCALE heights each) to the scene."""
        return rotated(self.head, HEAD_SCALE * self.size, self.head_angle, x, y)

    def eye(self, side: float) -> Point:
        """Return the middle of an eye in head coordinates; `side` is 1 for the creature's left, -1 for its right."""
        return (FACE_SHIFT * self.turn + side * EYE[0] * (0.2 + 0.8 * self.spread), EYE[1])


def rotated(origin: Point, size: float, angle: float, x: float, y: float) -> Point:
    """Return the point (x, y) of a frame at `origin`, scaled by `size` and rotated by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return (origin[0] + size * (x * cos - y * sin), origin[1] + size * (x * sin + y * cos))


def reach(root: Point, target: Point, length: float, prefer: Point) -> tuple[Point, Point]:
    """Solve two-segment inverse kinematics.

    Args:
        root: start of the limb, scene fractions.
        target: point for its end.
        length: of one segment, scene fractions.
        prefer: direction the joint should bend towards.

    Returns:
        The middle joint and the end; the end falls short of a target beyond STRETCH times the limb.
    """
    dx, dy = target[0] - root[0], target[1] - root[1]
    distance = max(math.hypot(dx, dy), 1e-6)
    allowed = min(distance, 2 * length * STRETCH)
    end = (root[0] + dx / distance * allowed, root[1] + dy / distance * allowed)
    height = math.sqrt(max(length**2 - (allowed / 2) ** 2, 0.0))
    normal = (-dy / distance, dx / distance)
    side = 1.0 if normal[0] * prefer[0] + normal[1] * prefer[1] >= 0 else -1.0
    middle = ((root[0] + end[0]) / 2 + side * height * normal[0], (root[1] + end[1]) / 2 + side * height * normal[1])
    return middle, end


def solve(pose: Pose) -> np.ndarray:
    """Compute all joints of a pose.

    Args:
        pose: the stance.

    Returns:
        (17, 2) float64, x and y as scene fractions, in the order of KEYPOINTS.
    """
    joints = np.zeros((len(KEYPOINTS), 2))
    joints[0], joints[1] = (pose.on_head(*pose.eye(side)) for side in (1.0, -1.0))
    joints[2] = pose.on_head(0.17 * pose.turn, 0.105)
    joints[3] = pose.torso(0.0, -NECK)
    joints[4] = pose.torso(-0.14 * pose.turn, 0.0)
    for index, (side, shoulder, hip) in enumerate(((1.0, 5, 11), (-1.0, 8, 14))):
        joints[shoulder] = pose.torso(side * SHOULDER[0] * pose.spread, SHOULDER[1])
        outward = (side * max(pose.spread, 0.25) - 0.8 * pose.turn, 0.8)
        joints[shoulder + 1], joints[shoulder + 2] = reach(
            tuple(joints[shoulder]), pose.hands[index], ARM * pose.size, outward
        )
        joints[hip] = pose.torso(side * 0.085 * (0.35 + 0.65 * pose.spread), 0.015)
        forward = (side * 0.4 * pose.spread + pose.turn, -0.5)
        joints[hip + 1], joints[hip + 2] = reach(tuple(joints[hip]), pose.feet[index], LEG * pose.size, forward)
    return joints


def mirrored(pose: Pose) -> Pose:
    """Mirror a pose: x becomes 1 - x and left becomes right."""

    def flip(point: Point) -> Point:
        return (1.0 - point[0], point[1])

    return replace(
        pose,
        hip=flip(pose.hip),
        turn=-pose.turn,
        lean=-pose.lean,
        tilt=-pose.tilt,
        hands=(flip(pose.hands[1]), flip(pose.hands[0])),
        feet=(flip(pose.feet[1]), flip(pose.feet[0])),
        look=(-pose.look[0], pose.look[1]),
    )
