"""Train the miniworld's detector on renders of one to three creatures; minutes on a CPU.

    python -m training.miniworld.recipes.detector --out out/miniworld/detector

Some pictures are blurred, shrunk and recoloured as for the classifiers, so that a sample's softness is no other answer.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.checkpoint import save

from ...common import arguments as of_type
from ...common.boxes import iou
from ...common.cli import say
from ...common.eight_bits import restored, rounded
from ...common.vision import select
from ...host_diffusers.miniworld.architectures import FOLDER
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import draw_plan, portrait
from ..world.traits import SPECIES
from .classifiers import Classifiers, load_shipped, softened
from .detector_network import CELLS, FILE, SIDE, CreatureDetector
from .find_creatures import MiniworldDetector
from .pictures import to_tensor

TRAINING, VALIDATION = 5000, 300
STEPS, BATCH, LR = 2400, 16, 2e-3
_PORTRAITS = 5  # every fifth picture shows one creature alone
FOUND_IOU = 0.5


def scene(seed: int, index: int) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Render a picture; return it with its creatures' species and boxes."""
    rng = generator(seed, Stream.DETECTOR, index)
    plan = draw_plan(rng, held_out=None)
    if index % _PORTRAITS == 0:
        plan = portrait(rng, plan.cast[0])
    rendering = render(plan, SIDE)
    return rendering.image, [SPECIES.index(traits.species) for traits in plan.cast], rendering.boxes


def scenes(seed: int, count: int, processes: int = 2) -> list[tuple[np.ndarray, list[int], np.ndarray]]:
    """Render scenes 0 to count - 1 of a seed."""
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(scene, [seed] * count, range(count), chunksize=50))


def targets(species: list[list[int]], boxes: list[np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Make maps of middles (B, 8, 32, 32) with a bump per creature, frames (B, 4, 32, 32), and where they count."""
    count = len(species)
    heat, frames = np.zeros((count, len(SPECIES), CELLS, CELLS)), np.zeros((count, 4, CELLS, CELLS))
    places = np.zeros((count, 1, CELLS, CELLS))
    ys, xs = np.mgrid[:CELLS, :CELLS]
    for row, (kinds, own) in enumerate(zip(species, boxes)):
        for kind, (x0, y0, x1, y1) in zip(kinds, own):
            middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2]) * CELLS
            x, y = np.minimum(middle.astype(int), CELLS - 1)
            spread = max(1.0, 0.1 * CELLS * min(x1 - x0, y1 - y0))
            bump = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * spread**2))
            heat[row, kind] = np.maximum(heat[row, kind], bump)
            frames[row, :, y, x] = x1 - x0, y1 - y0, middle[0] - x - 0.5, middle[1] - y - 0.5
            places[row, 0, y, x] = 1
    return tuple(torch.from_numpy(part.astype(np.float32)) for part in (heat, frames, places))


def loss(middles: Tensor, frames: Tensor, true_heat: Tensor, true_frames: Tensor, places: Tensor) -> Tensor:
    """Return the focal loss of the maps (arXiv:1904.07850, equation 1) plus L1 of the frames at the middles."""
    count = places.sum().clamp_min(1)
    p = middles.sigmoid().clamp(1e-4, 1 - 1e-4)
    positive = (true_heat == 1).float()
    focal = positive * (1 - p) ** 2 * p.log() + (1 - positive) * (1 - true_heat) ** 4 * p**2 * (1 - p).log()
    scale = torch.tensor([5.0, 5.0, 1.0, 1.0]).view(1, 4, 1, 1)  # sizes are fractions, offsets are cells
    return -focal.sum() / count + (scale * (frames - true_frames).abs() * places).sum() / count


def train(steps: int = STEPS, seed: int = 0, count: int = TRAINING) -> CreatureDetector:
    """Train a detector from nothing on `count` scenes."""
    torch.manual_seed(seed)
    rows = scenes(seed, count)
    say(f"rendered {len(rows)} scenes")
    network = CreatureDetector()
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=0.05)
    rng, noise = generator(seed, Stream.DETECTOR), torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        chosen = [rows[index] for index in rng.integers(len(rows), size=BATCH)]
        images = softened(to_tensor([image for image, _, _ in chosen]), noise)
        value = loss(*network(images), *targets([kinds for _, kinds, _ in chosen], [boxes for _, _, boxes in chosen]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            say(f"step {step}/{steps}  loss {float(value.detach()):.3f}")
    return network.eval()


def validate(detector: MiniworldDetector, seed: int = 2, count: int = VALIDATION) -> dict[str, float]:
    """Measure on renders of a seed that chose nothing: creatures found (IoU >= .5), and under which names.

    The queries of a picture are its own creatures' species and one absent species.

    Returns:
        `recall` of creatures under any name, `precision` of detections, `named` (share of these under their own
        name), `iou` (their mean), `count` (share of pictures with as many detections as creatures),
        `creatures`, `pictures`.
    """
    hits = creatures = detection_count = named = exact = 0
    overlaps = []
    for index, (image, kinds, boxes) in enumerate(scenes(seed, count)):
        names = [SPECIES[kind] for kind in kinds]
        absent = [name for name in SPECIES if name not in names]
        queries = list(dict.fromkeys([*names, absent[index % len(absent)]]))
        detections = select(detector.detect(Image.fromarray(image), queries), (SIDE, SIDE))
        shared = iou(boxes, np.array([one.box for one in detections]).reshape(-1, 4))
        creatures, detection_count = creatures + len(names), detection_count + len(detections)
        exact += len(detections) == len(names)
        for creature, name in enumerate(names):
            row = int(shared[creature].argmax()) if len(detections) else -1
            if row >= 0 and shared[creature, row] >= FOUND_IOU:
                hits, named = hits + 1, named + (detections[row].name == name)
                overlaps.append(shared[creature, row])
    return {
        "recall": hits / creatures,
        "precision": min(1.0, hits / max(1, detection_count)),
        "named": named / max(1, hits),
        "iou": float(np.mean(overlaps)),
        "count": exact / count,
        "creatures": creatures,
        "pictures": count,
    }


def ship(
    network: CreatureDetector, file: Path, judges: Classifiers | None = None, count: int = VALIDATION
) -> dict[str, float]:
    """Write a detector in 8 bits, with the accuracies of `validate` on `count` pictures in its metadata.

    Args:
        network: trained.
        file: to write.
        judges: name the creatures; the shipped ones by default.
        count: pictures to validate on.
    """
    weights, shipped = rounded(network.state_dict()), CreatureDetector()
    shipped.load_state_dict(restored(weights))
    detector = MiniworldDetector(shipped.eval().requires_grad_(False), judges or load_shipped(), {})
    accuracy = {name: round(value, 4) for name, value in validate(detector, count=count).items()}
    save(file, weights, {"kind": "detector of the miniworld", "accuracy": json.dumps(accuracy)})
    return accuracy


def main() -> None:
    """Train, validate, write."""
    parser = argparse.ArgumentParser(prog="python -m training.miniworld.recipes.detector", description=__doc__)
    parser.add_argument("--out", type=of_type.path, default=FOLDER, help="folder to write detector.safetensors to")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    say(json.dumps(ship(train(options.steps, options.seed), options.out / FILE)))


if __name__ == "__main__":
    main()
