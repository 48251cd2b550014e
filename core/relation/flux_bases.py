"""Detect which Flux-class transformer a LoRA was made for: by its file's metadata, else by its sizes.

Two models of one shape are one here: FLUX.1 dev, schnell, Krea and Kontext share every tensor's size, and so do the
base and the distilled Klein. Counts are those of the published configs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..lora_keys import bare_name, split_key
from .unet_bases import UNET_BASES, title_of_context


@dataclass(frozen=True)
class FluxShape:
    """Sizes that identify a Flux-class transformer.

    Attributes:
        generation: 1 (each block has its own modulation, single blocks have q, k, v apart) or 2.
        width: channels of a token.
        double, single: how many blocks of each kind.
    """

    generation: int
    width: int
    double: int
    single: int

    def title(self) -> str:
        """Its name for people; of several models of this shape, the first."""
        titles = (base.title for base in FLUX_BASES.values() if base.shape == self)
        return next(
            titles,
            f"a Flux.{self.generation} of width {self.width} with {self.double} double and {self.single} single blocks",
        )


@dataclass(frozen=True)
class FluxBase:
    """A published model: its name for people, its shape, its ModelSpec architecture."""

    title: str
    shape: FluxShape
    architecture: str


@dataclass(frozen=True)
class FileBase:
    """The base that a file was made for.

    Attributes:
        title: its name for people.
        shape: None: no Flux.
        source: where that is read from, for messages.
    """

    title: str
    shape: FluxShape | None
    source: str


_FLUX1 = FluxShape(1, 3072, 19, 38)
FLUX_BASES = {  # by the value of ``base`` in a file's metadata
    "flux1-dev": FluxBase("FLUX.1", _FLUX1, "flux-1-dev"),
    "kontext": FluxBase("FLUX.1 Kontext", _FLUX1, "flux-1-dev"),
    "klein-4b": FluxBase("FLUX.2 Klein 4B", FluxShape(2, 3072, 5, 20), "Flux.2-klein-4b"),
    "klein-9b": FluxBase("FLUX.2 Klein 9B", FluxShape(2, 4096, 8, 24), "Flux.2-klein-9b"),
    "flux2-dev": FluxBase("FLUX.2 dev", FluxShape(2, 6144, 8, 48), "Flux.2-dev"),
    "miniworld-flux": FluxBase("the miniworld's Flux", FluxShape(1, 160, 3, 6), "miniworld-flux"),
}
# what tools write into ``modelspec.architecture`` or ``ss_base_model_version``, letters and digits only
_WRITTEN = (
    (r"miniworldflux", "miniworld-flux"),
    (r"klein.*4b", "klein-4b"),
    (r"klein.*9b", "klein-9b"),
    (r"kontext", "kontext"),
    (r"flux2(dev)?(lora)?$", "flux2-dev"),
    (r"flux1?(dev|schnell|krea)?(lora)?$", "flux1-dev"),
)
_OTHERS = {"stablediffusionxl": "SDXL", "stablediffusionv1": "SD 1.5", "qwenimage": "Qwen-Image"}
_BLOCK = re.compile(r"(?P<single>single_)?(?:transformer_)?(?P<double>double_)?blocks_(?P<number>\d+)_(?P<name>.+)$")
_ATTENTION = re.compile(r"(attn_(to_[qkv]|add_[qkv]_proj|to_qkv_mlp_proj)|(img|txt)_attn_qkv|linear1(_qkv)?)$")
_OF_1 = re.compile(r"(single_transformer_blocks_\d+_(proj_out|proj_mlp|norm_linear)|(img_mod|txt_mod|modulation)_lin)$")
_OF_2 = re.compile(r"(attn_to_qkv_mlp_proj|single_transformer_blocks_\d+_attn_to_out)$|_stream_modulation")


def base_of_file(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> FileBase | None:
    """Detect the base that a LoRA was made for; None if nothing in the file shows it.

    Args:
        state: its tensors, in any spelling.
        metadata: the file's. ``base`` is this pack's own word and decides; what other tools write is
            believed unless the tensors are plainly another model's (older trainers call every Flux.2 "dev").
    """
    own = _written(metadata.get("base", ""), 'by "base" in its metadata')
    if own is not None:
        return own
    pairs = _pairs_of(state)
    blocks = _blocks_of(pairs)
    shape = None if blocks is None else _shape_of(blocks)
    for key in ("modelspec.architecture", "ss_base_model_version"):
        base = _written(metadata.get(key, ""), f'by "{key}" in its metadata')
        if base is not None and (shape is None or base.shape is None or blocks is None or blocks.fit(base.shape)):
            return base
    context = {into for module, (_, into) in pairs.items() if module.endswith(("attn2_to_k", "attn2_to_v"))}
    if len(context) == 1:
        return FileBase(title_of_context(context.pop()), None, "by its text cross-attentions")
    return None if shape is None else FileBase(shape.title(), shape, "by its blocks")


def _pairs_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return (out, in) of each pair by its module, without prefix and with underscores."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        read_key = split_key(key)
        if read_key is not None and not read_key.text_encoder and read_key.role in ("down", "up") and tensor.ndim == 2:
            halves.setdefault(bare_name(read_key.module), {})[read_key.role] = tensor
    return {module: (len(pair["up"]), pair["down"].shape[1]) for module, pair in halves.items() if len(pair) == 2}


def _written(text: str, source: str) -> FileBase | None:
    """Read a name that stands in the metadata; None if it means nothing here."""
    plain = _plain(text)
    for pattern, name in _WRITTEN:
        if re.search(pattern, plain):
            return FileBase(FLUX_BASES[name].title, FLUX_BASES[name].shape, source)
    unets = {_plain(word): base.title for name, base in UNET_BASES.items() for word in (name, base.architecture)}
    others = {**_OTHERS, **unets}
    start = max(filter(plain.startswith, others), key=len, default="")
    return FileBase(others[start], None, source) if start else None


def _plain(text: str) -> str:
    """Letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


@dataclass(frozen=True)
class _Blocks:
    """Sizes of the model that a file's pairs are for; ``generation`` None: not known."""

    generation: int | None
    widths: frozenset[int]
    double: int
    single: int

    def fit(self, shape: FluxShape) -> bool:
        """Whether a model of this shape has all of it."""
        same = self.generation in (None, shape.generation) and self.widths <= {shape.width}
        return same and self.double <= shape.double and self.single <= shape.single


def _blocks_of(pairs: Mapping[str, tuple[int, int]]) -> _Blocks | None:
    """Read (out, in) sizes by module; None if no block of a Flux is among them."""
    widths, numbers, generation = set(), {"double": set(), "single": set()}, None
    for module, (out, into) in pairs.items():
        match = _BLOCK.match(module)
        if match is None and not _OF_2.search(module):
            continue
        if match is not None:
            numbers["single" if match["single"] else "double"].add(int(match["number"]))
        if _ATTENTION.search(module):
            widths.add(into)
            if module.endswith("linear1"):
                generation = {7: 1, 9: 2}.get(round(out / into), generation)
        generation = 1 if _OF_1.search(module) else 2 if _OF_2.search(module) else generation
    if not numbers["double"] and not numbers["single"]:
        return None
    double, single = (max(numbers[kind], default=-1) + 1 for kind in ("double", "single"))
    return _Blocks(generation, frozenset(widths), double, single)


def _shape_of(blocks: _Blocks) -> FluxShape | None:
    """Find the published shape that the blocks belong to; None where they fit none, or several alike.

    A file that touches just as many blocks as a model has belongs to that model, though a larger one would take it:
    the text stream of Klein 4B has the names and sizes of the first five double blocks of FLUX.1.
    """
    fitting = [shape for shape in dict.fromkeys(base.shape for base in FLUX_BASES.values()) if blocks.fit(shape)]
    exact = [shape for shape in fitting if blocks.double in (0, shape.double) and blocks.single in (0, shape.single)]
    fitting = exact or fitting
    return fitting[0] if len(fitting) == 1 else None


def check_base(base: FileBase | None, model: FluxShape, file: str) -> None:
    """Check that a LoRA was made for a model of this shape.

    A model of no published shape (pruned, or a test's) is only asked for its generation: the pairs themselves are
    compared with its weights when they are attached.

    Raises:
        ValueError: it was made for another.
    """
    if base is None or base.shape == model:
        return
    published = any(flux_base.shape == model for flux_base in FLUX_BASES.values())
    if base.shape is not None and not published and base.shape.generation == model.generation:
        return
    raise ValueError(
        f"{file}: it was made for {base.title} ({base.source}), the model is {model.title()}. Load {base.title}, or "
        f"choose a relation for {model.title()}."
    )
