"""Name the UNets that a relation may be trained on, by where they have text cross-attentions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..cross_attention_layers import SDXL, UNetSpec


@dataclass(frozen=True)
class UNetBase:
    """A published UNet.

    Attributes:
        title: its name for people.
        architecture: its name in ModelSpec's metadata, which model managers show.
        spec: where it has text cross-attentions. No two bases share one: a fine-tune of SDXL is SDXL.
    """

    title: str
    architecture: str
    spec: UNetSpec


UNET_BASES = {  # by the value of ``base`` in a file's metadata
    "sdxl": UNetBase("SDXL", "stable-diffusion-xl-v1-base", SDXL),
    "miniworld": UNetBase("the miniworld's SDXL", "miniworld", UNetSpec.of_depths((96, 160), 1, (1, 1), 192)),
}
UNNAMED = "unet"  # ``base`` of a UNet of no row that reads SDXL's text, e.g. a pruned SDXL
_OTHERS = {768: "SD 1.5", 1024: "SD 2"}  # by the width of the text that attn2's to_k and to_v read


def base_name(spec: UNetSpec) -> str:
    """Return the value of ``base`` for a UNet; small ones of no row are called as the miniworld's."""
    return _row_of(spec) or (UNNAMED if spec.context_width == SDXL.context_width else "miniworld")


def _row_of(spec: UNetSpec) -> str | None:
    return next((name for name, base in UNET_BASES.items() if base.spec == spec), None)


def base_of_checkpoint(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the row of the UNet in a checkpoint file; None if it is of no row.

    Args:
        shapes: by key of the UNet, without its prefix: ``input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight``.
    """
    layers = {key: shape for key, shape in shapes.items() if key.endswith(".attn2.to_k.weight")}
    return next((name for name, base in UNET_BASES.items() if _keys_of(base.spec) == layers), None)


def _keys_of(spec: UNetSpec) -> dict[str, tuple[int, ...]]:
    return {f"{site.checkpoint}.to_k.weight": (site.width, spec.context_width) for site in spec.sites()}


def unet_title(spec: UNetSpec) -> str:
    """Return a UNet's name for people."""
    name = _row_of(spec)
    if name is not None:
        return UNET_BASES[name].title
    return _OTHERS.get(spec.context_width, f"a UNet of context width {spec.context_width}")


def title_of_context(width: int) -> str:
    """Return the names for people of the UNets that read text of a width."""
    titles = [base.title for base in UNET_BASES.values() if base.spec.context_width == width]
    return " or ".join(titles) or _OTHERS.get(width, f"a UNet of context width {width}")


def check_unet_base(metadata: Mapping[str, str], model: UNetSpec, file: str) -> None:
    """Check that a LoRA which names its base is for this one.

    Bases made by leaving out layers of another have the names and sizes of the other's first ones, so that the pairs
    alone would fit. A UNet of no row is judged by its pairs.

    Raises:
        ValueError: it was made for another.
    """
    made_for, name = UNET_BASES.get(metadata.get("base", "")), _row_of(model)
    if made_for is None or name is None or made_for.spec == model:
        return
    title = UNET_BASES[name].title
    raise ValueError(
        f'{file}: it was made for {made_for.title} (by "base" in its metadata), the model is {title}. '
        f"Load {made_for.title}, or choose a relation for {title}."
    )
