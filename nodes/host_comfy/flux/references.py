"""Apply references to Flux: encode their pictures, check the prompt's placeholders, attach them."""

from __future__ import annotations

import logging

from torch import Tensor

from ....core.routing.placeholders import faults, numbers_in
from ....core.routing.routing import Routing
from ....core.routing.token_layout import PATCH, Reference
from ..prompt_graph import positive_texts
from .attach import attach_references
from .loader import tables_of
from .wrapper import WORDS_KEY

log = logging.getLogger(__name__)

STYLE_PROMPT = "generate a same style image"


def encode_picture(vae, picture: Tensor) -> Tensor:
    """(3, h, w) in [0, 1] to a latent (1, C, h/8, w/8), the mode of the VAE's posterior."""
    return vae.encode(picture.movedim(0, -1)[None])


def apply(model, positive: list, references: tuple[Reference, ...], **routing) -> tuple:
    """Attach the references that have a weight to MODEL and CONDITIONING; both untouched when there are none.

    Raises:
        ValueError: a MODEL without DreamO, or references of another family's VAE.
    """
    tables = tables_of(model)
    acting = tuple(reference for reference in references if reference.weight != 0)
    check_channels(acting, model.get_model_object("latent_format").latent_channels)
    check_words(positive, acting)
    return attach_references(model, positive, Routing(acting, tables, **routing))


def check_channels(references: tuple[Reference, ...], channels: int) -> None:
    """Check that references are latents of the model's own kind.

    Raises:
        ValueError: another number of channels, or odd sides.
    """
    for reference in references:
        if any(side % PATCH for side in reference.latent.shape[-2:]):
            raise ValueError(
                f"vae: reference {reference.slot} has a latent of {tuple(reference.latent.shape[-2:])}, "
                "DreamO's are even. Connect Flux's own VAE, which has a cell for 8 pixels."
            )
        if reference.latent.shape[1] != channels:
            raise ValueError(
                f"vae: reference {reference.slot} was encoded by a VAE of {reference.latent.shape[1]} "
                f"latent channels, the model has {channels}. Connect the model's own VAE to Reference "
                "Image; Flux's is ae.safetensors, loaded with Load VAE."
            )


def check_words(positive: list, references: tuple[Reference, ...]) -> None:
    """Warn of placeholders and references that do not find each other, and of a style without its sentence."""
    entries = [entry[WORDS_KEY] for _, entry in positive if WORDS_KEY in entry]
    texts = positive_texts()
    written = tuple(dict.fromkeys(number for text in texts for number in numbers_in(text)))
    if written and not entries:
        log.warning(
            "Relate: the prompt has %s, but it was encoded by a CLIP that reads placeholders as plain text. "
            "Connect the CLIP of Load DreamO to the text encoder.",
            f"[ref#{written[0]}]",
        )
    numbers = tuple(dict.fromkeys((*written, *(number for places in entries for number in places))))
    for fault in faults(numbers, tuple(reference.slot for reference in references)):
        log.warning("Relate: %s.", fault)
    styles = [reference.slot for reference in references if reference.task == "style"]
    if styles and len(references) > 1:
        log.warning(
            "Relate: reference %d is a style; DreamO was not made to combine a style with other references.", styles[0]
        )
    if styles and texts and not any(text.lower().lstrip().startswith(STYLE_PROMPT) for text in texts):
        log.warning(
            "Relate: reference %d is a style; begin the prompt with '%s.', as DreamO was trained.",
            styles[0],
            STYLE_PROMPT,
        )
