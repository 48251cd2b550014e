"""The recipe's settings: one TOML file, every fault of it reported at once.

`sdxl` and `flux` have the tables of either architecture; the key ``architecture`` of the file says which, SDXL where it
says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..common.schema import shown
from ..common.toml_config import ConfigFaults, key_of, read_settings
from .flux import FluxConfig
from .sdxl import (
    HARMLESS,
    Config,
    DataConfig,
    IdentityConfig,
    LoraConfig,
    LossConfig,
    ModelsConfig,
    OutputConfig,
    SamplesConfig,
    TrainConfig,
    across_tables,
    config_text,
)

__all__ = [
    "Config",
    "DataConfig",
    "FluxConfig",
    "HARMLESS",
    "IdentityConfig",
    "LoraConfig",
    "LossConfig",
    "ModelsConfig",
    "OutputConfig",
    "SamplesConfig",
    "TrainConfig",
    "load_config",
]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config | FluxConfig:
    """Read a TOML file, with ``table.key=value`` from the command line over it.

    Raises:
        UserErrors: unreadable, unknown, missing, mistyped, out of range or contradictory keys, all of them.
    """
    text = config_text(path)
    architecture = key_of(text, overrides, "architecture")
    if architecture not in (None, "sdxl", "flux"):  # what else is wrong depends on it
        raise ConfigFaults([f"{path}: architecture: expected sdxl or flux, got {shown(architecture)}."], {}, {})
    kind = FluxConfig if architecture == "flux" else Config
    return read_settings(kind, path, text, overrides, across_tables)
