"""Reference images onto a clone of a Flux MODEL and its conditioning, through ComfyUI's own doors.

References travel in the conditioning, as ComfyUI's ``reference_latents`` (so its memory estimate counts them) and as
one more model condition that carries what we know of them. The MODEL gets one APPLY_MODEL wrapper, outside whatever
compiles the diffusion model. In calls without our references, such as the negative's, it does nothing. In the others
it adds a ``post_input`` patch (embeddings, positions) and, only if something is steered or recorded, an attention
override. No method of the model is replaced.
"""

from __future__ import annotations

from dataclasses import replace

import comfy.conds
import comfy.ldm.flux.model
import torch
from comfy.patcher_extension import WrappersMP
from einops import rearrange
from torch import Tensor

from ...core.routing.condition import Sequence, length, positions, token_grid
from ...core.routing.routing import Attention, Routing
from ...core.routing.routing_map import logit_map
from .attach import conditional_rows
from .models import base_of

KEY = "relate_references"
WORDS_KEY = "relate_placeholders"


class Diagonal(str):
    """The reference method that Apply References chose, told apart from the same word chosen by another node."""


class ReferenceCond(comfy.conds.CONDConstant):
    """A Routing and the area its conditioning is computed on; only equal ones are batched into one call."""

    def process_cond(self, batch_size, area=None, **kwargs):
        area = None if area is None else tuple(area)
        return self._copy_with((self.cond[0], area))


class Embed:
    """The ``post_input`` patch of one call: rows of the tables added, positions down the diagonal."""

    def __init__(self, rows: Tensor, ids: Tensor, lengths: tuple[int, ...], image_tokens: int) -> None:
        self.rows, self.ids, self.lengths, self.image_tokens = rows, ids, lengths, image_tokens

    def __call__(self, inputs: dict) -> dict:
        img, ids = inputs["img"], inputs["img_ids"]  # img has just been computed for this call: added to in place
        rows = self.rows.to(img)
        start = img.shape[1] - sum(self.lengths)
        img[:, :self.image_tokens] += rows[0]
        for row, tokens in zip(rows[1:], self.lengths):
            img[:, start:start + tokens] += row
            start += tokens
        ours = self.ids.to(ids.device)[None].expand(ids.shape[0], -1, -1)  # float32, whatever the model's dtype is
        ids = torch.cat((ids[:, :ids.shape[1] - ours.shape[1]].float(), ours), dim=1)
        return {**inputs, "img_ids": ids}


class Override:
    """The attention override of one call: records, steers, else calls what would have been called."""

    def __init__(self, sequence: Sequence, attention: Attention | None, maps: list | None, rows: slice, before) -> None:
        self.sequence, self.attention, self.maps, self.rows, self.before = sequence, attention, maps, rows, before

    def __call__(self, plain, query: Tensor, key: Tensor, value: Tensor, heads: int, *args, **kwargs) -> Tensor:
        if self.maps is not None:
            self.maps.append(logit_map(query[self.rows], key[self.rows], self.sequence))
        if self.attention is not None:
            out = self.attention(query, key, value, kwargs.get("mask"))
            return rearrange(out, "b h s d -> b s (h d)")
        if self.before is not None:
            return self.before(plain, query, key, value, heads, *args, **kwargs)
        return plain(query, key, value, heads, *args, **kwargs)


def apply_references(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
    """The APPLY_MODEL wrapper."""
    given = conds.pop(KEY, None)
    options = transformer_options or {}
    if given is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)
    routing, area = given
    model = executor.class_obj
    conds = ours_last(conds, routing, model)
    sequence = sequence_of(routing, x, c_crossattn, conds["ref_latents"])
    _embed(options := dict(options), routing, sequence)
    maps = [] if routing.recorder is not None else None
    _override(options, routing, sequence, area, maps, x, model)
    if conds.get("attention_mask") is not None:
        conds["attention_mask"] = padded(conds["attention_mask"], sequence.size)
    if routing.first_guidance is not None and "guidance" in conds and first_step(options):
        conds["guidance"] = torch.full_like(conds["guidance"], routing.first_guidance)
    out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
    if maps:
        routing.recorder.take(maps)
    return out


def ours_last(conds: dict, routing: Routing, model) -> dict:
    """A call's conditions with our latents behind those of other nodes, which keep their own position rule.

    Nodes before Apply References and after it add theirs on either side, so ours are told by what they hold.

    Raises:
        ValueError: one of ours is no longer there.
    """
    others, ours = list(conds.get("ref_latents") or []), []
    for reference in routing.references:
        latent = model.process_latent_in(reference.latent)
        place = next((at for at, other in enumerate(others)
                      if other.shape[1:] == latent.shape[1:] and torch.equal(other[:1], latent.to(other))), None)
        if place is None:
            raise ValueError(f"positive: expected the latent of reference {reference.slot}, but another node took it "
                             "out of the conditioning or changed it. Put Apply References behind that node.")
        ours.append(others.pop(place))
    conds = {**conds, "ref_latents": others + ours}
    if others and isinstance(conds.get("ref_latents_method"), Diagonal):
        del conds["ref_latents_method"]
    return conds


def sequence_of(routing: Routing, x: Tensor, context: Tensor, latents: list[Tensor]) -> Sequence:
    """The layout of this call; our references are the last of the latents, see ``ours_last``."""
    others = latents[:len(latents) - len(routing.references)]
    return Sequence(context.shape[1], token_grid(*x.shape[-2:]), tuple(each.grid for each in routing.references),
                    sum(length(token_grid(*latent.shape[-2:])) for latent in others))


def _embed(options: dict, routing: Routing, sequence: Sequence) -> None:
    """Add our patch to this call's own copy of the options."""
    patches = dict(options.get("patches", {}))
    rows = routing.tables.rows(routing.slots)
    ids = positions(sequence.image, sequence.references)
    patch = Embed(rows, ids, tuple(map(length, sequence.references)), length(sequence.image))
    # first, so that other packs' patches see the sequence as published
    patches["post_input"] = [patch, *patches.get("post_input", [])]
    options["patches"] = patches


def _override(options: dict, routing: Routing, sequence: Sequence, area, maps: list | None, x: Tensor, model) -> None:
    attention = None
    if routing.steers:
        attention = routing.attention(sequence, area, _inside(options, routing.window), head_width(model), x.device,
                                      model.manual_cast_dtype or model.get_dtype())
    rows = next((rows for rows, _ in conditional_rows(options, x.shape[0])), None)
    if rows is None:
        maps = None
    if attention is not None or maps is not None:
        before = options.get("optimized_attention_override")
        options["optimized_attention_override"] = Override(sequence, attention, maps, rows, before)


def _inside(options: dict, window: tuple[float, float]) -> bool:
    """Whether this step is in a window that begins with its first sigma and ends before its last."""
    sigmas = options.get("sigmas")
    return sigmas is None or window[1] < float(sigmas.max()) <= window[0]


def first_step(options: dict) -> bool:
    """Whether the model is called for the first step of the schedule."""
    schedule, sigmas = options.get("sample_sigmas"), options.get("sigmas")
    return schedule is None or sigmas is None or len(schedule) < 2 or bool(sigmas.max() > schedule[1])


def padded(mask: Tensor, size: int) -> Tensor:
    """An attention mask of text and image with no say on the tokens after them; ComfyUI does not pad it."""
    short = size - mask.shape[-1]
    return mask if short == 0 else torch.nn.functional.pad(mask, (0, short, 0, short))


def head_width(model) -> int:
    """Channels of an attention head."""
    params = model.diffusion_model.params
    return params.hidden_size // params.num_heads


def check_flux(model) -> None:
    """DreamO needs ComfyUI's own Flux.

    Raises:
        ValueError: another family, or a wrapper that takes the place of Flux.
    """
    network = model.model.diffusion_model
    network = getattr(network, "_orig_mod", network)
    if not isinstance(network, comfy.ldm.flux.model.Flux):
        name = type(network).__name__
        if base_of(model).startswith("Flux") or "flux" in name.lower():
            raise ValueError(f"model: expected ComfyUI's own Flux, got {name}, which takes its place and has no way in "
                             "for reference images. Load the model with Load Diffusion Model, or a GGUF loader, "
                             "instead of nunchaku's.")
        raise ValueError(f"model: expected a Flux model (FLUX.1-dev), got {base_of(model)}. DreamO's references are "
                         "tokens of Flux's own sequence.")


def attach_references(model, positive: list, routing: Routing) -> tuple:
    """A clone of the MODEL and new CONDITIONING with the references; both untouched if there are none.

    Reference latents of other nodes (Kontext's), set before this or after it, stay first, under their own position
    rule. Our own from an earlier Apply References are replaced.
    """
    clone = model.clone()
    if not routing.references:
        return clone, positive
    if not clone.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_references)
    return clone, [[embedding, _with_references(entry, routing)] for embedding, entry in positive]


def _with_references(entry: dict, routing: Routing) -> dict:
    """A conditioning entry's dictionary, copied."""
    before = _without_ours(entry)
    others = before.get("reference_latents", [])
    words = entry.get(WORDS_KEY, {})
    routing = replace(routing, words=words) if words else routing
    added = {"reference_latents": [*others, *(reference.latent for reference in routing.references)],
             "model_conds": {**before.get("model_conds", {}), KEY: ReferenceCond((routing, None))}}
    if not others:
        added["reference_latents_method"] = Diagonal("uxo")  # the diagonal, also for a MODEL that lost its wrapper
    return {**before, **added}


def _without_ours(entry: dict) -> dict:
    """A conditioning entry without references of an earlier Apply References."""
    conds = entry.get("model_conds", {})
    if KEY not in conds:
        return entry
    ours = [reference.latent for reference in conds[KEY].cond[0].references]
    left = [latent for latent in entry.get("reference_latents", []) if not any(latent is each for each in ours)]
    entry = {key: value for key, value in entry.items()
             if key != "reference_latents" and not isinstance(value, Diagonal)}
    return {**entry, "model_conds": {key: value for key, value in conds.items() if key != KEY},
            **({"reference_latents": left} if left else {})}
