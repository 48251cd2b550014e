"""The other parts of a Flux-class base: VAE, text encoders and tokenizers of a diffusers folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn

from core.user_files import read_json_object, visible_files

from ..errors import ModelFileErrors, one_line
from ..miniworld.architectures import Words
from .text import DEFAULT_TOKENS, FluxText, flux1_text, miniworld_text, mistral_text, qwen_text

_READ = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja"}
_VAES = {"AutoencoderKL": AutoencoderKL, "AutoencoderKLFlux2": AutoencoderKLFlux2}


@dataclass(frozen=True, eq=False)
class FluxParts:
    """What stands beside a transformer.

    Attributes:
        kind: of its text: t5, qwen3, mistral3, clip.
        latent_channels: of the VAE, at 1/8.
        context_width: numbers per token of a prompt.
        tokens: of a prompt.
        vae: load it, float32.
        text: load the encoders in a precision.
        files: what they are made of.
    """

    kind: str
    latent_channels: int
    context_width: int
    tokens: int
    vae: Callable[[], nn.Module]
    text: Callable[[torch.dtype], FluxText]
    files: tuple[Path, ...]


def open_parts(folder: Path, tokens: int, words: Tensor | None) -> FluxParts:
    """Look at the parts without reading their weights.

    Args:
        folder: with ``vae/``, ``text_encoder/`` ..., ``tokenizer/`` ....
        tokens: of a prompt; 0: as this family's users have.
        words: DreamO's table of placeholders, or None.

    Raises:
        ModelFileErrors: missing, broken, or of no Flux.
    """
    # 1. the configs
    if not (folder / "vae" / "config.json").is_file():
        raise ModelFileErrors(f"models.parts: {folder} is not a diffusers folder of Flux: vae/config.json is missing.")
    try:
        vae = read_json_object(folder / "vae" / "config.json")
        kinds = {part: _kind(folder / part) for part in ("text_encoder", "text_encoder_2") if (folder / part).is_dir()}
    except ValueError as error:
        raise ModelFileErrors(f"models.parts: {error}") from error
    if vae.get("_class_name", "AutoencoderKL") not in _VAES:
        raise ModelFileErrors(f"models.parts: {folder / 'vae'}: expected a VAE of Flux, got {vae.get('_class_name')}.")
    encoder = next((part for part, kind in reversed(kinds.items()) if kind in ("t5", "qwen3", "mistral3")), None)
    if encoder is None and kinds.get("text_encoder_2") == "clip":
        encoder = "text_encoder_2"
    if encoder is None:
        raise ModelFileErrors(
            f"models.parts: {folder}: expected T5 (FLUX.1), Qwen3 (Klein) or Mistral (FLUX.2 dev) as a text encoder, "
            f"got {', '.join(kinds.values()) or 'none'}."
        )
    # 2. what the parts are
    kind, config = kinds[encoder], read_json_object(folder / encoder / "config.json")
    length = DEFAULT_TOKENS[kind] if kind == "clip" else tokens or DEFAULT_TOKENS[kind]
    width = _width(config)
    parts = ("vae", *kinds, *(part.replace("text_encoder", "tokenizer") for part in kinds), "tokenizer")
    files = dict.fromkeys(
        file for part in parts if (folder / part).is_dir() for file in visible_files(folder / part, _READ)
    )
    _check_whole(folder, kind)
    return FluxParts(
        kind,
        vae.get("latent_channels", 32 if vae.get("_class_name") == "AutoencoderKLFlux2" else 4),
        3 * width if kind in ("qwen3", "mistral3") else width,
        length,
        lambda: _loaded(_VAES[vae.get("_class_name", "AutoencoderKL")], folder, "vae", torch.float32),
        lambda dtype: _text(kind, folder, dtype, length, words),
        tuple(files),
    )


def _check_whole(folder: Path, kind: str) -> None:
    """Look whether everything is there that will be loaded, so that a half download is known before training."""
    needed = {"t5": ("text_encoder", "text_encoder_2"), "clip": ("text_encoder_2",)}.get(kind, ("text_encoder",))
    lacking = [part for part in ("vae", *needed) if not has_weights(folder / part)]
    tokenizers = ("tokenizer",) if kind == "clip" else (part.replace("text_encoder", "tokenizer") for part in needed)
    lacking += [part for part in tokenizers if not (folder / part).is_dir()]
    if lacking:
        raise ModelFileErrors(
            f"models.parts: {folder}: {', '.join(f'{part}/' for part in lacking)} is missing or has no weights. "
            "Download it whole."
        )


def has_weights(folder: Path) -> bool:
    """Tell whether a model's folder holds more than its config."""
    return folder.is_dir() and bool(visible_files(folder, {".safetensors", ".bin"}))


def _kind(folder: Path) -> str:
    """Tell the sort of a text encoder: t5, qwen3, mistral3, clip, or what its config says."""
    model_type = str(read_json_object(folder / "config.json").get("model_type", "")).lower()
    return "clip" if model_type.startswith("clip") else model_type


def _width(config: dict) -> int:
    inner = config.get("text_config") or config
    width = inner.get("hidden_size") or inner.get("d_model")
    if not isinstance(width, int):
        raise ModelFileErrors("models.parts: the text encoder's config has no hidden_size.")
    return width


def _text(kind: str, folder: Path, dtype: torch.dtype, length: int, words: Tensor | None) -> FluxText:
    def encoder(name: str, part: str) -> nn.Module:
        return _loaded(getattr(transformers, name), folder, part, dtype)

    def tokenizer(part: str, name: str = "AutoTokenizer"):
        try:
            return getattr(transformers, name).from_pretrained(folder / part, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileErrors(f"models.parts: {folder / part} cannot be read: {one_line(error)}") from error

    if kind == "t5":
        clip_l = encoder("CLIPTextModel", "text_encoder")
        t5 = encoder("T5EncoderModel", "text_encoder_2")
        return flux1_text(tokenizer("tokenizer", "CLIPTokenizer"), clip_l, tokenizer("tokenizer_2"), t5, length, words)
    if kind == "qwen3":
        return qwen_text(tokenizer("tokenizer"), encoder("Qwen3ForCausalLM", "text_encoder"), length)
    if kind == "mistral3":
        processor = tokenizer("tokenizer", "AutoProcessor")
        return mistral_text(processor, encoder("Mistral3ForConditionalGeneration", "text_encoder"), length)
    text_g = encoder("CLIPTextModelWithProjection", "text_encoder_2")
    return miniworld_text(Words(folder / "tokenizer"), text_g, words)


def _loaded(kind: type, folder: Path, part: str, dtype: torch.dtype) -> nn.Module:
    options = {"torch_dtype": dtype} if kind.__module__.startswith("diffusers") else {"dtype": dtype}
    try:
        model = kind.from_pretrained(folder / part, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelFileErrors(f"models.parts: {folder / part} cannot be loaded: {one_line(error)}") from error
    return model.eval().requires_grad_(False)
