"""The relation LoRA: low-rank deltas of to_q, to_k, to_v, to_out of every text cross-attention.

    W' = W + alpha / r * up @ down        (LoRA arXiv:2106.09685; DreamRelation arXiv:2410.23280, section 4.1)

SDXL has 70 sites, 280 pairs; rank 4 makes 3,143,680 parameters. The same pairs are published under four spellings:
the authors' (diffusers), peft's, kohya's, and the older attention-processor one. All are read, ours (kohya's with
diffusers' module names) is written, because ComfyUI, kohya's tools and diffusers all read that.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import describe, read, save
from ..cross_attention_layers import PROJECTIONS, UNetLayout

_PREFIXES = ("base_model.model.", "unet.", "lora_unet_", "diffusion_model.")
_ROLE = re.compile(
    r"[._](?:lora(?:_linear_layer)?\.(?P<dotted>down|up)\.weight"  # diffusers
    r"|lora_(?P<kohya>down|up)\.weight"  # kohya
    r"|lora_(?P<peft>A|B)(?:\.\w+)?\.weight"  # peft, with or without an adapter's name
    r"|(?P<alpha>alpha))$"
)
_OLD_PROCESSOR = re.compile(r"\.processor\.(to_\w+?)_lora\.(down|up)\.weight$")


@dataclass(frozen=True, eq=False)
class LowRank:
    """One pair: down (r, in), up (out, r), alpha."""

    down: Tensor
    up: Tensor
    alpha: float

    def delta(self) -> Tensor:
        """(out, in) = alpha / r * up @ down."""
        return self.alpha / self.down.shape[0] * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class RelationCard:
    """What the file says of itself: the metadata of section 4 of the file format.

    Attributes:
        base: sdxl, miniworld or flux.
        relation: the predicate, e.g. "shaking hands with".
        example_prompt: a sentence that shows how to ask for it.
        losses: weight of each loss in training.
        thumbnail: a ``data:image/...;base64,`` URI, or empty.
    """

    base: str
    relation: str
    example_prompt: str = ""
    rank: int = 0
    alpha: float = 0.0
    steps: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    dataset_sha256: str = ""
    created_with: str = ""
    thumbnail: str = ""

    def metadata(self) -> dict[str, str]:
        """Flat strings, with the ModelSpec keys that LoRA managers show."""
        architecture = {"sdxl": "stable-diffusion-xl-v1-base/lora", "flux": "flux-1-dev/lora"}
        flat = {
            "kind": "relation", "base": self.base, "relation": self.relation, "example_prompt": self.example_prompt,
            "rank": str(self.rank), "alpha": f"{self.alpha:g}", "steps": str(self.steps),
            "losses": json.dumps(self.losses, sort_keys=True), "dataset_sha256": self.dataset_sha256,
            "created_with": self.created_with,
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": architecture.get(self.base, f"{self.base}/lora"),
            "modelspec.title": f"Relate: {self.relation}", "modelspec.trigger_phrase": self.relation,
        }
        return flat | ({"modelspec.thumbnail": self.thumbnail} if self.thumbnail else {})


@dataclass(frozen=True, eq=False)
class RelationLoRA:
    """The pairs of one relation.

    Attributes:
        pairs: by (site's diffusers path, projection), e.g. ("mid_block...attn2", "to_out.0").
        layout: the UNet they fit.
        metadata: the file's.
        left_out: modules of the file that are no text cross-attention of this UNet.
    """

    pairs: dict[tuple[str, str], LowRank]
    layout: UNetLayout
    metadata: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def relation(self) -> str:
        """The predicate the file names; empty if it names none."""
        return self.metadata.get("relation") or self.metadata.get("modelspec.trigger_phrase", "")

    def report(self) -> str:
        """E.g. "280 of 280 pairs at 70 of 70 sites"."""
        sites = self.layout.sites()
        found = {site for site, _ in self.pairs}
        return (f"{len(self.pairs)} of {len(sites) * len(PROJECTIONS)} pairs at {len(found)} of {len(sites)} sites")

    def state(self) -> dict[str, Tensor]:
        """The tensors under the keys of the file format."""
        tensors = {}
        for (site, projection), pair in self.pairs.items():
            module = "lora_unet_" + f"{site}.{projection}".replace(".", "_")
            tensors[f"{module}.lora_down.weight"] = pair.down
            tensors[f"{module}.lora_up.weight"] = pair.up
            tensors[f"{module}.alpha"] = torch.tensor(float(pair.alpha))
        return tensors


def save_relation(path: str | Path, lora: RelationLoRA, card: RelationCard) -> None:
    """Write the file of section 4, whole or not at all."""
    save(path, lora.state(), card.metadata())


def load_relation(path: str | Path, layout: UNetLayout) -> RelationLoRA:
    """Read a relation LoRA in any published spelling for one UNet.

    Raises:
        ValueError: unreadable; no pair fits; a pair is incomplete or misshapen; it belongs to another base.
    """
    path = Path(path)
    state, metadata = read(path)
    state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if metadata.get("kind", "relation") != "relation":
        raise ValueError(f"{path.name}: expected a relation LoRA, got a file of kind '{metadata['kind']}'.")
    return normalise(state, layout, path.name, metadata)


def normalise(state: dict[str, Tensor], layout: UNetLayout, file: str, metadata: dict[str, str]) -> RelationLoRA:
    """Sort a state dict of any spelling into pairs by site.

    Raises:
        ValueError: as ``load_relation``.
    """
    addresses = _addresses(layout)
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    left_out = []
    for key, tensor in state.items():
        module, role = _split(key)
        if module in addresses and role:
            parts.setdefault(addresses[module], {})[role] = tensor
        else:
            left_out.append(module if role else key)
    if not parts:
        belongs = describe(state) or "Its keys are of no known LoRA layout."
        raise ValueError(f"{file}: 0 of {len(layout.sites())} text cross-attentions of this model found in it. "
                         f"{belongs} Expected a relation LoRA for {base_name(layout.context_width)}.")
    _check(parts, layout, file, metadata)
    pairs = {}
    for address, part in parts.items():
        alpha = float(part["alpha"]) if "alpha" in part else float(part["down"].shape[0])
        pairs[address] = LowRank(part["down"], part["up"], alpha)
    return RelationLoRA(pairs, layout, metadata, tuple(sorted(set(left_out))))


def base_name(context_width: int) -> str:
    """The field's name of a UNet by its context width."""
    names = {2048: "SDXL", 768: "SD 1.5", 1024: "SD 2"}
    return names.get(context_width, f"a UNet of context width {context_width}")


def _addresses(layout: UNetLayout) -> dict[str, tuple[str, str]]:
    """Every spelling of every module, dots as underscores, to (site's diffusers path, projection)."""
    addresses = {}
    for site in layout.sites():
        block, number, index = site.comfy
        comfy = {"input": f"input_blocks.{number}.1", "output": f"output_blocks.{number}.1",
                 "middle": "middle_block.1"}[block] + f".transformer_blocks.{index}.attn2"
        for path in (site.diffusers, comfy):
            for projection in PROJECTIONS:
                for spelling in {projection, projection.removesuffix(".0")}:
                    addresses[f"{path}.{spelling}".replace(".", "_")] = (site.diffusers, projection)
    return addresses


def _split(key: str) -> tuple[str, str | None]:
    """A key to its module (dots as underscores, no prefix) and its role: down, up, alpha, or None."""
    key = _OLD_PROCESSOR.sub(r".\1.lora.\2.weight", key)
    match = _ROLE.search(key)
    if match is None:
        return key, None
    role = match["dotted"] or match["kohya"] or {"A": "down", "B": "up"}.get(match["peft"], "alpha")
    module = key[: match.start()]
    for prefix in _PREFIXES:
        module = module.removeprefix(prefix)
    return module.replace(".processor.", ".").replace(".", "_"), role


def _check(parts: dict[tuple[str, str], dict[str, Tensor]], layout: UNetLayout, file: str,
           metadata: dict[str, str]) -> None:
    """All faults of all pairs in one error."""
    widths = {site.diffusers: site.width for site in layout.sites()}
    faults = []
    context = set()
    for (site, projection), part in parts.items():
        where = f"{site}.{projection}"
        absent = [role for role in ("down", "up") if role not in part]
        if absent:
            faults.append(f"{where} has no {' and no '.join(absent)}")
            continue
        inner = layout.context_width if projection in ("to_k", "to_v") else widths[site]
        given = (part["up"].shape[0], part["down"].shape[-1])
        if part["down"].ndim != 2 or part["up"].ndim != 2 or given != (widths[site], inner) \
                or part["down"].shape[0] != part["up"].shape[1]:
            faults.append(f"{where} is {tuple(part['up'].shape)} x {tuple(part['down'].shape)}, expected "
                          f"({widths[site]}, r) x (r, {inner})")
            if projection == "to_k":
                context.add(int(part["down"].shape[-1]))
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        bases = metadata.get("base") or ", ".join(sorted(base_name(width) for width in context))
        other = f" It was made for {bases}, the model is {base_name(layout.context_width)}." if bases else ""
        raise ValueError(f"{file}: {len(faults)} of {len(parts)} pairs do not fit this model: {shown}.{other}")
