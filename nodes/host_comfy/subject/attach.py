"""A subject adapter onto a clone of a MODEL.

The gated adapters stand in ComfyUI's middle patches, between self- and cross-attention; the location mask is added to
the output of the first convolution; trained weights of the base are weight patches. They act on every conditioning but
the negative: with DualCFGGuider (positive: the fused prompt; cond2: empty text; negative: empty text; style regular)
that is the paper's guidance, eps_U + g (eps_T - eps_I) + g_I (eps_I - eps_U).
"""

from __future__ import annotations

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....core.cross_attention_layers import CrossAttentionLayer
from ....core.scene import WHOLE_PICTURE, Box
from ....core.subject.blocks import are_chosen
from ....core.subject.location import location_mask, mask_addition
from ..model_calls import Conditionings
from ..sdxl.models import base_of, unet_layout
from .loader import LoadedSubjectAdapter, difference_patches

KEY = "relate_subject"
FACTOR = 8  # pixels of a cell of SD's and SDXL's latents


class AppliedSubjects:
    """The patches of one application, shared by clones of the MODEL; called as middle patch.

    Args:
        adapter: the loaded adapter.
        objects: (1, M, D), from `object_tokens`.
        boxes: (S, 4) fractions, x0 y0 x1 y1.
        weight: factor of the gates and of the mask's part.
        window: (start, end) fractions of the schedule.
        location: whether the mask is added; nothing is where the file does not train the input convolution.
        blocks: index of the gated adapter by ComfyUI's block name, number and transformer index.
    """

    def __init__(
        self,
        adapter: LoadedSubjectAdapter,
        objects: Tensor,
        boxes: Tensor,
        weight: float,
        window: tuple[float, float],
        location: bool,
        blocks: dict[tuple[str, int, int], int],
    ) -> None:
        self.adapter, self.objects, self.boxes = adapter, objects, boxes
        self.weight, self.window, self.location = weight, window, location
        self.blocks = blocks
        self._sigmas: tuple[float, float] | None = None
        self._conditionings: Conditionings | None = None

    def __deepcopy__(self, memo: dict) -> AppliedSubjects:
        """ComfyUI before 0.4 copies patches deeply with a clone; nothing here changes but during a run."""
        return self

    def to(self, target: torch.device | torch.dtype) -> AppliedSubjects:
        """ComfyUI moves patches with the model: the tokens to its device, not to its dtype, which blocks cast to."""
        if isinstance(target, torch.device):
            self.objects = self.objects.to(target)
        return self

    def models(self) -> list:
        """Models that the memory manager loads with the MODEL."""
        return [self.adapter.patcher]

    def begin_run(self, executor, *args, **kwargs):
        """Read the schedule and the guider's conditionings, and forget them afterwards: the OUTER_SAMPLE wrapper."""
        guider = executor.class_obj
        noise = args[0] if args else kwargs["noise"]
        sampling = guider.model_patcher.get_model_object("model_sampling")
        high, low = (float(sampling.percent_to_sigma(share)) for share in self.window)
        self._sigmas, self._conditionings = (low, high), Conditionings(guider, tuple(noise.shape[-2:]))
        try:
            return executor(*args, **kwargs)
        finally:
            self._sigmas = self._conditionings = None

    def begin_prediction(self, executor, model, conds, x_in: Tensor, timestep: Tensor, model_options: dict):
        """Note which of the guider's groups are predicted from: the CALC_COND_BATCH wrapper."""
        if self._conditionings is None:
            return executor(model, conds, x_in, timestep, model_options)
        with self._conditionings.predicting(conds):
            return executor(model, conds, x_in, timestep, model_options)

    def _acts(self, place: int, uuid: object) -> bool:
        """Whether a chunk is positive or Dual CFG's middle one; by its place only where no guider lists it."""
        group = None if self._conditionings is None else self._conditionings.group(place)
        if group is not None:
            return group.startswith(("positive", "middle"))
        negative = set() if self._conditionings is None else self._conditionings.uuids("negative")
        return uuid not in negative if uuid is not None and negative else place == 0

    def _rows(self, batch: int, options: dict) -> list[int]:
        """Select the rows of a call whose conditioning is not a negative one; none outside the window."""
        sigmas = options.get("sigmas")
        if self._sigmas is not None and sigmas is not None and self.window != (0.0, 1.0):
            if not self._sigmas[0] <= float(sigmas.max()) <= self._sigmas[1]:
                return []
        places = options.get("cond_or_uncond") or [0]
        uuids = options.get("uuids") or [None] * len(places)
        size = batch // len(places)
        return [
            row
            for chunk, (place, uuid) in enumerate(zip(places, uuids))
            if self._acts(place, uuid)
            for row in range(chunk * size, (chunk + 1) * size)
        ]

    def __call__(self, x: Tensor, options: dict) -> Tensor:
        """Let a transformer block read the objects, between its self- and its cross-attention."""
        block = options.get("block")
        index = None if block is None else self.blocks.get((*block[:2], options.get("block_index", 0)))
        rows = [] if index is None else self._rows(len(x), options)
        if not rows:
            return x
        fuser = self.adapter.patcher.model.fusers[index]
        objects = self.objects.to(x.device, x.dtype).expand(len(rows), -1, -1)
        out = x.clone()
        out[rows] = fuser(x[rows], objects, self.weight)
        return out

    def add_location(self, h: Tensor, options: dict) -> Tensor:
        """Add the mask's part of a widened input convolution to the output of ComfyUI's own."""
        rows = self._rows(len(h), options) if options.get("block") == ("input", 0) else []
        if not rows:
            return h
        weight = self.adapter.changes["unet.conv_in.weight"][:, -1:].to(h.device, h.dtype)
        out = h.clone()
        for window, of_window in self._by_window(rows, len(h), options).items():
            mask = self._mask(window, *h.shape[-2:]).to(h.device)
            out[of_window] = h[of_window] + self.weight * mask_addition(mask, weight)
        return out

    def _by_window(self, rows: list[int], batch: int, options: dict) -> dict[Box, list[int]]:
        """Group rows of a call by the part of the picture that their conditioning is computed on."""
        uuids, windows = options.get("uuids"), {}
        for row in rows:
            uuid = None if uuids is None else uuids[row * len(uuids) // batch]
            window = WHOLE_PICTURE if self._conditionings is None else self._conditionings.window(uuid)
            windows.setdefault(window, []).append(row)
        return windows

    def _mask(self, window: Box, height: int, width: int) -> Tensor:
        """(1, 1, h, w) location mask of the boxes, as a part of the picture shows them."""
        parts = [Box(*box).seen_through(window) for box in self.boxes.tolist()]
        boxes = torch.stack([torch.zeros(4) if box is None else box.tensor() for box in parts])
        present = torch.tensor([[box is not None for box in parts]])
        return location_mask(boxes[None], present, height * FACTOR, width * FACTOR, (height, width))


def attach(
    model,
    adapter: LoadedSubjectAdapter,
    objects: Tensor,
    boxes: Tensor,
    weight: float,
    window: tuple[float, float],
    location: bool,
):
    """Put the subjects onto a clone of a MODEL; the clone alone where the weight is 0 or the window empty.

    Raises:
        ValueError: a model whose blocks are not those of the adapter.
    """
    clone = model.clone()
    sites = _sites(model, adapter)
    if weight == 0 or window[0] >= window[1]:
        return clone
    blocks = {sites[name].comfy: index for index, name in enumerate(adapter.config.blocks)}
    subjects = AppliedSubjects(adapter, objects, boxes, weight, window, location, blocks)
    clone.set_model_patch(subjects, "middle_patch")
    if location and adapter.config.input_channels:
        clone.set_model_patch(subjects.add_location, "input_block_patch")
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, subjects.begin_run)
    clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, subjects.begin_prediction)
    weights = _weights(adapter, sites)
    own = model.get_key_patches("diffusion_model.") if weights else {}  # as loaded: without LoRAs, before any merge
    clone.add_patches(difference_patches(weights, own), weight)
    return clone


def _sites(model, adapter: LoadedSubjectAdapter) -> dict[str, CrossAttentionLayer]:
    """Match the adapter's blocks with the model's, by diffusers' name."""
    layout = unet_layout(model)
    sites = {site.diffusers.removesuffix(".attn2"): site for site in layout.sites()}
    own = adapter.config.blocks
    widths = {name: site.width for name, site in sites.items()}
    fits = are_chosen(own, widths)
    wrong = [] if fits else [name for name in {**own, **widths} if own.get(name) != widths.get(name)]
    if wrong or layout.context_width != adapter.config.context_width or not _takes_mask(model, adapter):
        raise ValueError(
            f"adapter: {adapter.file} was trained on {adapter.config.base or 'another base'}, with {len(own)} blocks "
            f"and a context of width {adapter.config.context_width}; the model is {base_of(model)}, with {len(sites)} "
            f"and {layout.context_width}, and {len(wrong)} blocks do not match "
            f"({', '.join(wrong[:2]) or 'another number of latent channels'}). "
            "Load the base that it was trained on."
        )
    return sites


def _takes_mask(model, adapter: LoadedSubjectAdapter) -> bool:
    """Whether the file's input convolution is the model's with one channel more, or the file has none."""
    if not adapter.config.input_channels:
        return True
    own = model.get_model_object("diffusion_model").input_blocks[0][0]
    trained = adapter.changes["unet.conv_in.weight"]
    return (own.out_channels, own.in_channels + 1) == tuple(trained.shape[:2])


def _weights(adapter: LoadedSubjectAdapter, sites: dict[str, CrossAttentionLayer]) -> dict[str, Tensor]:
    """Rename the trained weights of the base to ComfyUI's own keys."""
    weights = {}
    for key, tensor in adapter.changes.items():
        name = key.removeprefix("unet.")
        if name == "conv_in.weight":
            weights["diffusion_model.input_blocks.0.0.weight"] = tensor[:, :-1]
        elif name == "conv_in.bias":
            weights["diffusion_model.input_blocks.0.0.bias"] = tensor
        elif name != key:
            block, _, projection = name.partition(".attn2.")
            weights[f"diffusion_model.{sites[block].checkpoint}.{projection}"] = tensor
    return weights
