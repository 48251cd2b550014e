"""Two small judges trained on rendered truth alone: which relation a picture shows, and who stands in a box.

They see renders blurred, shrunk and recoloured a little, so that a sample's softness is not taken for another answer.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.checkpoint import read, save

from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.architectures import FOLDER
from .labelled_scenes import RELATIONS, TRAITS, Truth
from .pictures import to_tensor

SETTINGS = TrainerConfig(
    "judges", steps=6000, batch_size=32, lr=1e-3, warmup_steps=50, ema_decay=0.995, weight_decay=0.01
)
FILE = "judges.safetensors"
CROP = 64
KEYPOINTS = 17


def _stage(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1),
        nn.GroupNorm(8, width_out),
        nn.SiLU(),
        nn.Conv2d(width_out, width_out, 3, padding=1),
        nn.GroupNorm(8, width_out),
        nn.SiLU(),
    )


def _trunk(width_out: int) -> tuple[nn.Module, ...]:
    """24 channels of 32 x 32 to one vector; where things are is kept, since poses and keypoints are places."""
    narrow = nn.Conv2d(96, 32, 1)
    return (_stage(24, 48), _stage(48, 64), _stage(64, 96), narrow, nn.Flatten(), nn.Linear(512, width_out), nn.SiLU())


class Classifiers(nn.Module):
    """`relation`: (B, 3, 128, 128) to logits; `identity`: (B, 3, 64, 64) crops to logits by trait and keypoints."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = nn.Sequential(
            nn.PixelUnshuffle(2),
            _stage(12, 24),
            *_trunk(128),
            nn.Linear(128, len(RELATIONS)),
        )
        self.body = nn.Sequential(_stage(3, 24), *_trunk(160))
        self.traits = nn.ModuleDict({name: nn.Linear(160, count) for name, count in TRAITS.items()})
        self.keypoints = nn.Linear(160, 2 * KEYPOINTS)

    def relation(self, images: Tensor) -> Tensor:
        return self.scene(images * 2 - 1)

    def identity(self, crops: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Trait logits, and keypoints (B, 17, 2) as fractions of the crop."""
        features = self.body(crops * 2 - 1)
        return {name: head(features) for name, head in self.traits.items()}, self.keypoints(features).unflatten(
            1, (KEYPOINTS, 2)
        )


def crop_boxes(images: Tensor, boxes: Tensor, margin: float = 0.05) -> tuple[Tensor, Tensor]:
    """Cuts boxes out of pictures, stretched to squares.

    Args:
        images: (B, 3, H, W).
        boxes: (B, S, 4) fractions.
        margin: added on every side, as a share of the box.
    Returns:
        (B * S, 3, 64, 64), and the areas cut (B * S, 4).
    """
    size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2) * torch.tensor(
        [-margin, -margin, margin, margin], device=boxes.device
    )
    areas = (boxes + size).flatten(0, 1)
    centre, half = (areas[:, :2] + areas[:, 2:]) - 1, areas[:, 2:] - areas[:, :2]
    theta = torch.zeros(len(areas), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[:, 0], half[:, 1], centre
    source = images.repeat_interleave(boxes.shape[1], 0)
    grid = F.affine_grid(theta, (len(areas), 3, CROP, CROP), align_corners=False)
    return F.grid_sample(source, grid, padding_mode="border", align_corners=False), areas


def softened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shrinks and regrows half of the batches by a random factor, shifts brightness and adds a little noise."""
    factor = float(torch.rand((), generator=generator))
    if factor < 0.6:
        side = int(images.shape[-1] * (0.3 + factor))
        images = F.interpolate(
            F.interpolate(images, size=(side, side), mode="area"), size=images.shape[-2:], mode="bilinear"
        )
    gain = 1 + 0.1 * (torch.rand(len(images), 1, 1, 1, generator=generator) - 0.5)
    noise = 0.03 * torch.randn(images.shape, generator=generator)
    return (images * gain.to(images.device) + noise.to(images.device)).clamp(0, 1)


def train(out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS) -> State:
    """Trains both judges on `<out>/truth` into `<out>/judges`."""
    torch.manual_seed(settings.seed)
    truth = Truth.open(out / "truth")
    judges = Classifiers().to(device)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        rows = np.sort(draw.integers(truth.training, size=settings.batch_size))
        images, relations, traits, boxes, keypoints = batch_of(truth, rows, device)
        images = softened(images, generator)
        jitter = torch.from_numpy(draw.uniform(-0.02, 0.02, boxes.shape).astype(np.float32)).to(device)
        crops, areas = crop_boxes(images, boxes + jitter)
        logits, found = judges.identity(crops)
        relation = F.cross_entropy(judges.relation(images), relations)
        identity = sum(F.cross_entropy(logits[name], traits[:, index]) for index, name in enumerate(TRAITS)) / len(
            TRAITS
        )
        place = (keypoints[..., :2] - areas[:, None, :2]) / (areas[:, None, 2:] - areas[:, None, :2])
        off = ((found - place).abs().mean(-1) * keypoints[..., 2]).sum() / keypoints[..., 2].sum()
        return {"loss": relation + 2 * identity + off, "relation": relation, "identity": identity, "keypoints": off}

    return fit(settings, judges, loss, out / "judges", device, minutes)


def batch_of(truth: Truth, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images (B, 3, H, W) in [0, 1], relations (B,), traits (B*2, 6), boxes (B, 2, 4), keypoints (B*2, 17, 3)."""
    images = to_tensor(truth.images[rows], device)
    arrays = (
        truth.relations[rows],
        truth.traits[rows].reshape(-1, len(TRAITS)),
        truth.boxes[rows],
        truth.keypoints[rows].reshape(-1, KEYPOINTS, 3),
    )
    return (images, *(torch.from_numpy(array).to(device) for array in arrays))


@torch.no_grad()
def validate(out: Path) -> dict[str, float]:
    """Accuracies of the trained judges on the held-out tenth of the truth, and their keypoint error in box widths."""
    truth, judges = Truth.open(out / "truth"), load_trained(out)
    scores: dict[str, list[float]] = {name: [] for name in ("relation", *TRAITS, "keypoint_error")}
    for rows in np.array_split(np.arange(truth.training, len(truth.images)), 20):
        images, relations, traits, boxes, keypoints = batch_of(truth, rows, torch.device("cpu"))
        crops, areas = crop_boxes(images, boxes)
        logits, found = judges.identity(crops)
        scores["relation"] += (judges.relation(images).argmax(1) == relations).float().tolist()
        for index, name in enumerate(TRAITS):
            scores[name] += (logits[name].argmax(1) == traits[:, index]).float().tolist()
        place = (keypoints[..., :2] - areas[:, None, :2]) / (areas[:, None, 2:] - areas[:, None, :2])
        scores["keypoint_error"] += (found - place).norm(dim=-1)[keypoints[..., 2] > 0].tolist()
    return {name: float(np.mean(values)) for name, values in scores.items()}


def load_trained(out: Path) -> Classifiers:
    """The averaged judges of a run, in evaluation mode, on the CPU."""
    return _with(load_ema_weights(out / "judges")[0])


def ship(out: Path, folder: Path = FOLDER) -> dict[str, float]:
    """Writes `judges.safetensors` in half precision; what `validate` finds goes into its metadata and is returned."""
    accuracy = {name: round(value, 4) for name, value in validate(out).items()}
    weights = {name: value.half().contiguous() for name, value in load_trained(out).state_dict().items()}
    save(folder / FILE, weights, {"kind": "judges of the miniworld", "accuracy": json.dumps(accuracy)})
    return accuracy


def load_shipped(folder: Path = FOLDER) -> Classifiers:
    """The judges that come with the miniworld, in float32."""
    return _with({name: value.float() for name, value in read(folder / FILE)[0].items()})


def shipped_accuracy(folder: Path = FOLDER) -> dict[str, float]:
    """How often the shipped judges are right on renders they never saw, by what is judged; see `validate`."""
    return json.loads(read(folder / FILE)[1]["accuracy"])


def _with(weights: dict[str, Tensor]) -> Classifiers:
    judges = Classifiers()
    judges.load_state_dict(weights)
    return judges.eval().requires_grad_(False)
