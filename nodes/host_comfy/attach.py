"""An identity or a relation onto a clone of a MODEL, through ComfyUI's own patch slots."""

from __future__ import annotations

from collections.abc import Callable

import comfy.lora
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...core.attention import additive
from ...core.identity.auto_layout import phrase_attention
from ...core.identity.branch import ProjectedIdentity, image_attention
from ...core.relation.lora import RelationLoRA
from ...core.scene import WHOLE_PICTURE, Box
from .models import unet_layout
from .run import RUN, start_run


class Identity:
    """One identity as applied to one MODEL; shared by its sites.

    Attributes:
        projected: keys and values of all sites.
        weight: gamma, the factor on the image attention.
        window: (sigma from, sigma to), both inclusive, or None for the whole schedule.
        layout: "boxes", "attention" or "none".
    """

    def __init__(self, projected: ProjectedIdentity, weight: float, window: tuple[float, float] | None,
                 layout: str) -> None:
        self.projected = projected
        self.weight = weight
        self.window = window
        self.layout = layout
        self._masks: dict[tuple, Tensor] = {}
        self._sigma: tuple[object, bool] = (None, True)

    def acts(self, options: dict) -> bool:
        """Whether the step is inside the window; reads the device once a step, not once a site."""
        if self.window is None or options.get("sigmas") is None:
            return True
        sigmas = options["sigmas"]
        if self._sigma[0] is not sigmas:
            high, low = self.window
            self._sigma = (sigmas, low <= float(sigmas.max()) <= high)
        return self._sigma[1]

    def mask(self, grid: tuple[int, int], window: Box, query: Tensor) -> Tensor:
        """(h*w, M) additive mask of the boxes, built once a resolution, window, dtype and device."""
        key = (grid, window, query.dtype, query.device)
        if key not in self._masks:
            tokens = self.projected.tokens
            coverage = tokens.layout.coverage(*grid, window)
            if self.layout == "none":
                coverage = torch.ones_like(coverage)
            self._masks[key] = additive(self.projected.mask(coverage), query.dtype).to(query.device)
        return self._masks[key]

    def release(self) -> None:
        """Drop what lies on the device."""
        self._masks.clear()


class IdentityPatch:
    """What stands in one ``attn2`` slot: text attention as before, plus the image attention of conditional rows.

    ComfyUI calls it with q, k, v after their projections (LoRAs included) and applies ``to_out`` to what it returns.
    A patch that was in the slot is called in the place of the plain text attention. ``add`` is what IP-Adapter packs
    call on an occupied slot; their callbacks then run after ours, in their own sigma windows.
    """

    def __init__(self, identity: Identity, index: int, before: Callable | None) -> None:
        self.identity = identity
        self.index = index
        self.before = before
        self._added: list[tuple[Callable, dict]] = []
        self._cast: dict[tuple, tuple[Tensor, Tensor]] = {}

    def twin(self) -> IdentityPatch:
        """The same for a clone of the MODEL: its own list of added callbacks, shared keys and values."""
        before = self.before.twin() if isinstance(self.before, IdentityPatch) else self.before
        twin = IdentityPatch(self.identity, self.index, before)
        twin._added = list(self._added)
        return twin

    def __deepcopy__(self, memo: dict) -> IdentityPatch:
        """ComfyUI before 0.4 copies patches deeply with a clone; keys and values need no copy."""
        return self.twin()

    def to(self, target) -> IdentityPatch:
        """ComfyUI moves patches with the model. Keys and values are cast when used, so only release is needed."""
        if isinstance(target, torch.device):
            self._cast.clear()
            self.identity.release()
            if hasattr(self.before, "to"):
                self.before = self.before.to(target)
        return self

    def models(self) -> list:
        """Models the memory manager should load with ours: those of the patch we wrap."""
        return self.before.models() if hasattr(self.before, "models") else []

    def add(self, callback: Callable, **arguments) -> None:
        """Take in another pack's attention callback (the protocol of IP-Adapter packs)."""
        self._added.append((callback, arguments))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, options: dict) -> Tensor:
        heads = options["n_heads"]
        if self.before is None:
            out = optimized_attention(query, key, value, heads, attn_precision=options.get("attn_precision"),
                                      transformer_options=options)
        else:
            out = self.before(query, key, value, options).clone()  # it may be the other patch's own tensor
        if self.identity.acts(options):
            for row in conditional_rows(options, query.shape[0]):
                self._add_image(out, query, key, heads, options, row)
        for callback, arguments in self._added:
            if _in_window(options, arguments):
                out = out + callback(out, query, key, value, options, **arguments)
        return out

    def _add_image(self, out: Tensor, query: Tensor, key: Tensor, heads: int, options: dict,
                   rows: tuple[slice, object]) -> None:
        """out[rows] += gamma * image attention, in place: out is this call's own result."""
        where, chunk = rows
        grid = token_grid(options, query.shape[1])
        mask = self._mask(grid, query[where], key[where], heads, options, chunk)
        ours = image_attention(query[where], *self._keys_values(query), heads, mask)
        out[where].add_(ours, alpha=self.identity.weight)

    def _mask(self, grid, query: Tensor, key: Tensor, heads: int, options: dict, chunk: object) -> Tensor:
        run = options.get(RUN)
        if run is None:
            return self.identity.mask(grid, WHOLE_PICTURE, query)
        if self.identity.layout == "attention":
            record = run.record_for(self.identity)
            maps = phrase_attention(query, key, heads, record.spans)
            coverage = record.observe((self.index, chunk), maps)
            if coverage is not None:
                return self.identity.projected.mask(coverage.unflatten(-1, grid))
        return self.identity.mask(grid, run.window_of(chunk), query)

    def _keys_values(self, query: Tensor) -> tuple[Tensor, Tensor]:
        key = (query.dtype, query.device)
        if key not in self._cast:
            self._cast[key] = tuple(t.to(query.device, query.dtype) for t in self.identity.projected.sites[self.index])
        return self._cast[key]


def conditional_rows(options: dict, batch: int) -> list[tuple[slice, object]]:
    """Rows of the batch that hold positive conditionings, each with what names its chunk.

    ComfyUI stacks whole chunks: ``cond_or_uncond`` has a 0 for a positive and a 1 for a negative chunk.
    """
    chunks = options.get("cond_or_uncond") or [0]
    size = batch // len(chunks)
    names = options.get("uuids") or range(len(chunks))
    return [(slice(i * size, (i + 1) * size), name) for i, (kind, name) in enumerate(zip(chunks, names)) if kind == 0]


def token_grid(options: dict, tokens: int) -> tuple[int, int]:
    """Height and width of the token grid at this site, as ComfyUI tells them."""
    height, width = options["activations_shape"][-2:]
    if height * width != tokens:
        raise ValueError(f"Relate: expected {height} x {width} tokens at this cross-attention, got {tokens}. Another "
                         "node cuts the picture into tiles there; put Apply Identity on a model without it.")
    return height, width


def _in_window(options: dict, arguments: dict) -> bool:
    """IP-Adapter's rule for its callbacks: between its own two sigmas."""
    if "sigmas" not in options or "sigma_start" not in arguments:
        return True
    return arguments["sigma_end"] <= float(options["sigmas"].max()) <= arguments["sigma_start"]


def attach_identity(model, projected: ProjectedIdentity, names: tuple[str, ...], tokenizer, weight: float,
                    window: tuple[float, float], layout: str):
    """A clone of the MODEL whose cross-attentions also see the subjects.

    Args:
        model: a MODEL that ``projected`` fits.
        names: the subjects' names, to find them in the prompt.
        tokenizer: of the CLIP that named them.
        weight: gamma; 0 leaves the clone untouched.
        window: (start, end) fractions of the schedule; empty leaves the clone untouched.
        layout: "boxes", "attention" or "none".
    """
    clone = model.clone()
    start, end = window
    if weight == 0 or start >= end or not projected.sites:
        return clone
    sampling = clone.get_model_object("model_sampling")
    sigmas = None if (start, end) == (0.0, 1.0) else (sampling.percent_to_sigma(start), sampling.percent_to_sigma(end))
    identity = Identity(projected, weight, sigmas, layout)
    occupied = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for index, site in enumerate(unet_layout(model).sites()):
        block, number, transformer = site.comfy
        # a patch may stand for a whole block, without a transformer index
        before = occupied.get((block, number, transformer), occupied.get((block, number)))
        clone.set_model_attn2_replace(IdentityPatch(identity, index, before), block, number, transformer)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "relate", start_run(identity, names, tokenizer))
    clone.add_callback_with_key(CallbacksMP.ON_CLONE, "relate", _part_from)
    return clone


def _part_from(_original, clone) -> None:
    """Newer ComfyUI shares patch objects between clones; what another pack adds to one must stay out of the other."""
    slots = clone.model_options["transformer_options"]["patches_replace"]["attn2"]
    for slot, patch in slots.items():
        if isinstance(patch, IdentityPatch):
            slots[slot] = patch.twin()


def attach_relation(model, lora: RelationLoRA, strength: float):
    """A clone of the MODEL with the relation's deltas as weight patches, through ComfyUI's own LoRA loader.

    Raises:
        ValueError: ComfyUI's key map knows fewer of the pairs than the file has.
    """
    clone = model.clone()
    if strength == 0:
        return clone
    patches = comfy.lora.load_lora(lora.state(), comfy.lora.model_lora_keys_unet(clone.model, {}))
    applied = clone.add_patches(patches, strength)
    if len(applied) != len(lora.pairs):
        raise ValueError(f"relation: {len(applied)} of {len(lora.pairs)} pairs found their weights in this model; it "
                         "was built in a way ComfyUI's LoRA loader does not know.")
    return clone
