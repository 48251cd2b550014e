"""The small Flux on disk, beside the miniworld's other models: a diffusers transformer and DreamO's tables.

`models/miniworld/flux/` has `transformer`, a diffusers folder, and `embedding.safetensors` under DreamO's own names.
Its text encoder and autoencoder are the miniworld's.
"""

from __future__ import annotations

import json
from pathlib import Path

from core.checkpoint import read, save
from core.key_report import compare_keys, shapes
from core.routing.files import TABLES, load_tables

from ...common.atomic_io import write_text
from .architectures import FOLDER
from .flux import FLUX, TEXT_TOKENS, RoutedFlux

FLUX_FOLDER = FOLDER / "flux"
CONFIG, WEIGHTS = "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"
EMBEDDING = "embedding.safetensors"


def save_flux(model: RoutedFlux, folder: Path) -> int:
    """Write a model in half precision; return the bytes of weights.

    Args:
        model: what to write.
        folder: receives the three files, each whole or not at all.
    """
    config = {"_class_name": "FluxTransformer2DModel", "patch_size": 1, **FLUX}
    write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    save(
        folder / WEIGHTS, {key: value.half() for key, value in model.transformer.state_dict().items()}, {"format": "pt"}
    )
    tables = model.rows()
    halves = (table.half() for table in (tables.task, tables.index, tables.words))
    save(folder / EMBEDDING, dict(zip(TABLES, halves)), {"base": "miniworld", "text_tokens": str(TEXT_TOKENS)})
    return sum((folder / name).stat().st_size for name in (WEIGHTS, EMBEDDING))


def load_flux(folder: Path = FLUX_FOLDER) -> RoutedFlux:
    """Read a model in float32, frozen, on the CPU.

    Raises:
        FileNotFoundError: nothing exported there.
        ValueError: a file that does not fit.
    """
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(
            f"{folder}: expected the miniworld's Flux, found none; train it with python -m "
            "training.miniworld flux and write it with python -m training.miniworld flux-export"
        )
    model = RoutedFlux()
    state = {key: value.float() for key, value in read(folder / WEIGHTS)[0].items()}
    compare_keys(shapes(state), shapes(model.transformer.state_dict()), WEIGHTS, "the miniworld's Flux")
    model.transformer.load_state_dict(state)
    tables = load_tables(folder / EMBEDDING)
    model.tables.update({name: getattr(tables, name).float() for name in ("task", "index", "words")})
    return model.eval().requires_grad_(False)
