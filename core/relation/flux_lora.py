"""Write the relation LoRA of a Flux-class transformer: one file for every host, another for kohya's tools.

    W' = W + B A, with B = alpha / r * up and A = down            (LoRA arXiv:2106.09685)

The file has ``transformer.<diffusers module>.lora_A.weight | .lora_B.weight`` and no alpha keys: the one spelling that
ComfyUI's stock loader and diffusers both read whole, for Flux.1 and for Flux.2, at the strength it was trained with.
kohya's tools know fused weights only. There q, k and v of ranks r_q, r_k, r_v become one pair of rank R, their sum:

    down = [down_q; down_k; down_v]      up = blockdiag(up_q, up_k, up_v)      alpha / R = 1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import read, save, tensors_of
from ..lora_keys import first_names
from .card import RelationCard
from .lora import LowRank

_MODULE = re.compile(r"(?P<single>single_)?transformer_blocks\.(?P<block>\d+)\.(?P<name>.+)$")
_WHOLE = -1
# diffusers' name in a block: kohya's, and which part of a fused weight it is (q, k, v, MLP)
_DOUBLE = {
    "attn.to_q": ("img_attn_qkv", 0),
    "attn.to_k": ("img_attn_qkv", 1),
    "attn.to_v": ("img_attn_qkv", 2),
    "attn.to_out.0": ("img_attn_proj", _WHOLE),
    "attn.add_q_proj": ("txt_attn_qkv", 0),
    "attn.add_k_proj": ("txt_attn_qkv", 1),
    "attn.add_v_proj": ("txt_attn_qkv", 2),
    "attn.to_add_out": ("txt_attn_proj", _WHOLE),
    "norm1.linear": ("img_mod_lin", _WHOLE),
    "norm1_context.linear": ("txt_mod_lin", _WHOLE),
    **{f"ff.{name}": (f"img_mlp_{part}", _WHOLE) for name, part in (("net.0.proj", 0), ("net.2", 2))},
    **{f"ff_context.{name}": (f"txt_mlp_{part}", _WHOLE) for name, part in (("net.0.proj", 0), ("net.2", 2))},
    **{f"ff.{name}": (f"img_mlp_{part}", _WHOLE) for name, part in (("linear_in", 0), ("linear_out", 2))},
    **{f"ff_context.{name}": (f"txt_mlp_{part}", _WHOLE) for name, part in (("linear_in", 0), ("linear_out", 2))},
}
_SINGLE = {
    "attn.to_q": ("linear1", 0),
    "attn.to_k": ("linear1", 1),
    "attn.to_v": ("linear1", 2),
    "proj_mlp": ("linear1", 3),
    "proj_out": ("linear2", _WHOLE),
    "norm.linear": ("modulation_lin", _WHOLE),
    "attn.to_qkv_mlp_proj": ("linear1", _WHOLE),  # Flux.2 has q, k, v and the MLP in one layer already
    "attn.to_out": ("linear2", _WHOLE),
}
MLP_RATIO = 4.0  # of Flux.1's blocks in diffusers; linear1 has (3 + ratio) * width rows


def flux_state(pairs: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Spell the pairs as the file format does, alpha / r folded into B, float32.

    Args:
        pairs: by diffusers' module name, e.g. ``transformer_blocks.0.attn.add_k_proj``.

    Raises:
        ValueError: no pair, or a name that is no module of a Flux block.
    """
    _check_names(pairs)
    tensors = {}
    for module, pair in pairs.items():
        tensors[f"transformer.{module}.lora_A.weight"] = pair.down.float()
        tensors[f"transformer.{module}.lora_B.weight"] = pair.alpha / pair.down.shape[0] * pair.up.float()
    return tensors


def kohya_state(pairs: Mapping[str, LowRank], mlp_ratio: float = MLP_RATIO) -> dict[str, Tensor]:
    """Spell the pairs as kohya's tools do: fused weights, ``lora_unet_double_blocks_0_txt_attn_qkv.lora_down.weight``.

    Args:
        pairs: as for ``flux_state``.
        mlp_ratio: rows of a single block's MLP over the width, of Flux.1; the rows a pair does not change are zero.

    Raises:
        ValueError: as for ``flux_state``; a module that kohya's tools have no name for.
    """
    _check_names(pairs)
    fused: dict[str, dict[int, LowRank]] = {}
    unknown = []
    for module, pair in pairs.items():
        match = _MODULE.match(module)
        table, stream = (_SINGLE, "single") if match and match["single"] else (_DOUBLE, "double")
        if match is None or match["name"] not in table:
            unknown.append(module)
            continue
        name, place = table[match["name"]]
        fused.setdefault(f"lora_unet_{stream}_blocks_{match['block']}_{name}", {})[place] = pair
    if unknown:
        raise ValueError(f"{len(unknown)} modules have no name in kohya's format: {first_names(unknown)}.")
    tensors = {}
    for name, parts in fused.items():
        pair = parts[_WHOLE] if _WHOLE in parts else _stacked(parts, mlp_ratio if name.endswith("linear1") else 0.0)
        tensors[f"{name}.lora_down.weight"] = pair.down.float()
        tensors[f"{name}.lora_up.weight"] = pair.up.float()
        tensors[f"{name}.alpha"] = torch.tensor(float(pair.alpha))
    return tensors


def _stacked(parts: Mapping[int, LowRank], mlp_ratio: float) -> LowRank:
    """One pair for q, k, v (and the MLP's first layer) side by side, which acts on each part's own rows.

    Args:
        parts: by its place: 0 q, 1 k, 2 v, 3 the MLP; an absent one changes nothing.
        mlp_ratio: rows of the MLP over those of q; 0 where the fused weight has none.

    Returns:
        of rank sum of the parts' ranks; alpha is the parts' together where their scales agree, else folded in.
    """
    width = next(iter(parts.values())).down.shape[1]  # q, k, v and the MLP's first layer all read one token
    heights = [width, width, width] + ([round(mlp_ratio * width)] if mlp_ratio else [])
    scales = {pair.alpha / pair.down.shape[0] for pair in parts.values()}
    common = scales.pop() if len(scales) == 1 else None
    places = sorted(parts)
    down = torch.cat([parts[place].down.float() for place in places])  # (R, in)
    up = torch.zeros(sum(heights), down.shape[0])
    column = 0
    for place in places:
        pair = parts[place]
        rank, row = pair.down.shape[0], sum(heights[:place])
        scale = 1.0 if common is not None else pair.alpha / rank
        if pair.up.shape[0] != heights[place]:
            raise ValueError(f"part {place} of a fused weight has {pair.up.shape[0]} rows, expected {heights[place]}.")
        up[row : row + heights[place], column : column + rank] = scale * pair.up.float()
        column += rank
    return LowRank(down, up, (1.0 if common is None else common) * down.shape[0])


def save_flux_relation(
    path: str | Path,
    pairs: Mapping[str, LowRank],
    card: RelationCard,
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write the relation LoRA of a Flux-class model; ``check`` as in `core.checkpoint.save`.

    Args:
        pairs: by diffusers' module name; ``card.rank`` and ``card.alpha`` say what they were trained with.
    """
    save(path, flux_state(pairs), card.metadata(), check)


def save_kohya_relation(
    path: str | Path,
    pairs: Mapping[str, LowRank],
    card: RelationCard,
) -> None:
    """Write the same relation a second time for kohya's tools, fused, with alpha keys."""
    save(path, kohya_state(pairs), card.metadata())


def load_flux_pairs(path: str | Path) -> tuple[dict[str, LowRank], dict[str, str]]:
    """Read a file of ``save_flux_relation`` back.

    Returns:
        the pairs by diffusers' module name, each with alpha equal to its rank (their scale is in B), and the metadata.

    Raises:
        ValueError: unreadable, another spelling, or half a pair.
    """
    path = Path(path)
    content, metadata = read(path)
    halves: dict[str, dict[str, Tensor]] = {}
    odd = []
    for key, tensor in tensors_of(content)[0].items():
        match = re.fullmatch(r"transformer\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight", key)
        if match is None or not _MODULE.match(match["module"]):
            odd.append(key)
        else:
            halves.setdefault(match["module"], {})[match["side"]] = tensor
    odd += [f"{module} without lora_{side}" for module, pair in halves.items() for side in "AB" if side not in pair]
    if odd or not halves:
        raise ValueError(
            f"{path.name}: expected transformer.<module>.lora_A.weight and lora_B.weight of Flux's blocks only, got "
            f"{first_names(odd) or 'none'}."
        )
    pairs = {name: LowRank(pair["A"], pair["B"], float(pair["A"].shape[0])) for name, pair in halves.items()}
    return pairs, metadata


def _check_names(pairs: Mapping[str, LowRank]) -> None:
    """Check what is to be written.

    Raises:
        ValueError: nothing, or names that are not diffusers' of a Flux block.
    """
    if not pairs:
        raise ValueError("expected the pairs of a relation, got none.")
    odd = [name for name in pairs if not _MODULE.match(name)]
    if odd:
        raise ValueError(
            f"expected modules as diffusers names them (transformer_blocks.0.attn.add_k_proj), got {first_names(odd)}."
        )
