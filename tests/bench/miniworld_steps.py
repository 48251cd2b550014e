"""Where a training step of the miniworld's models goes, on one core: python -m tests.bench.miniworld_steps

Seconds are processor time of one thread, so a busy machine tells the same. "Before" is what earlier recipes
did (orthogonalising on the whole matrix, whole pictures for the autoencoder); "after" is what `train-all` does. Results
go to tests/bench/results/miniworld_steps.json.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

from training.engine import muon
from training.host_diffusers.miniworld.architectures import Words, build_autoencoder, build_text_g
from training.host_diffusers.miniworld.flux import IndexedFlux, RoutedFlux, flux_config
from training.miniworld.recipes import autoencoder, denoiser
from training.miniworld.recipes.flux_data import FluxBatch
from training.miniworld.recipes.flux_losses import losses, velocity_loss

RESULTS = Path(__file__).parent / "results" / "miniworld_steps.json"
CHANNELS, UNET_BATCH, FLUX_BATCH, PICTURES = 16, 24, 16, 8
WHOLE_MATRIX = 10**9  # `muon._LONG` that no matrix reaches


def seconds(run, repeats: int = 3) -> float:
    """Processor seconds of one call, the first left out."""
    run()
    started = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - started) / repeats


def optimiser_seconds(model: torch.nn.Module, backward) -> tuple[float, float]:
    """Of Muon's step, on whole matrices and on Gram matrices."""
    step = muon.Muon(model, 1e-6, adamw_params=denoiser.SETTINGS.adamw_params).step
    backward()
    usual = muon._LONG
    try:
        muon._LONG = WHOLE_MATRIX
        before = seconds(step)
    finally:
        muon._LONG = usual
    return before, seconds(step)


def row(samples: int, forward_backward: float, before: float, after: float) -> dict[str, float]:
    return {
        "samples": samples,
        "forward and backward": round(forward_backward, 3),
        "optimiser before": round(before, 3),
        "optimiser after": round(after, 3),
        "samples/s before": round(samples / (forward_backward + before), 2),
        "samples/s after": round(samples / (forward_backward + after), 2),
    }


def unet() -> dict[str, float]:
    """The UNet with its identity branch, two subjects."""
    model, batch = denoiser.Denoiser(CHANNELS), UNET_BATCH
    noisy, times = torch.randn(batch, CHANNELS, 16, 16), torch.randint(0, 1000, (batch,))
    boxes = torch.tensor([[0.05, 0.2, 0.55, 0.95], [0.45, 0.2, 0.95, 0.95]]).expand(batch, 2, 4).contiguous()
    conditions = {
        "text": torch.randn(batch, 77, 192),
        "pooled": torch.randn(batch, 128),
        "references": torch.randn(batch, 2, 81, 128),
        "phrases": torch.randn(batch, 2, 64),
        "boxes": boxes,
        "weights": torch.ones(batch, 2),
        "grounded": torch.ones(batch, 2, dtype=torch.bool),
    }

    def backward() -> None:
        (model(noisy, times, **conditions) - noisy).square().mean().backward()

    return row(batch, seconds(backward), *optimiser_seconds(model, backward))


def small_flux(kind: type[RoutedFlux], references: bool, routing: bool) -> dict[str, float]:
    """The small Flux: its base from words, DreamO's losses, or numbered references."""
    model, batch = kind(flux_config(CHANNELS)), FLUX_BATCH * (1 if references else 2)
    text_g = build_text_g(len(Words())).eval().requires_grad_(False)
    latents = torch.randn(batch, CHANNELS, 16, 16)
    count = 2 if references else 0
    data = FluxBatch(
        latents,
        torch.randint(1, 900, (batch, 24)),
        [torch.randn_like(latents) for _ in range(count)] or None,
        torch.rand(batch, count, 8, 8),
        torch.tensor([3, 8])[:count].expand(batch, count),
        torch.ones(batch, dtype=torch.bool),
    )
    times, noise = torch.rand(batch), torch.randn_like(latents)

    def backward() -> None:
        if routing:
            losses(model, text_g, data, times, noise, True)["loss"].backward()
        else:
            velocity_loss(model, text_g, data, times, noise)["loss"].backward()

    return row(batch, seconds(backward, 2), *optimiser_seconds(model, backward))


def pictures() -> dict[str, float]:
    """The autoencoder, on whole pictures and on two crops of a quarter of each."""
    model = build_autoencoder(CHANNELS).to(memory_format=torch.channels_last)
    whole = torch.rand(PICTURES, 3, 128, 128)
    cropped = autoencoder.crops(whole, torch.Generator().manual_seed(0))
    found = {}
    for name, images in (("whole", whole), ("two crops", cropped)):
        images = images.contiguous(memory_format=torch.channels_last)

        def backward(images: torch.Tensor = images) -> None:
            copies = autoencoder.decode(model, autoencoder.encode(model, images))
            parts = autoencoder.reconstruction(copies * 2 - 1, images * 2 - 1)
            (parts["l1"] + parts["edges"] + parts["l2"]).backward()

        found[f"pictures/s, {name}"] = round(PICTURES / seconds(backward), 2)
    return found


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    jobs = {
        "unet": unet,
        "flux base": lambda: small_flux(RoutedFlux, False, False),
        "flux dreamo": lambda: small_flux(RoutedFlux, True, True),
        "flux index": lambda: small_flux(IndexedFlux, True, False),
        "autoencoder": pictures,
    }
    facts = {"torch": torch.__version__, "processor": platform.processor() or platform.machine(), "threads": 1}
    results: dict[str, object] = {"machine": facts, "load": os.getloadavg()[0]}
    for name, job in jobs.items():
        results[name] = job()
        sys.stdout.write(f"{name}: {results[name]}\n")
        sys.stdout.flush()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
