"""Which engine a MODEL is, and whether the CLIP, the VAE and the scene fit it."""

from __future__ import annotations

import importlib
import logging

import comfyui_version

from ..flux.loader import TABLES_KEY
from ..references.families import network_of
from ..sdxl.models import base_of
from .engines import AUTO, ENGINES, Engine

log = logging.getLogger(__name__)

_TEXT_ONLY = "model: {} takes no reference images in ComfyUI. Apply Scene works with {}."
_NOT_WIRED = "model: Apply Scene does not wire {} yet. Connect its references by ComfyUI's own node, {}."
# models that take references in a way of their own, which cannot be kept in a place
_OWN_NODES = {
    "hidream_o1": "HiDream-O1 Reference Images",
    "minimax_h3": "MiniMax H3 Reference to Video",
    "wan2.1": "Bernini Conditioning",
}


def detect_engine(model, choice: str = AUTO) -> Engine:
    """Find the engine of a MODEL.

    Args:
        model: a MODEL.
        choice: the node's engine input; it decides between engines that are one structure, nothing else.

    Raises:
        ValueError: a model without references, a network that is not ComfyUI's, a choice that does not fit, or a
            ComfyUI that lacks the engine's nodes.
    """
    fitting = [engine for engine in ENGINES if _fits(engine, model)]
    if choice != AUTO:
        chosen = next((engine for engine in fitting if engine.name == choice), None)
        if chosen is None:
            _refuse_old_comfyui(next(engine for engine in ENGINES if engine.name == choice))
            raise ValueError(
                f"engine: expected auto{''.join(f' or {each.name}' for each in fitting)} for "
                f"{base_of(model)}, got {choice}. Leave it at auto."
            )
        fitting = [chosen]
    if not fitting:
        node = _OWN_NODES.get(model.model.model_config.unet_config.get("image_model"))
        raise ValueError(
            _TEXT_ONLY.format(base_of(model), _titles()) if node is None else _NOT_WIRED.format(base_of(model), node)
        )
    _check_network(model)
    _refuse_old_comfyui(fitting[0])
    if choice == AUTO and fitting[0].name == "kontext":
        log.warning(
            "Relate: Apply Scene: model: this may be FLUX.1-dev, which was not trained with references. Set engine to "
            "kontext if it is Kontext; else put Load DreamO before this node."
        )
    return fitting[0]


def _titles() -> str:
    """List the models that Apply Scene works with, those first that take references by themselves."""
    otherwise = ("sdxl", "dreamo", "qwen_edit_first")  # of the last, the title of its successor says enough
    titles = sorted({_title(engine) for engine in ENGINES if engine.name not in otherwise})
    return f"{', '.join(titles)}, with SDXL and an identity model, and with DreamO after Load DreamO"


def _title(engine: Engine) -> str:
    return "Flux.2" if engine.name == "flux2" else engine.title


def _fits(engine: Engine, model) -> bool:
    config = model.model.model_config.unet_config
    if engine.image_model != config.get("image_model") or not engine.fits(base_of(model), config):
        return False
    return engine.name != "dreamo" or model.get_attachment(TABLES_KEY) is not None


def _check_network(model) -> None:
    """Check that the network is ComfyUI's: other packs' networks take no references, or take them in another way.

    Raises:
        ValueError: the network's class is not ComfyUI's.
    """
    kind = type(network_of(model.model))
    if not kind.__module__.startswith("comfy."):
        raise ValueError(
            f"model: its network is {kind.__module__}.{kind.__qualname__}, not ComfyUI's. Load the model "
            "with Load Diffusion Model."
        )


def _refuse_old_comfyui(engine: Engine) -> None:
    """Refuse a ComfyUI that lacks the engine's node; versions are not compared.

    Raises:
        ValueError: the engine's node is missing.
    """
    if engine.node and core_node(engine.node) is None:
        raise ValueError(
            f"model: {_title(engine)} needs ComfyUI {engine.since} or newer for Apply Scene; this is "
            f"{comfyui_version.__version__}."
        )


def core_node(path: str):
    """Import a node class of ComfyUI's, by "module.Class" below comfy_extras; None where this ComfyUI has none."""
    module, name = path.split(".")
    try:
        return getattr(importlib.import_module(f"comfy_extras.{module}"), name, None)
    except ModuleNotFoundError as error:
        if error.name != f"comfy_extras.{module}":  # the node is there and needs something else
            raise
        return None


def check_clip(engine: Engine, clip) -> None:
    """Check that the CLIP is the engine's: a wrong one encodes without error, and the model cannot read it.

    Raises:
        ValueError: another family's tokenizer.
    """
    kinds = [kind.__name__ for kind in type(clip.tokenizer).__mro__]
    if not any(name in kinds for name in engine.tokenizers):
        raise ValueError(f"clip: expected {engine.encoder}; got {kinds[0]}.")


def check_vae(engine: Engine, model, vae) -> None:
    """Check that the VAE makes the model's latents.

    Raises:
        ValueError: another number of channels, or latents with or without a time axis.
    """
    latent = model.get_model_object("latent_format")
    advice = f"Connect the model's own VAE: {engine.vae}."
    if vae.latent_channels != latent.latent_channels:
        raise ValueError(
            f"vae: it makes latents of {vae.latent_channels} channels, the model has {latent.latent_channels}. {advice}"
        )
    dimensions, expected = (
        2 + getattr(each, name, 2) for each, name in ((vae, "latent_dim"), (latent, "latent_dimensions"))
    )
    if dimensions != expected:
        raise ValueError(f"vae: it makes latents of {dimensions} dimensions, the model has {expected}. {advice}")


def check_count(engine: Engine, subjects: int, pictures: int, batch_size: int) -> None:
    """Check that the engine reads as many pictures as the scene has, and draws as many as the node is set to.

    Args:
        subjects: of the scene with a weight above 0.
        pictures: references they make.
        batch_size: pictures to draw.

    Raises:
        ValueError: more subjects than the engine reads pictures, or a batch that it cannot draw.
    """
    if batch_size > 1 and pictures and not engine.batches:
        raise ValueError(
            f"batch_size: ComfyUI draws {engine.title} with references one picture at a time, got {batch_size}. Set "
            "it to 1 and queue several runs."
        )
    if subjects > engine.most:
        plural = "" if engine.most == 1 else "s"
        raise ValueError(
            f"scene: {subjects} subjects, {engine.title} reads {engine.most} picture{plural}. Leave one "
            "out, set its weight to 0, or join two photographs."
        )
    if engine.advised is not None and pictures > engine.advised:
        log.warning(
            "Relate: Apply Scene: %s was made for up to %d references; the scene has %d.",
            engine.title,
            engine.advised,
            pictures,
        )
