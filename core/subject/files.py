"""A subject adapter's file: safetensors with the parts that Subject-Diffusion trains, in diffusers' names.

    proj.…                                object tokens
    mlp.…, mlp_2.…                        image embedding to a word of the first, of the second text encoder (optional)
    unet.<block>.fuser.…                  the gated adapter of each transformer block, of the first of each stack,
                                          or of the up blocks
    unet.<block>.attn2.to_k|to_v.weight   trained keys and values of the text cross-attention, optional
    unet.conv_in.weight|bias              the base's input channels and the mask's behind them, optional
    text_encoder.…, text_encoder_2.…      trained, optional

Metadata: ``kind=subject_adapter``, ``base``, ``head_width`` (64) or ``heads``, ``max_subjects`` (2), ``locate_single``,
``coordinates``, ``fused_words`` (true or false each), ``placeholder`` (sks). The authors published no weights
(arXiv:2307.11410), so this layout is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import flat_tensors, metadata_number, read, save
from ..key_report import compare_keys, describe, shapes
from .adapter import GatedAdapter
from .fused_prompt import PLACEHOLDER
from .tokens import ObjectTokens, PreNormMLP

KIND = "subject_adapter"
_FUSER = ".fuser.linear.weight"
_SWITCHES = ("locate_single", "coordinates", "fused_words")


@dataclass(frozen=True)
class SubjectAdapterConfig:
    """Sizes and settings of a subject adapter.

    Attributes:
        image_width: I of the image encoder's patch tokens, 1280 for CLIP ViT-H/14.
        embedding_width: E of its embedding, 1024.
        context_width: D of object tokens, 1024.
        hidden: width inside the object tokens' MLP.
        tokens: T per subject, 256.
        word: width inside and behind the MLP that makes words: the text encoder's.
        word_2: the same for a second text encoder, or None.
        blocks: width of every transformer block by its diffusers name, in the order of the UNet.
        head_width: of the adapters' attention, as in SD 2 and SDXL; 0 where `heads` counts.
        heads: number of them in every block, as in SD 1; 0 where `head_width` counts.
        input_channels: the base's and one, 5 on SD, where the file trains the input convolution; else 0.
        max_subjects: how many it was trained with.
        locate_single: whether one subject alone gets its box.
        coordinates: whether boxes go into the object tokens at all.
        fused_words: whether subjects stand in the prompt.
        placeholder: the word that stands for a subject.
        base: the model it was trained on.
    """

    image_width: int
    embedding_width: int
    context_width: int
    hidden: int
    tokens: int
    word: tuple[int, int]
    blocks: dict[str, int]
    head_width: int = 64
    heads: int = 0
    input_channels: int = 0
    max_subjects: int = 2
    locate_single: bool = True
    placeholder: str = PLACEHOLDER
    base: str = ""
    word_2: tuple[int, int] | None = None
    coordinates: bool = True
    fused_words: bool = True


class SubjectAdapter(nn.Module):
    """The new modules of a subject adapter; what it changes in the base stays in its file's state."""

    def __init__(self, config: SubjectAdapterConfig, ops=nn, **factory) -> None:
        super().__init__()
        self.config = config
        self.proj = ObjectTokens(config.image_width, config.context_width, config.hidden, config.tokens, ops, **factory)
        self.mlp = PreNormMLP(config.embedding_width, *config.word, ops, **factory)
        if config.word_2:
            self.mlp_2 = PreNormMLP(config.embedding_width, *config.word_2, ops, **factory)
        heads = [config.heads or width // config.head_width for width in config.blocks.values()]
        self.fusers = nn.ModuleList(
            [
                GatedAdapter(width, config.context_width, count, width // count, ops, **factory)
                for width, count in zip(config.blocks.values(), heads)
            ]
        )

    def load(self, state: dict[str, Tensor]) -> None:
        """Take this module's tensors out of a file's state (see `load_subject_adapter`)."""
        self.load_state_dict({key: state[name] for key, name in self.file_keys().items()}, strict=True)

    def words(self, embeddings: Tensor) -> list[Tensor]:
        """Make each text encoder's words (..., W) of image embeddings (..., E)."""
        return [mlp(embeddings) for mlp in (self.mlp, getattr(self, "mlp_2", None)) if mlp is not None]

    def file_keys(self) -> dict[str, str]:
        """Name each of this module's tensors as a file does."""
        blocks, keys = list(self.config.blocks), {}
        for key in self.state_dict():
            if key.startswith("fusers."):
                _, index, name = key.split(".", 2)
                keys[key] = f"unet.{blocks[int(index)]}.fuser.{name}"
            else:
                keys[key] = key
        return keys


def save_subject_adapter(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: SubjectAdapterConfig,
    metadata: Mapping[str, str],
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a subject adapter atomically.

    Args:
        path: where to.
        state: all tensors by the file's keys.
        config: written into the metadata as far as the tensors' shapes do not hold it.
        metadata: further entries; flat strings.
        check: raises if what was written is not right; the file then never appears.
    """
    heads = {"heads": str(config.heads)} if config.heads else {"head_width": str(config.head_width)}
    switches = {name: str(getattr(config, name)).lower() for name in _SWITCHES}
    limits = {"max_subjects": str(config.max_subjects), "placeholder": config.placeholder, "base": config.base}
    save(path, state, {"kind": KIND, **heads, **switches, **limits, **metadata}, check)


def load_subject_adapter(path: str | Path) -> tuple[dict[str, Tensor], SubjectAdapterConfig]:
    """Read a subject adapter of any widths and depths that fit each other.

    Returns:
        The file's tensors by key, and the config that builds a `SubjectAdapter`.

    Raises:
        ValueError: unreadable, another kind of file, or one with missing, unexpected or misshapen keys.
    """
    path = Path(path)
    content, metadata = read(path)
    if metadata.get("kind", KIND) != KIND:
        raise ValueError(f"{path.name}: expected a subject adapter, got a file of kind '{metadata['kind']}'.")
    state = flat_tensors(content, path.name)
    config = _config(state, metadata, path.name)
    compare_keys(shapes(state), _expected(state, config), path.name, "a subject adapter")
    return state, config


def _config(state: dict[str, Tensor], metadata: dict[str, str], file: str) -> SubjectAdapterConfig:
    # sizes that the tensors' shapes hold
    try:
        _, _, tokens, image_width = state["proj.null_image_feature"].shape
        hidden = state["proj.linears_image.fc1.weight"].shape[0]
        context_width = state["proj.linears_image.fc2.weight"].shape[0]
        word_hidden, embedding_width = state["mlp.fc1.weight"].shape
        blocks = {
            key.removeprefix("unet.").removesuffix(_FUSER): tensor.shape[0]
            for key, tensor in state.items()
            if key.startswith("unet.") and key.endswith(_FUSER)
        }
        word = (word_hidden, state["mlp.fc2.weight"].shape[0])
        word_2 = None
        if "mlp_2.fc1.weight" in state:
            word_2 = (state["mlp_2.fc1.weight"].shape[0], state["mlp_2.fc2.weight"].shape[0])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{file}: expected a subject adapter (keys under proj., mlp. and unet.), but {error} is "
            f"missing or misshapen. {describe(state)}"
        ) from error

    # what only the metadata holds
    heads = metadata_number(metadata, "heads", 1, file) if "heads" in metadata else 0
    head_width = 0 if heads else metadata_number(metadata, "head_width", 64, file)
    if not blocks or any(width % (heads or head_width) for width in blocks.values()):
        raise ValueError(
            f"{file}: expected the gated adapter of at least one block, of a width that "
            f"{heads or head_width} divides; got {blocks or 'none'}."
        )
    return SubjectAdapterConfig(
        image_width,
        embedding_width,
        context_width,
        hidden,
        tokens,
        word,
        dict(sorted(blocks.items(), key=_order)),
        head_width,
        heads,
        state["unet.conv_in.weight"].shape[1] if "unet.conv_in.weight" in state else 0,
        metadata_number(metadata, "max_subjects", 2, file),
        placeholder=metadata.get("placeholder", PLACEHOLDER),
        base=metadata.get("base", ""),
        word_2=word_2,
        **{name: metadata.get(name, "true") == "true" for name in _SWITCHES},
    )


def _order(block: tuple[str, int]) -> tuple:
    """Down, middle, up; numbers as numbers."""
    parts = block[0].split(".")
    stage = ("down_blocks", "mid_block", "up_blocks")
    return (
        stage.index(parts[0]) if parts[0] in stage else 3,
        *(int(part) for part in parts if part.isascii() and part.isdigit()),
    )


def _expected(state: dict[str, Tensor], config: SubjectAdapterConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a whole file: all new modules, and what the file begins to train of the base."""
    with torch.device("meta"):
        module = SubjectAdapter(config)
    names = module.file_keys()
    expected = {names[key]: shape for key, shape in shapes(module.state_dict()).items()}
    keys_values = {
        f"unet.{block}.attn2.{name}.weight": (width, config.context_width)
        for block, width in config.blocks.items()
        for name in ("to_k", "to_v")
    }
    if any(key in state for key in keys_values):
        expected |= keys_values
    if config.input_channels:
        width = state["unet.conv_in.weight"].shape[0]
        expected |= {"unet.conv_in.weight": (width, config.input_channels, 3, 3), "unet.conv_in.bias": (width,)}
    text = ("text_encoder.", "text_encoder_2.")
    expected |= {key: tuple(tensor.shape) for key, tensor in state.items() if key.startswith(text)}
    return expected
