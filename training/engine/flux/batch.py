"""What each step on a Flux-class model trains on, a pure function of the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ...common.seeds import seeded_generator
from ...config import FluxConfig
from ...data.encoded_flux import EncodedFlux
from ...diffusion.flow import sample_times, shift_of
from .stages import Stage, stage_at


@dataclass(frozen=True, eq=False)
class FluxDraw:
    """The random part of one global batch.

    Attributes:
        rows: (B,) which crops, drawn with replacement.
        times: (B,) in (0, 1).
        noise: (B, C, h, w) from N(0, 1).
        named: (B,) bool, the prompt names the references.
        silent: (B,) bool, without words; ``alone`` (B,) bool, without references.
        token_mask: (B, S, T) bool, which tokens of each reference take part; T 0 where all do.
        stage: what the step is for.
    """

    rows: Tensor
    times: Tensor
    noise: Tensor
    named: Tensor
    silent: Tensor
    alone: Tensor
    token_mask: Tensor
    stage: Stage

    def part(self, start: int, stop: int) -> FluxDraw:
        """Take some of the pictures."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return FluxDraw(**{name: each if name == "stage" else each[start:stop] for name, each in tensors.items()})

    def to(self, device: torch.device) -> FluxDraw:
        moved = {name: each.to(device) for name, each in vars(self).items() if name not in ("stage", "token_mask")}
        return replace(self, **moved)

    def inputs(self, device: torch.device) -> tuple[FluxDraw]:
        """Return what the objective takes beside the crops."""
        return (self.to(device),)


def sample_flux_batch(config: FluxConfig, step: int, crops: EncodedFlux, patch: int) -> FluxDraw:
    """Draw one step's global batch on the CPU.

    Args:
        config: of the run.
        step: 0, 1, ...
        crops: what there is to choose from.
        patch: side of a token in latent cells.
    """
    generator = seeded_generator(f"{config.train.seed}/{step}")
    stage, count = stage_at(config, step), config.train.batch_size
    flow, references = config.flow, config.references
    height, width = crops.latents.shape[-2:]
    shift = flow.shift or shift_of(height * width // patch**2)

    def chance(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    tokens = crops.references.shape[-1] * crops.references.shape[-2] // patch**2 if stage.token_share < 1 else 0
    rows = torch.multinomial(row_weights(stage, crops), count, replacement=True, generator=generator)
    times = sample_times(flow.density, count, generator, flow.mean, flow.deviation, shift)
    noise = torch.randn((count, *crops.latents.shape[1:]), generator=generator)
    named, silent, alone = chance(references.named), chance(references.text_drop), chance(references.drop)
    luck = torch.rand((count, crops.present.shape[1], tokens), generator=generator)
    token_mask = luck < stage.token_share
    if tokens:  # a reference of which nothing was kept would not be one
        token_mask |= luck == luck.amin(dim=-1, keepdim=True)
    return FluxDraw(rows, times, noise, named, silent, alone, token_mask, stage)


def row_weights(stage: Stage, crops: EncodedFlux) -> Tensor:
    """Return each crop's chance, (N,): its folder's share, evenly among the folder's crops; columns by their own."""
    source, columns = crops.source.cpu(), crops.columns.cpu() > 0.5
    weights = torch.zeros(len(source), dtype=torch.float64)
    for index, share in enumerate(stage.shares):
        for side_by_side, part in ((True, stage.columns), (False, 1 - stage.columns)):
            rows = (source == index) & (columns == side_by_side)
            if rows.any():
                weights[rows] = share * part / int(rows.sum())
    return weights
