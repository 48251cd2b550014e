"""One sampling run with references, DreamO's or a family's own: steered, recorded, its maps shown while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import comfy.sample
import comfy.utils
import latent_preview
from PIL import Image
from torch import Tensor

from ....core.routing.routing_map import Recorder, RoutingMap
from ....core.routing.token_layout import Reference
from ..references import chain
from . import references as flux_references
from .loader import TABLES_KEY

log = logging.getLogger(__name__)

# how many pixels a cell of an empty latent stands for, so that ComfyUI can resize it to the model's own cells
_RATIOS = ("downscale_ratio_spacial", "downscale_ratio_temporal")


@dataclass(frozen=True)
class SamplerSettings:
    """The widgets of the sampler; strengths in nats, windows in fractions of the schedule, as in its schema."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float
    routing_strength: float
    start_at: float
    end_at: float
    record: bool
    isolation: float
    first_step_guidance: float


def sample(
    model,
    positive: list,
    negative: list,
    latent: dict,
    references: tuple[Reference, ...],
    settings: SamplerSettings,
    draw: Callable[[RoutingMap], Image.Image],
) -> tuple[dict, RoutingMap | None, tuple[int, int]]:
    """Sample as KSampler does, with the references applied.

    Args:
        draw: a picture of the maps so far, for the live preview.

    Returns:
        The latent, the maps if they were recorded, and (height, width) of the picture in pixels.
    """
    # the references onto clones of the model and of both sides
    ratios = {name: latent[name] for name in _RATIOS if latent.get(name) is not None}  # of an empty latent
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"], **ratios)
    model, positive, negative, recorder = _routed(model, positive, negative, references, settings)
    slots = tuple(reference.slot for reference in references if reference.weight)

    # KSampler's own call
    noise = comfy.sample.prepare_noise(samples, settings.seed, latent.get("batch_index"))
    denoised = comfy.sample.sample(
        model,
        noise,
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        positive,
        negative,
        samples,
        denoise=settings.denoise,
        noise_mask=latent.get("noise_mask"),
        seed=settings.seed,
        callback=_callback(model, settings.steps, recorder, slots, draw),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
    )
    factor = getattr(model.get_model_object("latent_format"), "spacial_downscale_ratio", 8)
    size = tuple(factor * side for side in samples.shape[-2:])
    out = {name: value for name, value in latent.items() if name not in _RATIOS}
    return {**out, "samples": denoised}, _recorded(recorder, slots), size


def _routed(model, positive: list, negative: list, references: tuple[Reference, ...], settings: SamplerSettings):
    """Attach the references to the MODEL and the CONDITIONING of both sides; return these and the recorder.

    DreamO's references have rows of their own and stay out of the negative; other families take them natively.
    """
    recorder = Recorder() if settings.record else None
    if settings.routing_strength and all(reference.region is None for reference in references):
        log.warning(
            "Relate: routing_strength is %g, but no reference has a region; connect a mask to the region of "
            "a Reference Image.",
            settings.routing_strength,
        )
    steering = {
        "strength": settings.routing_strength,
        "isolation": settings.isolation,
        "window": (settings.start_at, settings.end_at),
        "recorder": recorder,
    }
    if model.get_attachment(TABLES_KEY) is not None:
        model, positive = flux_references.apply(
            model, positive, references, **steering, first_guidance=settings.first_step_guidance or None
        )
        return model, positive, negative, recorder
    if settings.first_step_guidance:
        log.warning("Relate: first_step_guidance acts with DreamO only; this model has none.")
    if type(model.model.model_config).__name__ in ("Flux", "FluxSchnell"):
        log.warning(
            "Relate: the model has no DreamO; references are given to it as FLUX.1 Kontext reads them. For "
            "FLUX.1-dev put Load DreamO before this node."
        )
    return *chain.apply(model, positive, negative, references, **steering), recorder


def _recorded(recorder: Recorder | None, slots: tuple[int, ...]) -> RoutingMap | None:
    if recorder is None or not slots:
        return None
    if recorder.left_out:
        log.warning(
            "Relate: %d model calls were not recorded: another node skips or repeats blocks of the model "
            "(block caches, skip-layer guidance).",
            recorder.left_out,
        )
    return recorder.result(slots)


def _callback(
    model, steps: int, recorder: Recorder | None, slots: tuple[int, ...], draw: Callable[[RoutingMap], Image.Image]
):
    """Make KSampler's own callback; with maps beside the preview when they are recorded."""
    if recorder is None or not slots:
        return latent_preview.prepare_callback(model, steps)
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    bar = comfy.utils.ProgressBar(steps)

    def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        maps = recorder.result(slots)
        pictures = [] if previewer is None else [previewer.decode_latent_to_preview_image("JPEG", x0)[1]]
        pictures += [] if maps is None else [draw(maps)]
        preview = ("JPEG", _beside(pictures), latent_preview.MAX_PREVIEW_RESOLUTION) if pictures else None
        bar.update_absolute(step + 1, total, preview)

    return callback


def _beside(pictures: list[Image.Image]) -> Image.Image:
    """Paste pictures in a row, all as high as the highest."""
    height = max(picture.height for picture in pictures)
    scaled = [picture.resize((max(1, picture.width * height // picture.height), height)) for picture in pictures]
    row = Image.new("RGB", (sum(picture.width for picture in scaled), height))
    left = 0
    for picture in scaled:
        row.paste(picture, (left, 0))
        left += picture.width
    return row
