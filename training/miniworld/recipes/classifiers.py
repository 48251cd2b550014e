"""Two small classifiers trained on rendered truth alone: the relation of a picture, and the creature in a box.

They see renders blurred, shrunk and recoloured a little, so that a sample's softness does not change the answer.
The relation classifier has one more class: planted fused bodies, which it must refuse. The
identity classifier reads crops of 96 pixels, so that an emblem of a dozen pixels is seen.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.checkpoint import read, save

from ...common.eight_bits import restored, rounded
from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.architectures import FOLDER
from ..world.fusions import KINDS
from .labelled_scenes import FUSED, RELATIONS, TRAITS, LabelledScenes
from .pictures import to_tensor

SETTINGS = TrainerConfig(
    "classifiers", steps=4000, batch_size=32, lr=1e-3, warmup_steps=50, ema_decay=0.995, cooldown=0.4
)
FILE = "judges.safetensors"
CROP, KEYPOINTS = 96, 17
VISIBLE = 0.6  # an emblem counts where this share of it is seen


def _stage(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1),
        nn.GroupNorm(8, width_out),
        nn.SiLU(),
        nn.Conv2d(width_out, width_out, 3, padding=1),
        nn.GroupNorm(8, width_out),
        nn.SiLU(),
    )


def _trunk(width: int) -> tuple[nn.Module, ...]:
    """Map 24 channels of 32 x 32 to a vector; flattened, not pooled, since poses and keypoints are places."""
    narrow = nn.Conv2d(96, 32, 1)
    return (_stage(24, 48), _stage(48, 64), _stage(64, 96), narrow, nn.Flatten(), nn.Linear(512, width), nn.SiLU())


class Classifiers(nn.Module):
    """`relation`: (B, 3, 128, 128) to logits; `identity`: (B, 3, 96, 96) crops to logits by trait, and keypoints."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = nn.Sequential(nn.PixelUnshuffle(2), _stage(12, 24), *_trunk(128), nn.Linear(128, FUSED + 1))
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2), _stage(12, 32), _stage(32, 64), _stage(64, 96), nn.Conv2d(96, 48, 1), nn.Flatten()
        )
        self.summary = nn.Sequential(nn.Linear(48 * 36, 192), nn.SiLU())
        self.traits = nn.ModuleDict({name: nn.Linear(192, len(values)) for name, values in TRAITS.items()})
        self.keypoints = nn.Linear(192, 2 * KEYPOINTS)

    def relation(self, images: Tensor) -> Tensor:
        """Map (B, 3, 128, 128) in [0, 1] to (B, relations + 1) logits; the last class is a fused body."""
        return self.scene(images * 2 - 1)

    def identity(self, crops: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Map (B, 3, 96, 96) in [0, 1] to trait logits, and keypoints (B, 17, 2) as fractions of the crop."""
        features = self.summary(self.body(crops * 2 - 1))
        logits = {name: head(features) for name, head in self.traits.items()}
        return logits, self.keypoints(features).unflatten(1, (KEYPOINTS, 2))


def crop_boxes(images: Tensor, boxes: Tensor, margin: float = 0.05) -> tuple[Tensor, Tensor]:
    """Cut boxes out of pictures, stretched to squares.

    Args:
        images: (B, 3, H, W).
        boxes: (B, S, 4) fractions.
        margin: added on every side, as a share of the box.

    Returns:
        (B * S, 3, 96, 96), and the areas cut (B * S, 4).
    """
    grow = torch.tensor([-margin, -margin, margin, margin], device=boxes.device)
    areas = (boxes + (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2) * grow).flatten(0, 1)
    centre, half = (areas[:, :2] + areas[:, 2:]) - 1, areas[:, 2:] - areas[:, :2]
    theta = torch.zeros(len(areas), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[:, 0], half[:, 1], centre
    grid = F.affine_grid(theta, (len(areas), 3, CROP, CROP), align_corners=False)
    source = images.repeat_interleave(boxes.shape[1], 0)
    return F.grid_sample(source, grid, padding_mode="border", align_corners=False), areas


def in_areas(points: Tensor, areas: Tensor) -> Tensor:
    """Express points (N, P, 2 or 3) of the picture as fractions (N, P, 2) of areas (N, 4)."""
    return (points[..., :2] - areas[:, None, :2]) / (areas[:, None, 2:] - areas[:, None, :2])


def softened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shrink and regrow six in ten batches by a random factor, shift brightness and add a little noise."""
    factor = float(torch.rand((), generator=generator))
    if factor < 0.6:
        side = int(images.shape[-1] * (0.3 + factor))
        small = F.interpolate(images, size=(side, side), mode="area")
        images = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    gain = 1 + 0.1 * (torch.rand(len(images), 1, 1, 1, generator=generator) - 0.5)
    noise = 0.03 * torch.randn(images.shape, generator=generator)
    return (images * gain.to(images.device) + noise.to(images.device)).clamp(0, 1)


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Train both classifiers on `<out>/labelled` into `<out>/classifiers`; see `fit`."""
    torch.manual_seed(settings.seed)
    data = LabelledScenes.open(out / "labelled")
    model = Classifiers().to(device)
    plain = np.flatnonzero(data.kind[: data.training] < 0)
    fused = np.flatnonzero(data.kind[: data.training] >= 0)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        whole = settings.batch_size * 5 // 6
        rows = np.concatenate((rng.choice(plain, whole), rng.choice(fused, settings.batch_size - whole)))
        images = softened(to_tensor(data.pictures[rows], device), generator)
        relation = F.cross_entropy(model.relation(images), torch.from_numpy(data.relation[rows]).to(device))
        bodies, keypoints = identity_losses(model, data, rows[:whole], images[:whole], rng)
        return {
            "loss": relation + 2 * bodies + keypoints,
            "relation": relation,
            "identity": bodies,
            "keypoints": keypoints,
        }

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def identity_losses(
    model: Classifiers, data: LabelledScenes, rows: np.ndarray, images: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the mean cross entropy over the traits (hidden emblems left out), and the keypoints' mean error."""
    boxes, traits, points, visible = (
        torch.from_numpy(array[rows]).to(images.device)
        for array in (data.boxes, data.traits, data.keypoints, data.emblem_visible)
    )
    jitter = torch.from_numpy(rng.uniform(-0.02, 0.02, boxes.shape).astype(np.float32)).to(images.device)
    crops, areas = crop_boxes(images, boxes + jitter)
    logits, predicted = model.identity(crops)
    traits, points, emblem_weight = traits.flatten(0, 1), points.flatten(0, 1), (visible.flatten() >= VISIBLE).float()
    parts = []
    for column, name in enumerate(TRAITS):
        losses = F.cross_entropy(logits[name], traits[:, column], reduction="none")
        weight = emblem_weight if name.startswith("emblem") else torch.ones_like(emblem_weight)
        parts.append((losses * weight).sum() / weight.sum().clamp(min=1))
    error = ((predicted - in_areas(points, areas)).abs().mean(-1) * points[..., 2]).sum() / points[..., 2].sum()
    return sum(parts) / len(parts), error


@torch.no_grad()
def validate(model: Classifiers, data: LabelledScenes) -> dict[str, float]:
    """Measure accuracies on the held-out tenth; also the share of fusions refused by kind, and of whole pairs accepted.

    Returns:
        relation (of unfused pictures), every trait (emblems where they are visible), keypoint_error in box sides,
        accepted (unfused pictures not called fused), refused (fusions called fused), refused_<kind>.
    """
    scores: dict[str, list[float]] = {}
    for rows in np.array_split(np.arange(data.training, len(data.pictures)), 20):
        if len(rows):
            _count(scores, model, data, rows)
    return {name: round(float(np.mean(values)), 4) for name, values in sorted(scores.items())}


def _count(scores: dict[str, list[float]], model: Classifiers, data: LabelledScenes, rows: np.ndarray) -> None:
    images = to_tensor(data.pictures[rows])
    answers = model.relation(images).argmax(1).numpy()
    for answer, row in zip(answers, rows):
        if data.kind[row] < 0:
            scores.setdefault("relation", []).append(answer == data.relation[row])
            scores.setdefault("accepted", []).append(answer != FUSED)
        else:
            for name in ("refused", "refused_" + KINDS[data.kind[row]].replace(" ", "_")):
                scores.setdefault(name, []).append(answer == FUSED)
    plain = data.kind[rows] < 0
    if not plain.any():
        return
    boxes = torch.from_numpy(data.boxes[rows[plain]])
    crops, areas = crop_boxes(images[torch.from_numpy(plain)], boxes)
    logits, predicted = model.identity(crops)
    traits = torch.from_numpy(data.traits[rows[plain]]).flatten(0, 1)
    visible = torch.from_numpy(data.emblem_visible[rows[plain]]).flatten() >= VISIBLE
    for column, name in enumerate(TRAITS):
        right = logits[name].argmax(1) == traits[:, column]
        scores.setdefault(name, []).extend((right[visible] if name.startswith("emblem") else right).float().tolist())
    points = torch.from_numpy(data.keypoints[rows[plain]]).flatten(0, 1)
    distances = (predicted - in_areas(points, areas)).norm(dim=-1)
    scores.setdefault("keypoint_error", []).extend(distances[points[..., 2] > 0].tolist())


def load_trained(out: Path) -> Classifiers:
    """Load the averaged classifiers of a run, in evaluation mode, on the CPU."""
    return _classifiers_of(load_ema_weights(out / SETTINGS.name)[0])


def export(out: Path, folder: Path = FOLDER) -> dict[str, float]:
    """Write the classifiers in 8 bits, their accuracies in the metadata; return the accuracies."""
    weights = rounded(load_trained(out).state_dict())
    accuracy = validate(_classifiers_of(restored(weights)), LabelledScenes.open(out / "labelled"))
    facts = {"kind": "judges of the miniworld", "relations": json.dumps(RELATIONS)}
    save(folder / FILE, weights, facts | {"accuracy": json.dumps(accuracy)})
    return accuracy


def load_shipped(folder: Path = FOLDER) -> Classifiers:
    """Load the classifiers of an exported folder, in float32; those that come with the miniworld by default."""
    return _classifiers_of(restored(read(folder / FILE)[0]))


def shipped_accuracy(folder: Path = FOLDER) -> dict[str, float]:
    """Read the exported classifiers' accuracies on renders they never saw, by output; see `validate`."""
    return json.loads(read(folder / FILE)[1]["accuracy"])


def _classifiers_of(weights: dict[str, Tensor]) -> Classifiers:
    model = Classifiers()
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
