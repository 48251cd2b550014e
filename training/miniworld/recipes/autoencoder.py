"""The autoencoder's recipe: crisp outlines from few operations.

Pixels are folded 4 x 4 into channels first, so a stock KL autoencoder with one downsampling has factor 8 overall at a
quarter of the cost. Loss: L1 + L1 of finite differences (outlines) + L2 + KL towards N(0, 1).
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.atomic_io import write_text
from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.architectures import CHANNELS, SPACE_TO_DEPTH, build_autoencoder
from .corpus import Corpus
from .pictures import to_tensor

SETTINGS = TrainerConfig(
    "autoencoder", steps=12000, batch_size=16, lr=1.5e-3, ema_decay=0.998, weight_decay=0.0, cooldown=0.3
)
CROPPED = 0.6  # share of the steps that see crops, at half the cost: two of a quarter of each picture
EDGE_WEIGHT, SQUARE_WEIGHT, KL_WEIGHT = 1.0, 4.0, 1e-5


def encode(model: nn.Module, images: Tensor) -> Tensor:
    """Encode (B, 3, H, W) in [0, 1] to the means of the latents, (B, C, H/8, W/8), not yet scaled."""
    return model.encode(F.pixel_unshuffle(images * 2 - 1, SPACE_TO_DEPTH)).latent_dist.mean


def decode(model: nn.Module, latents: Tensor) -> Tensor:
    """Decode (B, C, h, w) to (B, 3, 8h, 8w) in about [0, 1]; gradients flow, nothing is clipped."""
    return F.pixel_shuffle(model.decode(latents).sample, SPACE_TO_DEPTH) / 2 + 0.5


def reconstruction(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return L1, L1 of differences between neighbours, and squared error of pictures in [-1, 1], each a mean."""
    edges = sum((output.diff(dim=axis) - target.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    return {"l1": (output - target).abs().mean(), "edges": edges, "l2": (output - target).square().mean()}


def draw_pictures(corpus: Corpus, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw scenes and portraits (these at half size) three to one, half of them mirrored: (B, 3, 128, 128)."""
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    scenes = count * 3 // 4
    first = to_tensor(corpus.scenes[rng.integers(len(corpus.scenes), size=scenes)], device)
    second = to_tensor(corpus.portraits[rng.integers(len(corpus.portraits), size=count - scenes)], device)
    batch = torch.cat((first, F.interpolate(second, size=first.shape[-2:], mode="area")))
    return torch.where((torch.rand(count, 1, 1, 1, generator=generator) < 0.5).to(device), batch.flip(-1), batch)


def crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cut two crops of half the side from each picture, on whole latent cells: (B, 3, H, W) to (2B, 3, H/2, W/2)."""
    side = images.shape[-1] // 2
    corners = 8 * torch.randint(side // 8 + 1, (2 * len(images), 2), generator=generator)
    pieces = [
        picture[:, top : top + side, left : left + side]
        for picture, (top, left) in zip(images.repeat(2, 1, 1, 1), corners.tolist())
    ]
    return torch.stack(pieces)


def train(
    out: Path,
    device: torch.device,
    minutes: float,
    settings: TrainerConfig = SETTINGS,
    until: int | None = None,
    channels: int = CHANNELS,
) -> State:
    """Train on scenes and portraits of `<out>/corpus` into `<out>/<settings.name>`; see `fit`.

    Raises:
        ValueError: the folder holds a run with another number of channels.
    """
    corpus = Corpus.open(out / "corpus")
    folder = out / settings.name
    _check_channels(folder, channels)
    torch.manual_seed(settings.seed)
    model = build_autoencoder(channels).to(device, memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        images = draw_pictures(corpus, settings.batch_size, generator, device)
        if step < CROPPED * settings.steps:
            images = crops(images, generator)
        images = images.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(F.pixel_unshuffle(images * 2 - 1, SPACE_TO_DEPTH)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        output = decode(model, posterior.mean + posterior.std * noise)
        parts = reconstruction(output.float() * 2 - 1, images * 2 - 1)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        total = parts["l1"] + EDGE_WEIGHT * parts["edges"] + SQUARE_WEIGHT * parts["l2"] + KL_WEIGHT * kl
        return {"loss": total, **parts, "kl": kl}

    return fit(settings, model, loss, folder, device, minutes, until)


def _check_channels(folder: Path, channels: int) -> None:
    facts = folder / "channels.json"
    if facts.exists():
        trained_channels = json.loads(facts.read_text(encoding="utf-8"))
        if trained_channels != channels:
            raise ValueError(
                f"{folder}: expected a run with {channels} latent channels, got one with {trained_channels}; "
                "name another --out or the same channels"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(facts, json.dumps(channels))


def load_trained(folder: Path) -> nn.Module:
    """Load the averaged autoencoder of a run, in evaluation mode, on the CPU."""
    weights, _ = load_ema_weights(folder)
    model = build_autoencoder(json.loads((folder / "channels.json").read_text(encoding="utf-8")))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def psnr(model: nn.Module, images: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of the decoded pictures, (B, 3, H, W) in [0, 1], over all of them."""
    errors = [
        (decode(model, encode(model, part)).clamp(0, 1) - part).square().mean(dim=(1, 2, 3))
        for part in images.split(16)
    ]
    return float(-10 * torch.cat(errors).mean().log10())
