"""The relation LoRA: low-rank deltas of to_q, to_k, to_v, to_out of every text cross-attention.

    W' = W + alpha / r * up @ down        (LoRA arXiv:2106.09685; DreamRelation arXiv:2410.23280, section 4.1)

SDXL has 70 sites, 280 pairs; rank 4 makes 3,143,680 parameters. The same pairs are published under four spellings:
the authors' (diffusers), peft's, kohya's, and the older attention-processor one. All are read (``lora_keys``), ours
(kohya's with diffusers' module names) is written, because ComfyUI, kohya's tools and diffusers all read that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import read, save, tensors_of
from ..cross_attention_layers import PROJECTIONS, UNetSpec
from ..lora_keys import SUFFIXES, Alphas, first_names, read_alphas
from .card import RelationCard, predicate_of
from .lora_parts import Address, changes_module, check_parts, sort_parts, what_else
from .unet_bases import check_unet_base, unet_title


@dataclass(frozen=True, eq=False)
class LowRank:
    """One pair: down (r, in), up (out, r), alpha."""

    down: Tensor
    up: Tensor
    alpha: float

    def delta(self) -> Tensor:
        """(out, in) = alpha / r * up @ down."""
        return self.alpha / self.down.shape[0] * (self.up.float() @ self.down.float())


@dataclass(frozen=True, eq=False)
class RelationLoRA:
    """The pairs of one relation, and the other tensors that a file may hold.

    Attributes:
        pairs: by (site's diffusers path, projection), e.g. ("mid_block...attn2", "to_out.0").
        unet: the UNet they fit.
        metadata: the file's.
        left_out: modules of the file that are no text cross-attention of this UNet.
        beside: by address further tensors, under the suffix of ComfyUI's loader: ``dora_scale``, ``lora_mid.weight``,
            ``diff``, ``hada_w1_a`` and the like.
        magnitudes: by address (out,) peft's magnitude vector, m of DoRA.
        unused: what is not applied, by what it is, e.g. "text encoder" to its modules.
        alpha_source: where alpha stood, if not in the file's tensors.
    """

    pairs: dict[Address, LowRank]
    unet: UNetSpec
    metadata: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    beside: dict[Address, dict[str, Tensor]] = field(default_factory=dict)
    magnitudes: dict[Address, Tensor] = field(default_factory=dict)
    unused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    alpha_source: str = ""

    @property
    def relation(self) -> str:
        """The predicate the file names; empty if it names none."""
        return predicate_of(self.metadata)

    @property
    def addresses(self) -> set[Address]:
        """Every place that the file changes."""
        return {*self.pairs, *(address for address, parts in self.beside.items() if changes_module(parts))}

    def report(self) -> str:
        """E.g. "280 of 280 pairs at 70 of 70 sites"."""
        sites = self.unet.sites()
        changed_sites = {site for site, _ in self.addresses}
        text = (
            f"{len(self.pairs)} of {len(sites) * len(PROJECTIONS)} pairs at {len(changed_sites)} of {len(sites)} sites"
        )
        scaled = {address for address, parts in self.beside.items() if "dora_scale" in parts}
        others, decomposed = len(self.addresses) - len(self.pairs), len(scaled | self.magnitudes.keys())
        text += f", {decomposed} of them DoRA" if decomposed else ""
        text += f", {others} modules of another kind than pairs" if others else ""
        return text + (f", alpha from {self.alpha_source}" if self.alpha_source else "")

    def remarks(self) -> list[str]:
        """List which parts of the file are not applied, one sentence for each sort."""
        sentences = [
            f"{len(names)} tensors of the {sort} are not applied: {first_names(names)}"
            for sort, names in self.unused.items()
        ]
        double = [address for address, parts in self.beside.items() if address in self.pairs and "diff" in parts]
        if double:
            sentences.append(
                f"{len(double)} modules have a pair and a whole difference (diff); ComfyUI's loader "
                "applies the difference only"
            )
        if self.left_out:
            sentences.append(
                f"{len(self.left_out)} modules are no text cross-attentions of this model and were left "
                f"out: {first_names(self.left_out)}"
            )
        return sentences

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by the file format's keys, further ones by ComfyUI's; no magnitudes."""
        tensors = {}
        for (site, projection), pair in self.pairs.items():
            module = module_name(site, projection)
            tensors[f"{module}.lora_down.weight"] = pair.down
            tensors[f"{module}.lora_up.weight"] = pair.up
            tensors[f"{module}.alpha"] = torch.tensor(float(pair.alpha))
        for (site, projection), parts in self.beside.items():
            tensors |= {f"{module_name(site, projection)}.{suffix}": tensor for suffix, tensor in parts.items()}
        return tensors


def module_name(site: str, projection: str) -> str:
    """Return a module in the spelling of the file format."""
    return "lora_unet_" + f"{site}.{projection}".replace(".", "_")


def save_relation(
    path: str | Path, lora: RelationLoRA, card: RelationCard, check: Callable[[Path], None] = lambda written: None
) -> None:
    """Write a relation LoRA with its card; ``check`` as in `core.checkpoint.save`."""
    save(path, lora.state(), card.metadata(), check)


def load_relation(path: str | Path, unet: UNetSpec) -> RelationLoRA:
    """Read a relation LoRA in any published spelling for one UNet.

    Raises:
        ValueError: unreadable; no pair fits; a pair is incomplete or misshapen; it belongs to another base.
    """
    path = Path(path)
    content, metadata = read(path)
    state, others = tensors_of(content)
    if metadata.get("kind", "relation") != "relation":
        raise ValueError(f"{path.name}: expected a relation LoRA, got a file of kind '{metadata['kind']}'.")
    lora = parse_lora_keys(state, unet, path.name, metadata, read_alphas(path, metadata))
    return replace(lora, left_out=(*lora.left_out, *others))


def parse_lora_keys(
    state: dict[str, Tensor], unet: UNetSpec, file: str, metadata: dict[str, str], alphas: Alphas | None = None
) -> RelationLoRA:
    """Sort the tensors of a state dict of any spelling by site.

    Args:
        alphas: alpha as the file gives it outside its tensors.

    Raises:
        ValueError: as ``load_relation``.
    """
    parts, spelled, left_out, unused = sort_parts(state, unet)
    if not any(changes_module(part) for part in parts.values()):
        raise ValueError(
            f"{file}: 0 of {len(unet.sites())} text cross-attentions of this model found in it. "
            f"{what_else(state, metadata)} Expected a relation LoRA for {unet_title(unet)}."
        )
    check_parts(parts, unet, file, metadata)
    check_unet_base(metadata, unet, file)

    alphas, lacks_alpha = alphas or Alphas(), False
    pairs, beside, magnitudes = {}, {}, {}
    for address, part in parts.items():
        if "down" in part:
            rank = part["down"].shape[0]
            lacks_alpha = lacks_alpha or "alpha" not in part
            alpha = float(part["alpha"]) if "alpha" in part else alphas.of(spelled[address], rank)
            pairs[address] = LowRank(part["down"], part["up"], alpha)
        if "magnitude" in part:
            magnitudes[address] = part["magnitude"].flatten()
        further = {
            SUFFIXES.get(role, role): tensor
            for role, tensor in part.items()
            if role not in ("down", "up", "magnitude") and (role != "alpha" or "down" not in part)
        }
        if further:
            beside[address] = further
    source = alphas.source if lacks_alpha and alphas.default is not None else ""
    return RelationLoRA(pairs, unet, metadata, tuple(sorted(left_out)), beside, magnitudes, unused, source)
