"""The autoencoder's recipe: crisp outlines from few operations.

Pixels are folded 4 x 4 into channels first, so a stock KL autoencoder with one downsampling has factor 8 overall at a
quarter of the cost. Loss: L1 + L1 of finite differences (outlines) + a little L2 + KL towards N(0, 1).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.architectures import SPACE_TO_DEPTH, VAE, build_vae
from .corpus import Corpus

SETTINGS = TrainerConfig("vae", steps=60000, batch_size=8, lr=1.5e-3, ema_decay=0.998, weight_decay=0.0)
GRADIENT_WEIGHT, SQUARE_WEIGHT, KL_WEIGHT = 1.0, 0.5, 1e-5


def fold(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] to (B, 48, H/4, W/4)."""
    return F.pixel_unshuffle(images, SPACE_TO_DEPTH)


def unfold(blocks: Tensor) -> Tensor:
    """(B, 48, h, w) to (B, 3, 4h, 4w)."""
    return F.pixel_shuffle(blocks, SPACE_TO_DEPTH)


def reconstruction(output: Tensor, target: Tensor) -> dict[str, Tensor]:
    """L1, L1 of differences between neighbours, and squared error, each a mean over everything."""
    across = (output.diff(dim=-1) - target.diff(dim=-1)).abs().mean() + (
        output.diff(dim=-2) - target.diff(dim=-2)
    ).abs().mean()
    return {"l1": (output - target).abs().mean(), "edges": across, "l2": (output - target).square().mean()}


def pictures(array: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
    """Rows of a uint8 (N, H, W, 3) array as (B, 3, H, W) float32 in [-1, 1]."""
    batch = torch.from_numpy(np.ascontiguousarray(array[np.sort(indices)])).to(device)
    return batch.permute(0, 3, 1, 2).float() / 127.5 - 1


def train(out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS) -> State:
    """Trains the autoencoder on scenes and portraits of `<out>/corpus` into `<out>/vae`."""
    corpus = Corpus.open(out / "corpus")
    torch.manual_seed(settings.seed)
    vae = build_vae().to(device)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = draw_pictures(corpus, settings.batch_size, generator, device)
        posterior = vae.encode(fold(batch)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        parts = reconstruction(unfold(vae.decode(posterior.mean + posterior.std * noise).sample).float(), batch)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return {"loss": weighted(parts) + KL_WEIGHT * kl, **parts, "kl": kl}

    return fit(settings, vae, loss, out / "vae", device, minutes)


def draw_pictures(corpus: Corpus, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Scenes and portraits three to one, mirrored half of the time."""
    draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    scenes = count * 3 // 4
    batch = torch.cat(
        (
            pictures(corpus.scenes, draw.integers(len(corpus.scenes), size=scenes), device),
            pictures(corpus.portraits, draw.integers(len(corpus.portraits), size=count - scenes), device),
        )
    )
    return torch.where((torch.rand(count, 1, 1, 1, generator=generator) < 0.5).to(device), batch.flip(-1), batch)


def weighted(parts: dict[str, Tensor]) -> Tensor:
    return parts["l1"] + GRADIENT_WEIGHT * parts["edges"] + SQUARE_WEIGHT * parts["l2"]


def load_trained(folder: Path) -> nn.Module:
    """The averaged autoencoder of a run, in evaluation mode, on the CPU."""
    weights, _ = load_ema_weights(folder)
    vae = build_vae()
    vae.load_state_dict(weights)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def absorb_scale(vae: nn.Module, corpus: Corpus, count: int = 512) -> float:
    """Rescales the latents so that SDXL's own scaling factor gives them unit variance; both hosts then need no other.

    The factor goes into `quant_conv` (means and log-variances) and its inverse into `post_quant_conv`; the
    autoencoder's pictures do not change. A spread within 2 % of one stays, so that weights begun from the shipped ones
    keep the shipped latents.

    Args:
        vae: changed in place.
        corpus: its scenes tell the present spread.
        count: scenes used.
    Returns:
        The latents' standard deviation before.
    """
    parameter = next(vae.parameters())
    chosen = np.linspace(0, len(corpus.scenes) - 1, count).astype(int)
    latents = [
        vae.encode(fold(pictures(corpus.scenes, chosen[i : i + 32], parameter.device))).latent_dist.mean
        for i in range(0, count, 32)
    ]
    spread = float(torch.cat(latents).std())
    factor = 1 / (spread * VAE["scaling_factor"])
    if abs(factor - 1) < 0.02:
        return spread
    channels = VAE["latent_channels"]
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * float(np.log(factor))
    vae.post_quant_conv.weight /= factor
    return spread
