"""An identity onto a clone of a MODEL, through ComfyUI's own patch slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ....core.attention import as_bias
from ....core.identity.auto_layout import phrase_attention
from ....core.identity.branch import ProjectedIdentity, image_attention
from ....core.scene import Box
from ..model_calls import CALL, ModelCall, Rows, plain_call
from ..prompt_tokens import PromptTokens
from .models import unet_layout
from .prompt_lookup import RUN, Run, attach_run

WHOLE_SCHEDULE = (0.0, 1.0)


class AppliedIdentity:
    """One identity as applied to one MODEL; shared by its sites and by clones of the MODEL.

    Attributes:
        projected: keys and values of all sites.
        weight: gamma, the factor on the image attention.
        window: (start, end) fractions of the schedule, both included.
        layout: "boxes", "attention" or "none".
    """

    def __init__(self, projected: ProjectedIdentity, weight: float, window: tuple[float, float], layout: str) -> None:
        self.projected = projected
        self.weight = weight
        self.window = window
        self.layout = layout
        self._masks: dict[tuple, Tensor] = {}
        self._cast: dict[tuple, tuple[Tensor, Tensor]] = {}
        self._sigma: tuple[object, bool] = (None, True)

    def acts(self, options: dict, run: Run | None) -> bool:
        """Whether the step is inside the window; reads the device once per step, not once per site."""
        sigmas = options.get("sigmas")
        if self.window == WHOLE_SCHEDULE or sigmas is None or run is None:
            return True
        if self._sigma[0] is not sigmas:
            high, low = run.sigmas_of(self)
            self._sigma = (sigmas, low <= float(sigmas.max()) <= high)
        return self._sigma[1]

    def coverage(self, grid: tuple[int, int], window: Box) -> Tensor:
        """(S, h, w) bool: where each subject may act by its box, on the CPU."""
        coverage = self.projected.tokens.layout.coverage(*grid, window)
        return torch.ones_like(coverage) if self.layout == "none" else coverage

    def mask(self, grid: tuple[int, int], window: Box, query: Tensor) -> Tensor:
        """(h*w, M) additive mask of the boxes, built once per resolution, window, dtype and device."""
        key = (grid, window, query.dtype, query.device)
        if key not in self._masks:
            mask = self.projected.mask(self.coverage(grid, window))
            self._masks[key] = as_bias(mask, query.dtype).to(query.device)
        return self._masks[key]

    def keys_values(self, index: int, query: Tensor) -> tuple[Tensor, Tensor]:
        """(1, M, C) each of one site, as the query is."""
        key = (index, query.dtype, query.device)
        if key not in self._cast:
            keys, values = self.projected.sites[index]
            self._cast[key] = keys.to(query.device, query.dtype), values.to(query.device, query.dtype)
        return self._cast[key]

    def release(self) -> None:
        """Drop the masks, keys and values that a run has put on the device."""
        self._masks.clear()
        self._cast.clear()
        self._sigma = (None, True)


class IdentityPatch:
    """The patch in one ``attn2`` slot: text attention as before, plus the image attention of conditional rows.

    ComfyUI calls it with q, k, v after their projections (LoRAs included) and applies ``to_out`` to what it returns.
    A patch that was in the slot is called in the place of the plain text attention. ``add`` is what IP-Adapter packs
    call on an occupied slot; their callbacks then run after ours, in their own sigma windows.
    """

    def __init__(self, identity: AppliedIdentity, index: int, before: Callable | None) -> None:
        self.identity = identity
        self.index = index
        self.wrapped: Any = before
        self._added: list[tuple[Callable, dict]] = []

    def clone(self) -> IdentityPatch:
        """Copy for a clone of the MODEL: its own list of added callbacks, shared keys and values."""
        wrapped = self.wrapped.clone() if isinstance(self.wrapped, IdentityPatch) else self.wrapped
        patch = IdentityPatch(self.identity, self.index, wrapped)
        patch._added = list(self._added)
        return patch

    def __deepcopy__(self, memo: dict) -> IdentityPatch:
        """ComfyUI before 0.4 copies patches deeply with a clone; keys and values need no copy."""
        return self.clone()

    def to(self, target) -> IdentityPatch:
        """ComfyUI moves patches with the model. Keys and values are cast when used, so only release is needed."""
        if isinstance(target, torch.device):
            self.identity.release()
            if hasattr(self.wrapped, "to"):
                self.wrapped = self.wrapped.to(target)
        return self

    def models(self) -> list:
        """Models the memory manager should load with ours: those of the patch we wrap."""
        return self.wrapped.models() if hasattr(self.wrapped, "models") else []

    def add(self, callback: Callable, **arguments) -> None:
        """Add another pack's attention callback (the protocol of IP-Adapter packs)."""
        self._added.append((callback, arguments))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, options: dict) -> Tensor:
        heads = options["n_heads"]
        if self.wrapped is None:
            out = optimized_attention(
                query, key, value, heads, attn_precision=options.get("attn_precision"), transformer_options=options
            )
        else:
            out = self.wrapped(query, key, value, options).clone()  # it may be the other patch's own tensor
        run = options.get(RUN)
        if self.identity.acts(options, run):
            for rows in positive_call(options, run, query.shape[0]).positive:
                self._add_image(out, query, key, heads, options, rows)
        for callback, arguments in self._added:
            if _in_window(options, arguments):
                out = out + callback(out, query, key, value, options, **arguments)
        return out

    def _add_image(self, out: Tensor, query: Tensor, key: Tensor, heads: int, options: dict, rows: Rows) -> None:
        """out[rows] += gamma * image attention, in place: out is this call's own result."""
        where = rows.where
        grid = token_grid(options, query.shape[1])
        mask = self._mask(grid, query[where], key[where], heads, options.get(RUN), rows)
        ours = image_attention(query[where], *self.identity.keys_values(self.index, query), heads, mask)
        if isinstance(where, slice):
            out[where].add_(ours, alpha=self.identity.weight)
        else:
            out[where] = out[where].add(ours, alpha=self.identity.weight)

    def _mask(
        self, grid: tuple[int, int], query: Tensor, key: Tensor, heads: int, run: Run | None, rows: Rows
    ) -> Tensor:
        identity = self.identity
        if run is None or run.steps is None or identity.layout != "attention":
            return identity.mask(grid, rows.window, query)
        places = run.places_of(identity, rows.uuid)
        if places is None or not any(places):
            return identity.mask(grid, rows.window, query)
        maps = phrase_attention(query, key, heads, places).unflatten(-1, grid)  # (B, S, h, w)
        where = (self.index, rows.uuid, rows.pictures)
        coverage = run.record_of(identity).observe(where, run.steps.step, maps, rows.window)
        if coverage is None:
            return identity.mask(grid, rows.window, query)
        lost = [index for index, positions in enumerate(places) if not positions]
        if lost:  # a subject whose words are not known keeps its box
            coverage[:, lost] = identity.coverage(grid, rows.window)[lost].to(coverage.device)
        return identity.projected.mask(coverage)


def positive_call(options: dict, run: Run | None, batch: int) -> ModelCall:
    """Select the rows that identities act on; as ComfyUI stacks them where the call was not announced."""
    call = options.get(CALL)
    if call is not None and call.batch == batch:
        return call
    return plain_call(options, batch, None if run is None else run.conditionings)


def token_grid(options: dict, tokens: int) -> tuple[int, int]:
    """Read the height and width of the token grid at this site from ComfyUI's options."""
    height, width = options["activations_shape"][-2:]
    if height * width != tokens:
        raise ValueError(
            f"Relate: expected {height} x {width} tokens at this cross-attention, got {tokens}. Another "
            "node cuts the picture into tiles there; put Apply Identity on a model without it."
        )
    return height, width


def _in_window(options: dict, arguments: dict) -> bool:
    """Whether an IP-Adapter callback acts: between its own two sigmas."""
    if "sigmas" not in options or "sigma_start" not in arguments:
        return True
    return arguments["sigma_end"] <= float(options["sigmas"].max()) <= arguments["sigma_start"]


def attach_identity(
    model,
    projected: ProjectedIdentity,
    names: tuple[str, ...],
    tokens: PromptTokens,
    weight: float,
    window: tuple[float, float],
    layout: str,
):
    """Clone the MODEL so that its cross-attentions also read the identity tokens.

    Args:
        model: a MODEL that ``projected`` fits.
        names: the subjects' names, to find them in the prompt.
        tokens: of the CLIP that named them.
        weight: gamma; 0 leaves the clone untouched.
        window: (start, end) fractions of the schedule; empty leaves the clone untouched.
        layout: "boxes", "attention" or "none".
    """
    clone = model.clone()
    if weight == 0 or window[0] >= window[1] or not projected.sites:
        return clone
    identity = AppliedIdentity(projected, weight, window, layout)
    occupied = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for index, site in enumerate(unet_layout(model).sites()):
        block, number, transformer = site.comfy
        # a patch may stand for a whole block, without a transformer index
        before = occupied.get((block, number, transformer), occupied.get((block, number)))
        clone.set_model_attn2_replace(IdentityPatch(identity, index, before), block, number, transformer)
    attach_run(clone, identity, names, tokens)
    clone.add_callback_with_key(CallbacksMP.ON_CLONE, "relate", _separate_patches)
    return clone


def _separate_patches(_original, clone) -> None:
    """Copy the patches of a clone: newer ComfyUI shares them, and another pack's callbacks belong to one clone only."""
    slots = clone.model_options["transformer_options"]["patches_replace"]["attn2"]
    for slot, patch in slots.items():
        if isinstance(patch, IdentityPatch):
            slots[slot] = patch.clone()
