"""Eyes, muzzle, cheeks: large enough for a dozen pixels each. Head units, as in `species`."""

from .pose import FACE_SHIFT, Pose
from .species import INK, Paint, flat
from .svg import Shape, ellipse, path
from .traits import CreatureTraits

MUZZLES = {  # (rx, ry) of the snout
    "bear": (0.105, 0.080),
    "cat": (0.098, 0.062),
    "rabbit": (0.088, 0.066),
    "fox": (0.088, 0.066),
    "mouse": (0.078, 0.060),
    "dog": (0.128, 0.092),
    "dragon": (0.150, 0.095),
}
NOSES = {"bear": 0.042, "cat": 0.026, "rabbit": 0.026, "fox": 0.040, "mouse": 0.036, "dog": 0.052}
FROG_EYE_Y = -0.165


def muzzle(traits: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw snout, nose, mouth."""
    # A frog has a wide mouth and no snout.
    x, y = (FACE_SHIFT + 0.035) * pose.turn, 0.125
    if traits.species == "frog":
        smile = path(f"M{x - 0.165:.3f} 0.055Q{x:.3f} 0.185 {x + 0.165:.3f} 0.055")
        return [
            flat(ellipse(x, 0.135, 0.19, 0.082), paint.belly_flat, at),
            Shape(smile, stroke=INK, width=0.024, transform=at),
        ]

    # Snout and mouth; a dog's tongue lies under them, a dragon has nostrils and no nose.
    rx, ry = MUZZLES[traits.species]
    nose_x = x + 0.035 * pose.turn
    mouth = path(
        f"M{nose_x - 0.052:.3f} {y + 0.022:.3f}Q{nose_x - 0.03:.3f} {y + 0.062:.3f} {nose_x:.3f} {y + 0.022:.3f}"
        f"Q{nose_x + 0.03:.3f} {y + 0.062:.3f} {nose_x + 0.052:.3f} {y + 0.022:.3f}"
    )
    shapes = []
    if traits.species == "dog":
        shapes.append(
            Shape(ellipse(nose_x, y + 0.075, 0.036, 0.05), fill="#ff7d8e", stroke=INK, width=0.014, transform=at)
        )
    shapes += [flat(ellipse(x, y, rx, ry), paint.belly_flat, at), Shape(mouth, stroke=INK, width=0.018, transform=at)]
    if traits.species == "dragon":
        return shapes + [flat(ellipse(nose_x + dx, y - 0.035, 0.020, 0.017), INK, at) for dx in (-0.05, 0.05)]

    # Teeth, nose and whiskers.
    if traits.species == "rabbit":  # two front teeth
        tooth = f'rect x="{nose_x - 0.024:.3f}" y="{y + 0.038:.3f}" width="0.048" height="0.045" rx="0.008"'
        shapes.append(Shape(tooth, fill="#ffffff", stroke=INK, width=0.012, transform=at))
    width = NOSES[traits.species]
    colour = "#ff7d8e" if traits.species in ("cat", "rabbit") else INK
    shapes.append(
        Shape(ellipse(nose_x, y - 0.030, width, width * 0.78), fill=colour, stroke=INK, width=0.010, transform=at)
    )
    if traits.species in ("cat", "mouse"):
        for side in (-1.0, 1.0):
            for lift in (-0.022, 0.032):
                start, end = x + side * 0.125, x + side * 0.235
                whisker = path(f"M{start:.3f} {y + lift / 2:.3f}L{end:.3f} {y + lift * 1.5:.3f}")
                shapes.append(Shape(whisker, stroke=INK, width=0.012, transform=at))
    return shapes


def cheeks(traits: CreatureTraits, pose: Pose, paint: Paint, at: str, clip: str) -> list[Shape]:
    """Draw a blush on both sides, and a fox's pale cheeks."""
    face = FACE_SHIFT * pose.turn
    shapes = []
    if traits.species == "fox":
        for side in (-1.0, 1.0):
            fluff = path(
                f"M{face + side * 0.02:.3f} 0.235Q{face + side * 0.08:.3f} 0.055 {face + side * 0.30:.3f} 0.075"
                f"L{face + side * 0.40:.3f} 0.11L{face + side * 0.2:.3f} 0.28Z"
            )
            shapes.append(flat(fluff, paint.belly_flat, at, clip))
    for side in (-1.0, 1.0):
        blush = ellipse(face + side * 0.205 * (0.25 + 0.75 * pose.spread), 0.115, 0.040, 0.026)
        shapes.append(Shape(blush, fill="#ff5a78", transform=at, clip=clip, opacity=0.5))
    return shapes


def eyes(traits: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw two shining eyes, or two arcs when closed; the far one is narrower when the head turns."""
    shapes: list[Shape] = []
    for side in (-1.0, 1.0):
        x, y = eye_centre(traits, pose, side)
        far = side * pose.turn > 0  # the eye on the side the head turns to is the far one
        narrow = 1 - 0.22 * abs(pose.turn) if far else 1.0
        if traits.species == "frog":
            shapes.append(flat(ellipse(x, y, 0.086, 0.084), "#ffffff", at))
        if pose.eyes_closed:
            lid = path(f"M{x - 0.058:.3f} {y - 0.004:.3f}Q{x:.3f} {y + 0.062:.3f} {x + 0.058:.3f} {y - 0.004:.3f}")
            shapes.append(Shape(lid, stroke=INK, width=0.026, transform=at))
            continue
        px, py = x + 0.014 * pose.look[0], y + 0.012 * pose.look[1]
        size = 0.056 if traits.species == "frog" else 0.064
        shapes += [
            flat(ellipse(px, py, size * narrow, size * 1.27), INK, at),
            flat(ellipse(px - 0.018, py - 0.028, 0.0235, 0.0265), "#ffffff", at),
            flat(ellipse(px + 0.020, py + 0.032, 0.012, 0.013), "#ffffff", at),
        ]
    return shapes


def eye_centre(traits: CreatureTraits, pose: Pose, side: float) -> tuple[float, float]:
    """Return the middle of a drawn eye in head units; a frog's eyes sit on top of its head."""
    if traits.species == "frog":
        return side * 0.15 * (0.75 + 0.25 * pose.spread) + 0.065 * pose.turn, FROG_EYE_Y
    return pose.eye(side)
