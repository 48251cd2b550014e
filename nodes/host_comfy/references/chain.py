"""Reference Image nodes on a model that takes references natively: their latents in a chain of Reference Latent."""

from __future__ import annotations

from ....core.routing.reference_regions import ReferenceRegions
from ....core.routing.token_layout import Reference
from .attach import attach_regions
from .families import Family, family_of


def apply(model, positive: list, negative: list, references: tuple[Reference, ...], **settings) -> tuple:
    """Chain the references that have a weight to both sides, and keep them in their regions.

    The negative gets them where the family's does. They stand behind latents that are there already.

    Args:
        settings: strength, isolation, window and recorder of a ``ReferenceRegions``.

    Raises:
        ValueError: a model that takes no references, or latents of another VAE.
    """
    family = family_of(model.model)
    acting = tuple(reference for reference in references if reference.weight != 0)
    if not acting:
        return model.clone(), positive, negative
    _check_latents(acting, model.get_model_object("latent_format"))
    positive = _chained(positive, acting, family)
    negative = _chained(negative, acting, family) if family.negative else negative
    regions = ReferenceRegions(
        tuple(reference.region for reference in acting), tuple(reference.weight for reference in acting), **settings
    )
    return attach_regions(model, positive, negative, regions, last=True)


def _check_latents(references: tuple[Reference, ...], latent_format) -> None:
    """Check that the references are latents of the model's own kind."""
    channels, axes = latent_format.latent_channels, latent_format.latent_dimensions + 2
    for reference in references:
        shape = tuple(reference.latent.shape)
        if shape[1] != channels or len(shape) != axes:
            raise ValueError(
                f"vae: reference {reference.slot} was encoded to latents of {shape[1]} channels and "
                f"{len(shape)} axes, the model has {channels} and {axes}. Connect the model's own VAE to "
                "Reference Image."
            )


def _chained(side: list, references: tuple[Reference, ...], family: Family) -> list:
    """Add the latents as chained Reference Latent nodes do, and the method that the family needs."""
    added, key = [], family.latents[0]
    for embedding, entry in side:
        latents = [*entry.get(key, ()), *(reference.latent for reference in references)]
        default = {} if family.method is None else {"reference_latents_method": family.method}
        added.append([embedding, {**default, **entry, key: latents}])
    return added
