"""Recipes of the small Flux: text only, then with references, as in DreamO and as in Flux's own later models.

Sources: DreamO (arXiv:2504.16915), equations 2 to 5, for `flux_dreamo`: references down the diagonal, embedding tables,
placeholders, the routing and the placeholder loss. `flux_index` has none of these: each reference has its own number on
the first position axis (ComfyUI's reference method "index"), prompts are plain, the loss is the velocity's alone. As in
DreamO, references are trained on a model that already draws from text: the base. Times are drawn as SD3 draws them
(arXiv:2403.03206, section 3.1, logit-normal 0, 1).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.flux import IndexedFlux, RoutedFlux, flux_config
from . import contrastive
from .flux_data import FluxBatch, FluxData
from .flux_losses import losses, velocity_loss

SETTINGS = TrainerConfig(
    "flux_dreamo",
    steps=400000,
    batch_size=16,
    lr=1.5e-3,
    warmup_steps=100,
    ema_decay=0.9995,
    weight_decay=0.01,
    adamw_params=("norm", "embed", "tables"),
    cooldown=0.3,
)
BASE = replace(SETTINGS, name="flux_base", batch_size=32, lr=2e-3, cooldown=0.0)
INDEX = replace(SETTINGS, name="flux_index")
UNROUTED = replace(SETTINGS, name="flux_unrouted")  # DreamO's without its two further losses
KINDS: dict[str, type[RoutedFlux]] = {SETTINGS.name: RoutedFlux, INDEX.name: IndexedFlux, UNROUTED.name: RoutedFlux}


def train_base(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = BASE, until: int | None = None
) -> State:
    """Train the base of all variants into `<out>/flux_base`: pictures from text, no references.

    Args:
        out: holds corpus, clip and encoded.
        device, minutes, settings, until: see `fit`.

    Raises:
        FileNotFoundError: not encoded yet.
    """
    return _fit(out, device, minutes, settings, until, RoutedFlux, FluxData.draw_plain)


def train_dreamo(
    out: Path,
    device: torch.device,
    minutes: float,
    settings: TrainerConfig = SETTINGS,
    until: int | None = None,
    routing: bool = True,
    base: str = BASE.name,
) -> State:
    """Train the base on references the way of DreamO into `<out>/flux_dreamo`, or `<out>/flux_unrouted`.

    Args:
        out: holds the inputs and the run of `train_base`.
        device, minutes, settings, until: see `fit`.
        routing: with the routing and placeholder losses.
        base: run in `out` whose averaged weights a new run begins with.

    Raises:
        FileNotFoundError: not encoded yet, or no base.
    """
    if not routing:
        settings = replace(settings, name=UNROUTED.name)
    return _fit(out, device, minutes, settings, until, RoutedFlux, FluxData.draw, base, routing)


def train_index(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = INDEX, until: int | None = None
) -> State:
    """Train the base on references numbered on the first position axis into `<out>/flux_index`; see `train_dreamo`."""
    return _fit(out, device, minutes, settings, until, IndexedFlux, FluxData.draw_without_placeholders, BASE.name)


def _fit(
    out: Path,
    device: torch.device,
    minutes: float,
    settings: TrainerConfig,
    until: int | None,
    kind: type[RoutedFlux],
    draw: Callable[[FluxData, int, torch.Generator], FluxBatch],
    base: str | None = None,
    routing: bool | None = None,
) -> State:
    """Train; `routing` None counts the velocity's loss alone."""
    data = FluxData.open(out)
    torch.manual_seed(settings.seed)
    model = kind(flux_config(data.latents.shape[1]))
    if base and not (out / settings.name / "latest.json").exists():
        model.load_state_dict(load_ema_weights(out / base)[0])
    model.to(device)
    text_g = contrastive.load_trained(out / "clip")[0].text_g.to(device)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = draw(data, settings.batch_size, generator).to(device)
        time = torch.randn(settings.batch_size, generator=generator).sigmoid().to(device)
        noise = torch.randn(batch.latents.shape, generator=generator).to(device)
        if routing is None:
            return velocity_loss(model, text_g, batch, time, noise)
        return losses(model, text_g, batch, time, noise, routing)

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def load_trained(out: Path, name: str = SETTINGS.name) -> RoutedFlux:
    """Load the averaged model of a variant, in evaluation mode, on the CPU.

    Args:
        out: of the runs.
        name: of the run: a key of KINDS, else of DreamO's kind.

    Raises:
        FileNotFoundError: not trained yet.
    """
    weights, _ = load_ema_weights(out / name)
    model = KINDS.get(name, RoutedFlux)(flux_config(weights["transformer.x_embedder.weight"].shape[1] // 4))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
