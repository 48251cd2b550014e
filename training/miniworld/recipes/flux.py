"""The small Flux's recipe: flow matching from words, then with references, with or without DreamO's further losses.

Source: DreamO (arXiv:2504.16915), equations 2 to 5. As there, references are taught to a model that already draws from
words: the base. The two variants begin from it and see the same scenes, noise and times; only the losses differ. Where
the paper is silent: maps of all blocks, heads averaged, after norm and rotary positions; targets are the exact share of
a token that a creature covers; the placeholder loss weighs a tenth. Times are drawn as SD3 draws them
(arXiv:2403.03206, section 3.1, logit-normal 0, 1).
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from core.routing.losses import placeholder_loss, routing_loss, total_loss
from core.routing.routing_map import logit_map
from core.routing.token_layout import TokenLayout

from ...common.atomic_io import write_text
from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.flux import RoutedFlux, attend_plain, sequence_of
from ...host_diffusers.miniworld.flux_files import FLUX_FOLDER, save_flux
from ...host_diffusers.miniworld.flux_text import encode_ids
from . import clip
from .flux_data import FluxBatch, FluxData, prepare

log = logging.getLogger(__name__)

SETTINGS = TrainerConfig(
    "flux",
    steps=400000,
    batch_size=16,
    lr=1.5e-3,
    warmup_steps=100,
    ema_decay=0.9995,
    weight_decay=0.01,
    adamw_params=("norm", "embed", "tables"),
)
BASE = replace(SETTINGS, name="flux_base", batch_size=32, lr=2e-3)
ROUTING_WEIGHT, HOLDER_WEIGHT = 1.0, 0.1


def run_name(routing: bool) -> str:
    """The folder of a variant's run in `<out>`."""
    return SETTINGS.name if routing else f"{SETTINGS.name}_unrouted"


class RoutingLossAttention:
    """Plain attention that counts equations 3 and 4 at every block.

    Args:
        sequence: the layout of the call's tokens.
        batch: targets and places.
        learned: whether gradients flow; else the losses are only told.
    """

    def __init__(self, sequence: TokenLayout, batch: FluxBatch, learned: bool) -> None:
        self.sequence, self.places, self.learned = sequence, batch.places, learned
        self.maps: list[Tensor] = []
        self.holders: list[Tensor] = []
        lengths = [rows * columns for rows, columns in sequence.references]
        self.owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(batch.places.device)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.learned and torch.is_grad_enabled()):
            self.maps.append(logit_map(query, key, self.sequence.layout()))
            if len(self.sequence.references) > 1:  # a single one has nothing to be told from
                at = self.places[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
                asking = query[:, :, self.sequence.reference_tokens(0).start :]
                self.holders.append(placeholder_loss(asking, key.gather(2, at), self.owners))
        return attend_plain(query, key, value)


def losses(
    model: RoutedFlux, text_g: nn.Module, batch: FluxBatch, time: Tensor, noise: Tensor, routing: bool
) -> dict[str, Tensor]:
    """Equation 5 of one step.

    Args:
        model: on the batch's device.
        text_g: the frozen text encoder.
        batch: scenes with R references, or none.
        time: (B,) in (0, 1); noise: as the latents.
        routing: train on the routing and the placeholder loss too; they are told in any case.
    Returns:
        Means over the batch: "loss"; "flow", squared error of the velocity; "route" and "holder", 0 where a step has
        none.
    """
    text, pooled = encode_ids(text_g, batch.ids, model.tables["words"])
    share = time.view(-1, 1, 1, 1)
    noisy = (1 - share) * batch.latents + share * noise
    if batch.references is None:
        predicted = model(noisy, time, text, pooled)
    else:
        counted = RoutingLossAttention(sequence_of(text.shape[1], noisy, batch.references), batch, routing)
        predicted = model(noisy, time, text, pooled, batch.references, counted)
    flow = (predicted.float() - (noise - batch.latents)).square().mean(dim=(1, 2, 3))
    route = holder = torch.zeros_like(flow)
    if batch.references is not None:
        route = routing_loss(counted.maps, batch.targets)
        if counted.holders:
            holder = torch.stack(counted.holders).mean(dim=0) * batch.worded
    total = total_loss(flow, route, holder, 1.0, ROUTING_WEIGHT, HOLDER_WEIGHT) if routing else flow
    return {
        name: value.mean() for name, value in (("loss", total), ("flow", flow), ("route", route), ("holder", holder))
    }


def train_base(out: Path, device: torch.device, minutes: float, settings: TrainerConfig = BASE) -> State:
    """Trains what both variants begin from: pictures from words, no references.

    Args:
        out: holds corpus, clip and encoded; receives `<out>/flux_base`.
        device, minutes, settings: see `fit`.
    Raises:
        FileNotFoundError: not encoded yet.
    """
    return _fit(out, device, minutes, settings, new_flux(settings.seed), FluxData.draw_plain, False)


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, routing: bool = True
) -> State:
    """Trains one variant from the base.

    Args:
        out: holds what `train_base` needs and made; receives `<out>/flux` or, without routing, `<out>/flux_unrouted`.
        device, minutes, settings: see `fit`.
        routing: with the routing and placeholder losses.
    Raises:
        FileNotFoundError: not encoded yet, or no base.
    """
    model = new_flux(settings.seed)
    model.load_state_dict(load_ema_weights(out / BASE.name)[0])
    settings = replace(settings, name=run_name(routing))
    return _fit(out, device, minutes, settings, model, FluxData.draw, routing)


def new_flux(seed: int) -> RoutedFlux:
    """The untrained model of a seed."""
    torch.manual_seed(seed)
    return RoutedFlux()


def _fit(
    out: Path,
    device: torch.device,
    minutes: float,
    settings: TrainerConfig,
    model: RoutedFlux,
    draw: Callable[[FluxData, int, torch.Generator], FluxBatch],
    routing: bool,
) -> State:
    for line in prepare(out, device, torch.get_num_threads()):
        log.info(line)
    data = FluxData.open(out)
    text_g = clip.load_trained(out / "clip")[0].text_g.to(device)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = draw(data, settings.batch_size, generator).to(device)
        time = torch.randn(settings.batch_size, generator=generator).sigmoid().to(device)
        noise = torch.randn(batch.latents.shape, generator=generator).to(device)
        return losses(model, text_g, batch, time, noise, routing)

    return fit(settings, model.to(device), loss, out / settings.name, device, minutes)


def load_trained(out: Path, routing: bool = True) -> RoutedFlux:
    """The averaged model of a variant, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: not trained yet.
    """
    model = RoutedFlux()
    model.load_state_dict(load_ema_weights(out / run_name(routing))[0])
    return model.eval().requires_grad_(False)


def export(out: Path, folder: Path = FLUX_FOLDER) -> int:
    """Writes the variant with routing and `training.json`, what it was trained with; returns the bytes of weights.

    Raises:
        FileNotFoundError: not trained yet.
    """
    written = save_flux(load_trained(out), folder)
    write_text(folder / "training.json", json.dumps(history(out, True), indent=1) + "\n")
    return written


def history(out: Path, routing: bool) -> dict[str, dict[str, float]]:
    """Steps, samples and minutes of the base's run and of a variant's; empty if the variant never ran."""
    pointers = {"base": out / BASE.name / "latest.json", "references": out / run_name(routing) / "latest.json"}
    if not pointers["references"].exists():
        return {}
    told = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in pointers.items()}
    return {
        name: {"steps": run["step"], "samples": run["samples"], "minutes": round(run["seconds"] / 60, 1)}
        for name, run in told.items()
    }
