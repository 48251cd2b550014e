"""The small Flux on disk, beside the miniworld's other models, in both variants.

`models/miniworld/flux/` has `transformer`, a diffusers folder, and `embedding.safetensors` under DreamO's own names;
`models/miniworld/flux_index/` a transformer alone. Matrices are stored in 8 bits (float8_e4m3fn), as Flux is often
shared, so that both variants take the room of one; vectors in half precision. Whoever reads them computes in float32.
Text encoder and autoencoder are the miniworld's.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoint import read, save
from core.key_report import compare_keys, shapes
from core.routing.files import TABLES, load_tables
from core.routing.token_layout import PATCH

from ...common.atomic_io import write_text
from .architectures import FOLDER
from .flux import TEXT_TOKENS, IndexedFlux, RoutedFlux, flux_config

FLUX_FOLDER, INDEX_FOLDER = FOLDER / "flux", FOLDER / "flux_index"
CONFIG, WEIGHTS = "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"
EMBEDDING = "embedding.safetensors"
MATRICES, VECTORS = torch.float8_e4m3fn, torch.float16


def save_flux(model: RoutedFlux, folder: Path) -> int:
    """Write a model; return the bytes of weights.

    Args:
        model: what to write; DreamO's tables are left out for an IndexedFlux, which has no use for them.
        folder: receives the files; each appears only when it is whole.
    """
    channels = model.transformer.config.in_channels // PATCH**2
    config = {"_class_name": "FluxTransformer2DModel", "patch_size": 1, **flux_config(channels)}
    write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    weights = {key: stored(value) for key, value in model.transformer.state_dict().items()}
    save(folder / WEIGHTS, weights, {"format": "pt", "text_tokens": str(TEXT_TOKENS)})
    names = [WEIGHTS]
    if not isinstance(model, IndexedFlux):
        tables = model.rows()
        halves = (table.half() for table in (tables.task, tables.index, tables.words))
        save(folder / EMBEDDING, dict(zip(TABLES, halves)), {"base": "miniworld", "text_tokens": str(TEXT_TOKENS)})
        names.append(EMBEDDING)
    return sum((folder / name).stat().st_size for name in names)


def stored(value: Tensor) -> Tensor:
    """Return a weight as it is written."""
    return value.detach().cpu().to(MATRICES if value.ndim == 2 else VECTORS)


def load_flux(folder: Path = FLUX_FOLDER) -> RoutedFlux:
    """Read a model in float32, frozen, on the CPU: DreamO's variant where there are tables, else an IndexedFlux.

    Raises:
        FileNotFoundError: nothing exported there.
        ValueError: a file that does not fit.
    """
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(
            f"{folder}: expected the miniworld's Flux, found none; train it with python -m "
            "training.miniworld flux and write it with python -m training.miniworld flux-export"
        )
    channels = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["in_channels"] // PATCH**2
    dreamo = (folder / EMBEDDING).exists()
    model = (RoutedFlux if dreamo else IndexedFlux)(flux_config(channels))
    state = {key: value.float() for key, value in read(folder / WEIGHTS)[0].items()}
    compare_keys(shapes(state), shapes(model.transformer.state_dict()), WEIGHTS, "the miniworld's Flux")
    model.transformer.load_state_dict(state)
    if dreamo:
        tables = load_tables(folder / EMBEDDING)
        model.tables.update({name: getattr(tables, name).float() for name in ("task", "index", "words")})
    return model.eval().requires_grad_(False)
