"""The tensors of a LoRA file by the text cross-attention they belong to, checked against its sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cross_attention_layers import PROJECTIONS, UNetSpec
from ..key_report import describe
from ..lora_keys import BIAS, BIASES, EMBEDDINGS, OWN_ADAPTERS, TEXT_ENCODERS, first_names, is_embedding, split_key
from .flux_bases import base_of_file
from .unet_bases import title_of_context, unet_title

Address = tuple[str, str]  # a site's diffusers path, a projection


def changes_module(part: dict[str, Tensor]) -> bool:
    """Whether the parts of a module change it."""
    return "down" in part or "up" in part or any(role.startswith(OWN_ADAPTERS) for role in part)


def sort_parts(
    state: dict[str, Tensor], unet: UNetSpec
) -> tuple[dict[Address, dict[str, Tensor]], dict[Address, str], set[str], dict[str, tuple[str, ...]]]:
    """Return the parts by address, how each address is spelled, modules of other places, and what is not applied."""
    addresses = _addresses(unet)
    parts: dict[Address, dict[str, Tensor]] = {}
    spelled: dict[Address, str] = {}
    left_out: set[str] = set()
    unused: dict[str, list[str]] = {}
    for key, tensor in state.items():
        read_key = split_key(key)
        if is_embedding(key):
            unused.setdefault(EMBEDDINGS, []).append(key)
        elif read_key is None:
            left_out.add(key)
        elif read_key.text_encoder:
            unused.setdefault(TEXT_ENCODERS, []).append(key)
        elif read_key.module not in addresses:
            left_out.add(read_key.module)
        elif read_key.role == BIAS:
            unused.setdefault(BIASES, []).append(key)
        else:
            address = addresses[read_key.module]
            parts.setdefault(address, {})[read_key.role] = tensor
            spelled[address] = read_key.spelled
    return parts, spelled, left_out, {sort: tuple(names) for sort, names in unused.items()}


def what_else(state: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """One sentence on a file without anything for this model's text cross-attentions."""
    keys = [key for key in map(split_key, state) if key is not None]
    if not keys:
        return describe(state) or "Its keys are of no known LoRA layout."
    names = sorted({key.spelled for key in keys})
    base = base_of_file(state, metadata)
    if base is not None and base.shape is not None:
        return f"{base.source.capitalize()} it is a LoRA of {base.title} ({first_names(names, 2)})."
    if all(key.text_encoder for key in keys):
        sort = "a LoRA of text encoders alone"
    elif any(
        mark in name for name in names for mark in ("single_blocks", "single_transformer_blocks", "double_blocks")
    ):
        sort = "a LoRA of Flux"
    else:
        sort = "a LoRA of other modules or of another model"
    return f"By its keys it is {sort} ({first_names(names, 2)})."


def _addresses(unet: UNetSpec) -> dict[str, tuple[str, str]]:
    """Every spelling of every module, dots as underscores, to (site's diffusers path, projection)."""
    addresses = {}
    for site in unet.sites():
        for path in (site.diffusers, site.checkpoint):
            for projection in PROJECTIONS:
                for spelling in {projection, projection.removesuffix(".0")}:
                    addresses[f"{path}.{spelling}".replace(".", "_")] = (site.diffusers, projection)
    return addresses


def check_parts(parts: dict[Address, dict[str, Tensor]], unet: UNetSpec, file: str, metadata: dict[str, str]) -> None:
    """Check that what changes each module fits it.

    Raises:
        ValueError: all faults of all pairs in one message.
    """
    widths = {site.diffusers: site.width for site in unet.sites()}
    faults = []
    context = set()
    for (site, projection), part in parts.items():
        where = f"{site}.{projection}"
        if any(role.startswith(OWN_ADAPTERS) for role in part) and "down" not in part and "up" not in part:
            continue  # another kind of adapter, ComfyUI's to judge
        absent = [role for role in ("down", "up") if role not in part]
        if absent:
            faults.append(f"{where} has no {' and no '.join(absent)}")
            continue
        inner = unet.context_width if projection in ("to_k", "to_v") else widths[site]
        up, down = tuple(part["up"].shape), tuple(part["down"].shape)
        if len(up) != 2 or len(down) != 2 or (up[0], down[1]) != (widths[site], inner) or up[1] != down[0]:
            faults.append(f"{where} is {up} x {down}, expected ({widths[site]}, r) x (r, {inner})")
            if projection == "to_k" and down:
                context.add(down[-1])
        elif "alpha" in part and not (part["alpha"].numel() == 1 and bool(torch.isfinite(part["alpha"]).all())):
            faults.append(f"{where} has an alpha that is no number")
        elif "magnitude" in part and part["magnitude"].numel() != widths[site]:
            faults.append(f"{where} has {part['magnitude'].numel()} magnitudes, expected {widths[site]}")
    if faults:
        first_faults = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        base = base_of_file({}, metadata)
        bases = base.title if base else ", ".join(sorted(map(title_of_context, context)))
        other = f" It was made for {bases}, the model is {unet_title(unet)}." if bases else ""
        raise ValueError(f"{file}: {len(faults)} of {len(parts)} pairs do not fit this model: {first_faults}.{other}")
