"""The settings of a relation LoRA for Flux-class models: FLUX.1 with DreamO, Kontext, FLUX.2 Klein and dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat

from ..common.schema import Checked, NeededPath, PathText, Words
from .sdxl import DataConfig, LoraConfig, OutputConfig, SamplesConfig, TrainConfig, name_of, without_harmless


class FluxDataConfig(DataConfig):
    """The triplets, the squares that are cut from them, and the references."""

    reference_px: int = Field(
        512, ge=16, le=4096, description="side of each reference in the sequence, pixels, a multiple of 16"
    )
    columns: FiniteFloat = Field(
        0.0,
        ge=0,
        le=1,
        description="share of targets that are two crops side by side, each with its own words (DreamO's warm-up)",
    )

    def contradictions(self) -> list[tuple[str, str]]:
        return [
            (key, f"expected a multiple of 16 (the VAE's factor and Flux's patches), got {value}.")
            for key, value in (("image_px", self.image_px), ("reference_px", self.reference_px))
            if value % 16
        ]


class FluxModelsConfig(Checked):
    """What is frozen; an empty path means: without."""

    base: NeededPath = Field(description="a diffusers folder, or one file with the transformer's weights")
    parts: PathText = Field(
        "", description="diffusers folder of VAE, text encoders and tokenizers, where the base is one file"
    )
    transformer: PathText = Field(
        "", description="folder with the transformer's config.json; empty: by the shapes in the file"
    )
    dreamo: list[NeededPath] = Field([], description="DreamO's LoRA files, merged into the base and frozen")
    dreamo_strengths: list[FiniteFloat] = Field(
        [], description="one number for each; empty: as published, 1 where nothing was"
    )
    embeddings: PathText = Field("", description="DreamO's embedding.safetensors; empty: references without tables")
    text_tokens: int = Field(
        0, ge=0, le=4096, description="that prompts are padded to; 0: as ComfyUI, 256 on FLUX.1, 512 on FLUX.2"
    )

    def contradictions(self) -> list[tuple[str, str]]:
        if self.dreamo_strengths and len(self.dreamo_strengths) != len(self.dreamo):
            wrong = f"{len(self.dreamo)} files are named in models.dreamo, got {len(self.dreamo_strengths)} strengths."
            return [("dreamo_strengths", wrong)]
        return []


class ReferencesConfig(Checked):
    """How a triplet's references stand in the sequence, in the subjects' order."""

    method: Literal["auto", "uxo", "index", "offset"] = Field(
        "auto", description="their positions, as ComfyUI's reference_latents_method; auto: as the base was trained"
    )
    drop: FiniteFloat = Field(0.05, ge=0, le=1, description="share of pictures that are trained without references")
    text_drop: FiniteFloat = Field(0.05, ge=0, le=1, description="share of pictures that are trained without words")
    named: FiniteFloat = Field(
        0.5, ge=0, le=1, description="share of prompts that name the references: [ref#1] for DreamO, image 1 elsewhere"
    )
    kept: FiniteFloat = Field(1.0, gt=0, le=1, description="share of each picture's reference tokens that is kept")


class FluxLoraConfig(LoraConfig):
    """The LoRA's sizes and places."""

    rank: int = Field(4, ge=1, le=256, description="rank of each pair")
    alpha: FiniteFloat = Field(4.0, ge=1e-6, le=1024, description="the update is scaled by alpha / rank")
    sites: Literal["T", "Tkv", "Tm", "I", "QK", "S", "DS"] = Field(
        "DS",
        description="T: text projections of the double blocks; Tkv: their keys and values; Tm: T with its MLP; I: "
        "picture projections; QK: queries and keys; S: single blocks; DS: all attention",
    )
    tables: bool = Field(False, description="train DreamO's embedding tables too, and write them beside the LoRA")


class FlowConfig(Checked):
    """Flow matching: x_t = (1 - t) x_0 + t e, target e - x_0; t = 1 is noise."""

    density: Literal["uniform", "logit_normal", "shift"] = Field(
        "logit_normal", description="of the times; shift: logit-normal, then moved towards noise"
    )
    mean: FiniteFloat = Field(0.0, ge=-8, le=8, description="of the logit-normal density")
    deviation: FiniteFloat = Field(1.0, ge=1e-3, le=8, description="of the logit-normal density")
    shift: FiniteFloat = Field(
        0.0, ge=0, le=100, description="t s / (1 + (s - 1) t); 0: s by the number of picture tokens, as Flux"
    )
    weighting: Literal["none", "epsilon", "min_snr", "x0"] = Field(
        "none", description="of the velocity's loss: 1, (1 - t)^2, (1 - t)^2 min(SNR, gamma) / SNR, t^2"
    )
    gamma: FiniteFloat = Field(5.0, ge=1e-3, description="of min_snr")
    guidance: FiniteFloat = Field(
        1.0, ge=0, le=100, description="what a guidance-distilled base (Flux.1-dev) is told in training"
    )


class FluxLossConfig(Checked):
    """The training loss beside the velocity's."""

    keypoint_weight: FiniteFloat = Field(
        4e-3, ge=0, description="weight of the keypoint matching loss per latent channel; SDXL's 1e-3 is 4e-3"
    )
    keypoint_min_time: FiniteFloat = Field(0.0, ge=0, le=1, description="cleaner times have no keypoint loss")
    keypoint_max_time: FiniteFloat = Field(
        0.4825, ge=0, le=1, description="noisier times have none; 0.4825 has the SNR of SDXL's timestep 333"
    )
    attention_weight: FiniteFloat = Field(0.0, ge=0, description="weight of the predicate attention loss; 0 is off")
    routing_weight: FiniteFloat = Field(0.0, ge=0, description="weight of DreamO's routing loss; 0 is off, 1 its own")
    placeholder_weight: FiniteFloat = Field(0.0, ge=0, description="weight of DreamO's placeholder loss; 0 is off")

    def contradictions(self) -> list[tuple[str, str]]:
        if self.keypoint_min_time > self.keypoint_max_time:
            return [("keypoint_min_time", f"{self.keypoint_min_time} is above keypoint_max_time.")]
        return []


class MemoryConfig(Checked):
    """How the frozen transformer is kept while training."""

    storage: Literal["precision", "fp8", "nf4"] = Field(
        "precision", description="of its blocks' weights: train.precision, 8 bits, or 4 bits by bitsandbytes"
    )
    stream_blocks: int = Field(
        0, ge=0, le=1000, description="blocks that stay in the computer's memory and come when needed"
    )
    prefetch: bool = Field(True, description="fetch the next of them while one computes (CUDA)")


class StageConfig(Checked):
    """One stage of a training in several: what it changes of the tables above."""

    steps: int = Field(ge=1, le=10_000_000, description="optimiser steps of the stage")
    lr: FiniteFloat | None = Field(None, ge=0, description="learning rate; else train.lr")
    folders: list[NeededPath] = Field([], description="folders of triplets; else data.folder")
    shares: list[FiniteFloat] = Field([], description="share of each folder; else alike")
    columns: FiniteFloat | None = Field(None, ge=0, le=1, description="else data.columns")
    kept: FiniteFloat | None = Field(None, gt=0, le=1, description="else references.kept")
    keypoint_weight: FiniteFloat | None = Field(None, ge=0, description="else loss.keypoint_weight")
    routing_weight: FiniteFloat | None = Field(None, ge=0, description="else loss.routing_weight")
    placeholder_weight: FiniteFloat | None = Field(None, ge=0, description="else loss.placeholder_weight")

    def contradictions(self) -> list[tuple[str, str]]:
        if self.shares and (len(self.shares) != len(self.folders) or min(self.shares) < 0 or not sum(self.shares)):
            return [("shares", f"expected a share of each of {len(self.folders)} folders, got {self.shares}.")]
        return []


class FluxSamplesConfig(SamplesConfig):
    """Sample images during training: the same seeds without and with the LoRA."""

    steps: int = Field(20, ge=1, le=1000, description="Euler steps")
    guidance: FiniteFloat = Field(
        4.0, ge=1, le=1000, description="classifier-free guidance, or what a guidance-distilled base is told"
    )
    negative: str = Field("", description="negative prompt of classifier-free guidance")


class FluxConfig(Checked):
    """One run of ``python -m training.finetune`` on a Flux-class base."""

    architecture: Literal["flux"] = Field(description="flux")
    relation: Words = Field(description='the predicate, e.g. "hugging"')
    data: FluxDataConfig
    models: FluxModelsConfig
    output: OutputConfig
    references: ReferencesConfig = ReferencesConfig()
    lora: FluxLoraConfig = FluxLoraConfig()
    flow: FlowConfig = FlowConfig()
    loss: FluxLossConfig = FluxLossConfig()
    train: TrainConfig = TrainConfig()
    memory: MemoryConfig = MemoryConfig()
    samples: FluxSamplesConfig = FluxSamplesConfig()
    stages: list[StageConfig] = Field([], description="one after another; train.steps is the sum of their steps")

    @property
    def lora_file(self) -> Path:
        """The promised file."""
        return Path(self.output.folder) / f"{self.output.name or name_of(self.relation)}.safetensors"

    def decisive(self) -> dict[str, Any]:
        """Return everything that changes the result; streaming and prefetching do not."""
        return without_harmless(
            self.model_dump(exclude={"output": True, "samples": True, "memory": {"stream_blocks", "prefetch"}})
        )

    @property
    def wants_columns(self) -> bool:
        """Tell whether any stage trains on two crops side by side."""
        return bool(self.data.columns or any(stage.columns for stage in self.stages))

    def folders(self) -> list[str]:
        """List every folder of triplets, `data.folder` first."""
        return list(dict.fromkeys((self.data.folder, *(folder for stage in self.stages for folder in stage.folders))))

    def contradictions(self) -> list[tuple[str, str]]:
        faults, train, memory = [], self.train, self.memory
        total = sum(stage.steps for stage in self.stages)
        if self.stages and total != train.steps:
            faults.append(("train.steps", f"the stages have {total} steps together, got {train.steps}."))
        if self.wants_columns and self.data.image_px % 32:
            wrong = f"expected a multiple of 32 with columns, two halves of whole tokens, got {self.data.image_px}."
            faults.append(("data.image_px", wrong))
        if train.precision == "float16":
            faults.append(("train.precision", 'Flux overflows in float16; use "bfloat16", "float32" or "auto".'))
        if (memory.stream_blocks or memory.storage == "fp8") and not train.gradient_checkpointing:
            what = "memory.stream_blocks" if memory.stream_blocks else "memory.storage"
            faults.append(
                (what, "saves nothing unless blocks are computed twice; set train.gradient_checkpointing = true.")
            )
        if memory.storage == "nf4" and (memory.stream_blocks or self.models.dreamo):
            other = "memory.stream_blocks" if memory.stream_blocks else "models.dreamo"
            faults.append(("memory.storage", f'4-bit weights cannot be changed or moved; use "fp8" with {other}.'))
        if self.lora.tables and not self.models.embeddings:
            faults.append(("lora.tables", "needs models.embeddings, the tables to begin with."))
        return faults
