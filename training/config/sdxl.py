"""The settings of a relation LoRA for SDXL, and the tables that every architecture shares.

A key's type, range, unit and meaning stand beside it. A key without a default is required. Paths are relative to the
folder the command is started in; ``~`` is the home folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat

from core.user_files import read_text

from ..common.errors import UserErrors
from ..common.schema import Checked, FileName, NeededPath, PathText, Words, check_file_name, check_path

# Settings that a run may go on with differently: where it runs, how much of a step it computes at once.
HARMLESS = ("device", "micro_batch", "gradient_checkpointing")


class DataConfig(Checked):
    """The triplets and how their images become squares."""

    folder: NeededPath = Field(description="the folder of one relation, with triplets.jsonl or prompts.json")
    image_px: int = Field(
        1024, ge=64, le=4096, description="side of the target as the UNet sees it, pixels, a multiple of 8"
    )
    fit: Literal["crop", "pad"] = Field("crop", description="crop the longer side, or pad the shorter one in black")
    crops: int = Field(
        1, ge=1, le=64, description="crops of every triplet, the first in the middle; each is encoded once"
    )
    match_skeletons: bool = Field(
        True, description="order skeletons by the subjects' masks; detectors do not know who is who"
    )

    def contradictions(self) -> list[tuple[str, str]]:
        if self.image_px % 8:
            return [("image_px", f"expected a multiple of 8 (the VAE's factor), got {self.image_px}.")]
        return []


class ModelsConfig(Checked):
    """What is frozen; an empty path means: without."""

    base: NeededPath = Field(description="an SDXL checkpoint file or a diffusers folder")
    identity: PathText = Field("", description="identity model of this base; empty trains on the plain base")
    clip_vision: PathText = Field("", description="CLIP vision encoder of the image-level tokens, a file or a folder")
    local_clip_vision: PathText = Field(
        "",
        description="CLIPSelf-distilled encoder of the local tokens, a file or a folder; empty: without local tokens",
    )
    tokenizer: PathText = Field("", description="folder of CLIP's tokenizer; empty: the base's own, or ComfyUI's")

    def contradictions(self) -> list[tuple[str, str]]:
        if self.identity:
            missing = (
                "the identity model reads photographs through a CLIP vision encoder; name one, or leave "
                "models.identity empty to train on the plain base."
            )
            return [] if self.clip_vision else [("clip_vision", missing)]
        return [
            (key, "has no use without models.identity; name an identity model or leave it empty.")
            for key in ("clip_vision", "local_clip_vision")
            if getattr(self, key)
        ]


class IdentityConfig(Checked):
    """How the identity branch takes part."""

    strength: FiniteFloat = Field(0.6, ge=0, le=4, description="gamma of the image cross-attention; 0.6 in the paper")
    local_grid: int = Field(4, ge=1, le=64, description="cells a side that the local tokens are pooled to")
    box_growth: FiniteFloat = Field(
        0.0,
        ge=0,
        le=1,
        description="share of a box that a side inside another subject's box may reach on, drawn at random; 0 is off",
    )


class LoraConfig(Checked):
    """The LoRA's sizes."""

    rank: int = Field(4, ge=1, le=256, description="rank of each pair; 4 in the paper")
    alpha: FiniteFloat = Field(4.0, ge=1e-6, le=1024, description="the update is scaled by alpha / rank")


class LossConfig(Checked):
    """The training loss."""

    prediction: Literal["base", "epsilon", "v", "flow"] = Field(
        "base", description="what the UNet predicts; base: as the base was trained"
    )
    min_snr_gamma: FiniteFloat = Field(
        0.0, ge=0, description="weight min(SNR, gamma) / SNR of each noise level; 0 is off, 5 as published"
    )
    keypoint_weight: FiniteFloat = Field(
        1e-3, ge=0, description="weight of the keypoint matching loss; 1e-3 in the paper, 0 is off"
    )
    keypoint_form: Literal["paper", "as_released"] = Field(
        "paper", description="as_released has the released code's error"
    )
    keypoint_max_timestep: int = Field(333, ge=0, le=999, description="noisier timesteps have no keypoint loss")
    attention_weight: FiniteFloat = Field(
        0.0, ge=0, description="weight of the released code's attention loss; 0 is off"
    )
    attention_max_cells: int = Field(
        1024, ge=1, le=2**20, description="cells of the largest attention map that this loss reads"
    )

    def contradictions(self) -> list[tuple[str, str]]:
        if self.min_snr_gamma and self.prediction == "flow":
            return [("min_snr_gamma", "min-SNR weights are for epsilon and v prediction; set it to 0 for flow.")]
        return []


class TrainConfig(Checked):
    """The optimisation."""

    steps: int = Field(500, ge=1, le=10_000_000, description="optimiser steps of the whole run")
    batch_size: int = Field(8, ge=1, le=65536, description="images per step, over all processes")
    micro_batch: int = Field(
        0, ge=0, le=65536, description="images a process sends through the UNet at once; 0: its whole share"
    )
    lr: FiniteFloat = Field(1e-4, ge=0, description="learning rate after the warm-up")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="of the learning rate")
    warmup_steps: int = Field(0, ge=0, description="steps in which the rate rises linearly; fewer than steps")
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", description="adamw_8bit needs bitsandbytes")
    weight_decay: FiniteFloat = Field(0.0, ge=0, description="AdamW's decoupled decay per step, times the rate")
    max_grad_norm: FiniteFloat = Field(1.0, ge=0, description="longer gradients are shortened to it; 0 is off")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the frozen models; the LoRA is float32"
    )
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    seed: int = Field(0, ge=0, le=2**31, description="of the LoRA's first values, the crops, the batches, the noise")

    def contradictions(self) -> list[tuple[str, str]]:
        faults = []
        if self.micro_batch and self.batch_size % self.micro_batch:
            faults.append(("micro_batch", f"batch_size {self.batch_size} is not a multiple of {self.micro_batch}."))
        if self.warmup_steps >= self.steps:
            faults.append(("warmup_steps", f"{self.warmup_steps} leaves nothing of {self.steps} steps."))
        return faults


class SamplesConfig(Checked):
    """Sample images during training: the same seeds without and with the LoRA."""

    every: int = Field(100, ge=0, description="steps between two rounds; 0 draws none")
    count: int = Field(2, ge=1, le=64, description="how many of the first triplets' prompts are drawn")
    steps: int = Field(30, ge=1, le=1000, description="DDIM steps")
    guidance: FiniteFloat = Field(5.0, ge=1, le=1000, description="classifier-free guidance; 1 is none")
    negative: str = Field("monochrome, lowres, bad anatomy, worst quality, low quality", description="negative prompt")
    seed: int = Field(42, ge=0, le=2**31, description="of the first image's noise; the others count on")


class OutputConfig(Checked):
    """What is written where."""

    folder: NeededPath = Field(description="the run's folder: checkpoint, curves, images, the LoRA")
    name: FileName = Field("", description="of the LoRA's file, without .safetensors; empty: the relation's words")
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints")
    cache: NeededPath = Field("out/cache", description="folder of encoded images, by content; may be deleted any time")


class Config(Checked):
    """One run of ``python -m training.finetune``."""

    architecture: Literal["sdxl"] = Field(
        "sdxl", exclude=True, description="of the base: sdxl, or flux, whose settings are in `config.flux`"
    )
    relation: Words = Field(description='the predicate, e.g. "hugging"')
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
        return Path(self.output.folder) / f"{self.output.name or name_of(self.relation)}.safetensors"

    def decisive(self) -> dict[str, Any]:
        """Return everything that changes the result: a checkpoint resumes only under the same."""
        return without_harmless(self.model_dump(exclude={"output", "samples"}))


def config_text(path: str | Path) -> str:
    """Read a config file.

    Raises:
        UserErrors: not the path of a text file.
    """
    try:
        return read_text(check_path(str(path)))
    except ValueError as error:
        raise UserErrors(f"{error} Give the path of a TOML file, e.g. one of training/configs.") from error


def without_harmless(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out the settings that say only where a run computes and how much at once."""
    return {**settings, "train": {key: value for key, value in settings["train"].items() if key not in HARMLESS}}


def across_tables(settings: dict[str, Any]) -> list[str]:
    """Return what is wrong between tables, read from the raw settings, to be said beside all other faults."""
    relation, output = settings.get("relation"), settings.get("output")
    if not isinstance(relation, str) or not isinstance(output, dict) or output.get("name"):
        return []
    try:
        check_file_name(name_of(relation))
    except ValueError as error:
        return [f"relation: it names the LoRA's file unless output.name does: {error} Or set output.name."]
    return []


def name_of(relation: str) -> str:
    """Return the file name of a relation, without its ending."""
    return "_".join(relation.lower().split())
