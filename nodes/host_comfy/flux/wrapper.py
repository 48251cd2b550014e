"""Reference images onto a clone of a Flux MODEL and its conditioning, through ComfyUI's own doors.

References travel in the conditioning, as ComfyUI's ``reference_latents`` (so its memory estimate counts them) and as
one more model condition that carries our own data of them. The MODEL gets one APPLY_MODEL wrapper, outside whatever
compiles the diffusion model. In calls without our references, such as the negative's, it does nothing. In the others
it adds a ``post_input`` patch (embeddings, positions) and, only if something is steered or recorded, an attention
override. No method of the model is replaced.
"""

from __future__ import annotations

import logging

import comfy.ldm.flux.model
import torch
from torch import Tensor

from ....core.routing.call_layout import Stage
from ....core.routing.reference_regions import ReferenceRegions
from ....core.routing.routing import Routing
from ....core.routing.token_layout import TokenLayout, length, positions, token_grid
from ..references.families import network_of
from ..references.flux import padded
from ..references.steer import SLOT, RegionsCond, finish, override_of
from ..sdxl.models import base_of

log = logging.getLogger(__name__)

KEY = "relate_references"
WORDS_KEY = "relate_placeholders"


class Diagonal(str):
    """The reference method of Apply References, distinct from the same word chosen by another node."""


class ReferenceCond(RegionsCond):
    """A Routing and the area its conditioning is computed on; only equal ones are batched into one call.

    A call gets (routing, area, whether each chunk of its batch records: all do).
    """

    def process_cond(self, batch_size, area=None, **kwargs):
        area = None if area is None else tuple(area)
        return self._copy_with((self.cond[0], area))

    def concat(self, others):
        return (*self.cond, (True,) * (1 + len(others)))


class Embed:
    """The ``post_input`` patch of one call: rows of the tables added, positions down the diagonal."""

    def __init__(self, rows: Tensor, ids: Tensor, lengths: tuple[int, ...], image_tokens: int) -> None:
        self.rows, self.ids, self.lengths, self.image_tokens = rows, ids, lengths, image_tokens
        self.called = False

    def __call__(self, inputs: dict) -> dict:
        self.called = True
        img, ids = inputs["img"], inputs["img_ids"]  # img has just been computed for this call: added to in place
        rows = self.rows.to(img)
        start = img.shape[1] - sum(self.lengths)
        img[:, : self.image_tokens] += rows[0]
        for row, tokens in zip(rows[1:], self.lengths):
            img[:, start : start + tokens] += row
            start += tokens
        ours = self.ids.to(ids.device)[None].expand(ids.shape[0], -1, -1)  # float32, whatever the model's dtype is
        ids = torch.cat((ids[:, : ids.shape[1] - ours.shape[1]].float(), ours), dim=1)
        return {**inputs, "img_ids": ids}


def apply_references(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
    """Run one call of the model: the APPLY_MODEL wrapper."""
    cond = conds.pop(KEY, None)
    options = transformer_options or {}
    if cond is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)
    routing, area, records = cond
    model = executor.class_obj

    # where our tokens stand, and the patch that embeds them
    conds = ours_last(conds, routing, model)
    assert c_crossattn is not None, "Flux reads text"
    sequence = sequence_of(routing, x, c_crossattn, conds["ref_latents"])
    embed = _embed(options := dict(options), routing, sequence)

    # the override that steers and records
    layout = routing.layout(sequence)
    stage = Stage("attention", blocks_of(model), layout.size, layout, recorded=True)
    override = override_of(routing.regions, [stage], options, model.model_sampling, area, records, x)
    if override is not None:
        options[SLOT] = override
    conds = padded(conds, sequence.size)
    if routing.first_guidance is not None and "guidance" in conds and first_step(options):
        conds["guidance"] = torch.full_like(conds["guidance"], routing.first_guidance)
    out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
    check_embedded(routing.regions, embed)
    if override is not None:
        finish(routing.regions, "Flux", override)
    return out


def ours_last(conds: dict, routing: Routing, model) -> dict:
    """Move our latents behind those of other nodes, which keep their own position rule, in a call's conditions.

    Nodes before Apply References and after it add theirs on either side, so ours are identified by their numbers.

    Raises:
        ValueError: one of ours is no longer there.
    """
    latents = list(conds.get("ref_latents") or [])
    shapes = tuple(latent.shape[1:] for latent in latents)
    if shapes not in routing.regions.own_latents:
        routing.regions.own_latents[shapes] = find_ours(latents, routing, model)
    places = routing.regions.own_latents[shapes]
    others = [latent for at, latent in enumerate(latents) if at not in places]
    conds = {**conds, "ref_latents": others + [latents[at] for at in places]}
    if others and isinstance(conds.get("ref_latents_method"), Diagonal):
        del conds["ref_latents_method"]
    return conds


def find_ours(latents: list[Tensor], routing: Routing, model) -> tuple[int, ...]:
    """Find the latents of our references among a call's; numbers are compared, so this is done once per run."""
    remaining, places = dict(enumerate(latents)), []
    for reference in routing.references:
        latent = model.process_latent_in(reference.latent)
        place = next(
            (
                at
                for at, other in remaining.items()
                if other.shape[1:] == latent.shape[1:] and torch.equal(other[:1], latent.to(other))
            ),
            None,
        )
        if place is None:
            raise ValueError(
                f"positive: expected the latent of reference {reference.slot}, but another node took it "
                "out of the conditioning or changed it. Put Apply References behind that node."
            )
        places.append(place)
        del remaining[place]
    return tuple(places)


def sequence_of(routing: Routing, x: Tensor, context: Tensor, latents: list[Tensor]) -> TokenLayout:
    """Lay out this call's tokens; our references are the last of the latents, see ``ours_last``."""
    others = latents[: len(latents) - len(routing.references)]
    return TokenLayout(
        context.shape[1],
        token_grid(*x.shape[-2:]),
        tuple(each.grid for each in routing.references),
        sum(length(token_grid(*latent.shape[-2:])) for latent in others),
    )


def _embed(options: dict, routing: Routing, sequence: TokenLayout) -> Embed:
    """Add our patch to this call's own copy of the options, and return it."""
    patches = dict(options.get("patches", {}))
    rows = routing.tables.embeddings(routing.slots)
    ids = positions(sequence.image, sequence.references)
    patch = Embed(rows, ids, tuple(map(length, sequence.references)), length(sequence.image))
    # first, so that other packs' patches see the sequence as published
    patches["post_input"] = [patch, *patches.get("post_input", [])]
    options["patches"] = patches
    return patch


def check_embedded(regions: ReferenceRegions, embed: Embed) -> None:
    """Warn once per run of a network that does not run patches; caches leave it out of later calls than the first."""
    regions.reached = regions.reached or embed.called
    what = (
        "Relate: the references have nothing of DreamO: a copy of Flux by another node (TeaCache) leaves out what "
        "patches add. Take that node out; ComfyUI's EasyCache works."
    )
    if not regions.reached and what not in regions.warnings:
        regions.warnings.add(what)
        log.warning(what)


def first_step(options: dict) -> bool:
    """Whether the model is called for the first step of the schedule."""
    schedule, sigmas = options.get("sample_sigmas"), options.get("sigmas")
    return schedule is None or sigmas is None or len(schedule) < 2 or bool(sigmas.max() > schedule[1])


def blocks_of(model) -> int:
    """Count the attentions of one call."""
    network = network_of(model)
    return len(network.double_blocks) + len(network.single_blocks)


def check_flux(model) -> None:
    """Check that the MODEL is ComfyUI's own Flux, which DreamO needs.

    Raises:
        ValueError: another family, or a wrapper that takes the place of Flux.
    """
    network = network_of(model.model)
    if not isinstance(network, comfy.ldm.flux.model.Flux):
        name = type(network).__name__
        if base_of(model).startswith("Flux") or "flux" in name.lower():
            raise ValueError(
                f"model: expected ComfyUI's own Flux, got {name}, which takes its place and has no way in "
                "for reference images. Load the model with Load Diffusion Model, or a GGUF loader, "
                "instead of nunchaku's."
            )
        raise ValueError(
            f"model: expected a Flux model (FLUX.1-dev), got {base_of(model)}. DreamO's references are "
            "tokens of Flux's own sequence."
        )
