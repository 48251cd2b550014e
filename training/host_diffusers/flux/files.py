"""A Flux-class base on disk, opened part by part: a diffusers folder, or one file and a folder with its other parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import diffusers
import torch
import transformers
from torch import nn

from core.key_report import compare_keys, shapes
from core.routing.files import load_tables
from core.routing.token_layout import DreamOEmbeddings
from core.user_files import read_json_object, visible_files

from ..errors import ModelFileErrors, one_line
from ..frozen import fingerprint_of
from .architectures import class_of, config_of_shapes, empty_transformer, name_of
from .choices import is_kontext, method_of, misfits_of, remarks_on
from .dreamo import merge_loras, strengths_of
from .parts import FluxParts, has_weights, open_parts
from .single_file import read_transformer, shapes_of

_WEIGHTS = {".json", ".safetensors", ".bin", ".model"}


class FluxPaths(Protocol):
    """The config's table of models."""

    base: str
    parts: str
    transformer: str
    dreamo: list[str]
    dreamo_strengths: list[float]
    embeddings: str
    text_tokens: int


@dataclass(frozen=True, eq=False)
class FluxBaseFiles:
    """A base whose parts are read from disk whenever they are loaded; none is cached.

    Attributes:
        name: a key of `FLUX_BASES`, or flux1, flux2 for other sizes.
        config: of its transformer.
        parts: VAE and text encoders.
        method: the references' positions it was trained with.
        tables: DreamO's, or None.
        remarks: what a user should know of this choice, sentences.
        files: what it is made of, for fingerprints.
    """

    name: str
    config: dict[str, Any]
    parts: FluxParts
    method: str
    tables: DreamOEmbeddings | None
    remarks: tuple[str, ...]
    files: tuple[Path, ...]
    _read: Callable[[torch.dtype], nn.Module]
    _read_nf4: Callable[[torch.dtype], nn.Module]
    _settings: str

    def empty(self) -> nn.Module:
        """Build the transformer on the meta device."""
        return empty_transformer(self.config)

    def transformer(self, dtype: torch.dtype, nf4: bool = False) -> nn.Module:
        """Read the transformer, DreamO's LoRAs merged, frozen.

        Raises:
            ModelFileErrors: it cannot be read; bitsandbytes or CUDA is missing.
        """
        try:
            model = self._read_nf4(dtype) if nf4 else self._read(dtype)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
            raise ModelFileErrors(f"models.base: the transformer cannot be loaded: {one_line(error)}") from error
        return model.eval().requires_grad_(False)

    def fingerprint(self) -> str:
        """Hash of all files and of how they are put together."""
        return fingerprint_of(self.files, self._settings)


def open_flux_base(paths: FluxPaths, method: str = "auto") -> FluxBaseFiles:
    """Look at a base and what belongs to it without reading its weights.

    Args:
        paths: the config's table of models.
        method: of the references' positions, or auto.

    Raises:
        ModelFileErrors: everything that is missing, broken or does not fit, in one report.
    """
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    # 1. every fault of every part in one report
    faults: list[str] = []
    base = Path(paths.base)
    config = _or_fault(lambda: _config_of(paths, base), faults)
    if config and base.is_dir() and not has_weights(base / "transformer"):
        faults.append(f"models.base: {base / 'transformer'} has no weights (*.safetensors). Download the folder whole.")
    tables = None
    if paths.embeddings:
        tables = _or_fault(lambda: load_tables(paths.embeddings), faults, "models.embeddings: ")
    parts = None
    if base.exists():
        folder = Path(paths.parts) if paths.parts else base
        if not paths.parts and base.is_file():
            faults.append(
                f"models.parts: {base.name} holds a transformer alone. Name a diffusers folder with this model's vae, "
                "text encoders and tokenizers."
            )
        else:
            words = tables.words if tables else None
            parts = _or_fault(lambda: open_parts(folder, paths.text_tokens, words), faults)
    loras = [Path(path) for path in paths.dreamo]
    faults += [
        f"models.dreamo: {path} is not there. Download it, or correct the path." for path in loras if not path.is_file()
    ]
    if config and parts:
        faults += misfits_of(config, parts, tables, bool(loras), method)
    if faults or config is None or parts is None:
        raise ModelFileErrors(faults)
    # 2. which of the published models it is, and how its references stand
    index = _or_fault(lambda: read_json_object(base / "model_index.json"), []) if base.is_dir() else None
    kontext = is_kontext(base, index or {}, method)
    name = name_of(config, kontext)
    reference_method = method if method != "auto" else method_of(config, kontext, tables is not None or bool(loras))
    strengths = strengths_of(loras, paths.dreamo_strengths)
    # 3. the parts, read when they are asked for
    embeddings = [Path(paths.embeddings)] if paths.embeddings else []
    return FluxBaseFiles(
        name,
        config,
        parts,
        reference_method,
        tables,
        tuple(remarks_on(base, index or {}, config, name, tables is not None or bool(loras))),
        (*_files_of(base), *parts.files, *loras, *embeddings),
        lambda dtype: _read_transformer(base, config, dtype, loras, strengths),
        lambda dtype: _read_nf4(base, config, dtype),
        str((strengths, paths.text_tokens)),
    )


def _or_fault(read: Callable[[], Any], faults: list[str], where: str = "models.base: ") -> Any:
    try:
        return read()
    except ModelFileErrors as error:
        faults += error.messages
    except (ValueError, OSError) as error:
        faults.append(f"{where}{one_line(error)}")
    return None


def _config_of(paths: FluxPaths, base: Path) -> dict:
    """Find the transformer's config: named, of the folder, or by the shapes in the file."""
    if not base.exists():
        raise ValueError(f"{base} is neither a folder nor a file. Give a diffusers folder or a transformer's file.")
    named = Path(paths.transformer) if paths.transformer else None
    if named or base.is_dir():
        folder = named or base / "transformer"
        file = folder if folder.suffix == ".json" else folder / "config.json"
        if not file.is_file():
            raise ValueError(f"{base} is not a whole diffusers folder of Flux: {file} is missing.")
        config = {key: value for key, value in read_json_object(file).items() if key not in ("_name_or_path",)}
    else:
        config = config_of_shapes(shapes_of(base))
    class_of(config)
    try:
        whole = dict(empty_transformer(config).config)
    except Exception as error:  # noqa: BLE001 diffusers raises whatever a wrong size leads to
        raise ValueError(
            f"{base}: its config describes no transformer that diffusers can build ({one_line(error)})."
        ) from error
    return {**whole, "_class_name": config["_class_name"]}


def _files_of(base: Path) -> tuple[Path, ...]:
    if base.is_file():
        return (base,)
    return tuple(visible_files(base / "transformer", _WEIGHTS))


def _read_transformer(
    base: Path, config: dict, dtype: torch.dtype, loras: list[Path], strengths: list[float]
) -> nn.Module:
    kind = class_of(config)
    if base.is_dir():
        model = kind.from_pretrained(base, subfolder="transformer", torch_dtype=dtype, local_files_only=True)
    else:
        state = read_transformer(base, 2 if len(config["axes_dims_rope"]) == 4 else 1, dtype)
        model = empty_transformer(config)
        compare_keys(shapes(state), shapes(model.state_dict()), base.name, "this Flux")
        model.load_state_dict(state, assign=True)
    if loras:
        merge_loras(model, loras, strengths)
    return model


def _read_nf4(base: Path, config: dict, dtype: torch.dtype) -> nn.Module:
    quantised = diffusers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return class_of(config).from_pretrained(
        base, subfolder="transformer", torch_dtype=dtype, quantization_config=quantised, local_files_only=True
    )
