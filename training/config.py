"""The recipe's settings: frozen dataclasses from TOML, every fault of a file reported at once.

A key's type, range and choices stand beside it. A key without a default is asked for. Paths are relative to the folder
the command is started in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from .common.toml_config import choice, number, read_settings


@dataclass(frozen=True)
class DataConfig:
    """The triplets and how their pictures become squares."""

    folder: str
    image_px: int = number(1024, 64, 4096)  # side of the target as the UNet sees it, a multiple of 8
    fit: str = choice("crop", "pad")  # crop the longer side, or pad the shorter one
    crops: int = number(1, 1, 64)  # crops of every triplet, the first in the middle; each is encoded once
    match_skeletons: bool = True  # order skeletons by the subjects' masks; detectors do not know who is who


@dataclass(frozen=True)
class ModelsConfig:
    """What is frozen; an empty name means: without."""

    base: str
    identity: str = ""
    clip_vision: str = ""
    local_clip_vision: str = ""
    tokenizer: str = ""


@dataclass(frozen=True)
class IdentityConfig:
    """How the identity branch takes part."""

    strength: float = number(0.6, 0, 4)
    local_grid: int = number(4, 1, 64)


@dataclass(frozen=True)
class LoraConfig:
    """What is trained."""

    rank: int = number(4, 1, 256)
    alpha: float = number(4.0, 1e-6, 1024)


@dataclass(frozen=True)
class LossConfig:
    """What it is trained for."""

    prediction: str = choice("base", "epsilon", "v", "flow")
    min_snr_gamma: float = number(0.0, 0)
    keypoint_weight: float = number(1e-3, 0)
    keypoint_form: str = choice("paper", "as_released")
    keypoint_max_timestep: int = number(333, 0, 999)
    attention_weight: float = number(0.0, 0)
    attention_max_cells: int = number(1024, 1)


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    steps: int = number(500, 1)
    batch_size: int = number(8, 1)
    micro_batch: int = number(0, 0)
    lr: float = number(1e-4, 0)
    schedule: str = choice("constant", "linear", "cosine")
    warmup_steps: int = number(0, 0)
    optimizer: str = choice("adamw", "adamw_8bit")
    weight_decay: float = number(0.0, 0)
    max_grad_norm: float = number(1.0, 0)
    precision: str = choice("auto", "float32", "bfloat16", "float16")
    gradient_checkpointing: bool = False
    device: str = choice("auto", "cpu", "cuda", "mps")
    seed: int = number(0, 0, 2**31)


@dataclass(frozen=True)
class SamplesConfig:
    """Pictures on the way: the same seeds without and with the LoRA."""

    every: int = number(100, 0)
    count: int = number(2, 1, 64)
    steps: int = number(30, 1, 1000)
    guidance: float = number(5.0, 1)
    negative: str = "monochrome, lowres, bad anatomy, worst quality, low quality"
    seed: int = number(42, 0, 2**31)


@dataclass(frozen=True)
class OutputConfig:
    """What is written where."""

    folder: str
    name: str = ""
    checkpoint_every: int = number(100, 1)
    cache: str = "out/cache"


@dataclass(frozen=True)
class Config:
    """One run of ``python -m training.finetune``."""

    relation: str
    data: DataConfig
    models: ModelsConfig
    output: OutputConfig
    identity: IdentityConfig = IdentityConfig()
    lora: LoraConfig = LoraConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    samples: SamplesConfig = SamplesConfig()

    @property
    def lora_file(self) -> Path:
        """The promised file."""
        name = self.output.name or "_".join(self.relation.lower().split())
        return Path(self.output.folder) / f"{name}.safetensors"

    def digest(self) -> str:
        """Hash of everything that changes the result: a checkpoint resumes only under the same one."""
        settings = asdict(self)
        for harmless in ("output", "samples"):
            settings.pop(harmless)
        settings["train"].pop("device")
        return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, with ``table.key=value`` from the command line over it.

    Raises:
        Faults: unreadable, unknown, missing, mistyped, out of range or contradictory keys, all of them.
    """
    return read_settings(Config, path, overrides, _contradictions)


def _contradictions(config: Config) -> list[str]:
    """Keys that are right alone and wrong together."""
    faults = []
    if not config.relation.strip():
        faults.append('relation: expected the predicate, e.g. "hugging", got nothing.')
    if config.data.image_px % 8:
        faults.append(f"data.image_px: expected a multiple of 8 (the VAE's factor), got {config.data.image_px}.")
    if config.models.identity and not config.models.clip_vision:
        faults.append("models.clip_vision: the identity model reads photographs through a CLIP vision encoder; name "
                      "one, or leave models.identity empty to train on the plain base.")
    if not config.models.identity:
        faults += [f"models.{key}: has no use without models.identity; name an identity model or leave it empty."
                   for key in ("clip_vision", "local_clip_vision") if getattr(config.models, key)]
    if config.train.micro_batch and config.train.batch_size % config.train.micro_batch:
        faults.append(f"train.micro_batch: batch_size {config.train.batch_size} is not a multiple of "
                      f"{config.train.micro_batch}.")
    if config.train.warmup_steps >= config.train.steps:
        faults.append(f"train.warmup_steps: {config.train.warmup_steps} leaves nothing of {config.train.steps} steps.")
    if config.loss.min_snr_gamma and config.loss.prediction == "flow":
        faults.append("loss.min_snr_gamma: min-SNR weights are for epsilon and v prediction; set it to 0 for flow.")
    return faults
