"""The settings of ``python -m training.subject``: one TOML file, every fault of it reported at once.

As in `config`: a key's type, range, unit and meaning stand beside it, and a key without a default is required.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat

from ..common.schema import Checked, FileName, NeededPath, PathText, Words
from ..common.toml_config import read_settings
from .sdxl import SamplesConfig, TrainConfig, config_text, without_harmless


class SubjectDataConfig(Checked):
    """The pictures: triplets, or a detection set in COCO's format."""

    folder: PathText = Field("", description="a folder of triplets, with triplets.jsonl or prompts.json")
    coco: PathText = Field("", description="instead of a folder: COCO's instances, a JSON file")
    pictures: PathText = Field("", description="the folder of its pictures; empty: the folder of the JSON")
    captions: PathText = Field("", description="COCO's captions, a JSON file; empty: made of the names")
    references: Literal["concepts", "target"] = Field(
        "target", description="a subject's picture: the triplet's photograph of it, or cut from the target as published"
    )
    views: int = Field(1, ge=1, le=64, description="encoded views of every reference; all but the first are augmented")
    image_px: int = Field(512, ge=64, le=4096, description="side of the target, pixels, a multiple of 8")
    fit: Literal["crop", "pad"] = Field("crop", description="crop the longer side, or pad the shorter one in black")
    crops: int = Field(1, ge=1, le=64, description="crops of every picture; each is encoded once")
    least_area: FiniteFloat = Field(0.08, ge=0, le=1, description="smallest box of a COCO set, share of the picture")
    most_area: FiniteFloat = Field(0.7, ge=0, le=1, description="largest box of a COCO set, share of the picture")
    match_skeletons: bool = Field(False, description="as in finetune; subjects need no keypoints")

    def contradictions(self) -> list[tuple[str, str]]:
        faults = []
        if self.image_px % 8:
            faults.append(("image_px", f"expected a multiple of 8 (the VAE's factor), got {self.image_px}."))
        if bool(self.folder) == bool(self.coco):
            both = "both are given" if self.folder else "neither is given"
            faults.append(("folder", f"{both}; name data.folder for triplets or data.coco for a COCO set."))
        if not self.coco:
            faults += [(key, "has no use without data.coco.") for key in ("pictures", "captions") if getattr(self, key)]
        if self.coco and self.references == "concepts":
            faults.append(("references", 'a COCO set has no photographs of its subjects; use "target".'))
        if self.least_area > self.most_area:
            faults.append(("least_area", f"{self.least_area:g} is more than most_area, {self.most_area:g}."))
        return faults


class SubjectModelsConfig(Checked):
    """What is frozen."""

    base: NeededPath = Field(description="SD 2 or SDXL: a checkpoint file or a diffusers folder")
    clip_vision: NeededPath = Field(description="the image encoder, CLIP ViT-H/14 as published; a file or a folder")
    tokenizer: PathText = Field("", description="folder of CLIP's tokenizer; empty: the base's own, or ComfyUI's")


class AdapterConfig(Checked):
    """What the file will be."""

    max_subjects: int = Field(2, ge=1, le=16, description="subjects in one picture; 2 as published")
    placeholder: Words = Field("sks", description="the word that stands for a subject, one token")
    blocks: Literal["all", "first", "up"] = Field(
        "all",
        description="transformer blocks with an adapter: all, the first of each stack (SDXL), or the up blocks'",
    )
    text_encoder: Literal["frozen", "layers", "all"] = Field(
        "frozen", description="what of the text encoder is trained: nothing, its layers, or its embeddings too"
    )
    adapter: bool = Field(True, description="train the gated adapters; false leaves them shut")
    gate: FiniteFloat = Field(
        0.0,
        ge=0,
        lt=1,
        description="how far trained gates are open at the start, with silent output layers; 0 as published",
    )
    location: bool = Field(True, description="train an input channel for the mask of the boxes")
    coordinates: bool = Field(True, description="put box coordinates into the object tokens")
    locate_single: bool = Field(True, description="also where there is one subject only")
    fused_words: bool = Field(True, description="put each subject's image embedding into the prompt")

    def contradictions(self) -> list[tuple[str, str]]:
        if self.adapter or self.location or self.fused_words:
            return []
        return [("adapter", "false, and so are location and fused_words: no subject would get into the picture.")]


class SubjectLossConfig(Checked):
    """The training loss."""

    attention_weight: FiniteFloat = Field(0.01, ge=0, description="weight of attention control; 0 is off")
    attention_form: Literal["balanced", "l1"] = Field(
        "balanced", description="the released code's form, or the paper's"
    )
    attention_max_cells: int = Field(1024, ge=1, le=2**20, description="cells of the largest map that it reads")
    min_snr_gamma: FiniteFloat = Field(
        0.0, ge=0, description="weight min(SNR, gamma) / SNR of each noise level; 0 is off"
    )


class DropConfig(Checked):
    """Shares of the samples that are trained without something, so that guidance works."""

    text: FiniteFloat = Field(0.05, ge=0, le=1, description="without the text")
    text_and_location: FiniteFloat = Field(0.05, ge=0, le=1, description="without the text and the mask")
    location: FiniteFloat = Field(0.05, ge=0, le=1, description="without the mask")
    everything: FiniteFloat = Field(
        0.05, ge=0, le=1, description="without text, mask and adapters: guidance's third branch; 0 as published"
    )

    def contradictions(self) -> list[tuple[str, str]]:
        total = round(sum(self.model_dump().values()), 9)  # 0.55 + 0.3 + 0.1 + 0.05 is a little above 1 in a computer
        return [("text", f"all shares together are {total:g}; expected at most 1.")] if total > 1 else []


class SubjectTrainConfig(TrainConfig):
    """The optimisation, with the published rate."""

    lr: FiniteFloat = Field(3e-5, ge=0, description="learning rate after the warm-up")


class SubjectSamplesConfig(SamplesConfig):
    """Sample pictures in training, with the published guidance."""

    steps: int = Field(50, ge=1, le=1000, description="DDIM steps")
    guidance: FiniteFloat = Field(7.5, ge=0, le=1000, description="g of the text")
    subject_guidance: FiniteFloat = Field(1.5, ge=0, le=1000, description="g_I of the subjects")
    negative: str = Field("", description="text of the branches without the prompt")


class SubjectOutputConfig(Checked):
    """What is written where."""

    folder: NeededPath = Field(description="the run's folder: checkpoint, curves, images, the adapter")
    name: FileName = Field("subject_adapter", description="of the adapter's file, without .safetensors")
    precision: Literal["float32", "float16"] = Field("float16", description="of the adapter's file")
    checkpoint_every: int = Field(1000, ge=1, description="steps between two checkpoints")
    cache: NeededPath = Field("out/cache", description="folder of encoded images, by content; may be deleted any time")


class SubjectConfig(Checked):
    """One run of ``python -m training.subject``."""

    data: SubjectDataConfig
    models: SubjectModelsConfig
    output: SubjectOutputConfig
    adapter: AdapterConfig = AdapterConfig()
    loss: SubjectLossConfig = SubjectLossConfig()
    drop: DropConfig = DropConfig()
    train: SubjectTrainConfig = SubjectTrainConfig()
    samples: SubjectSamplesConfig = SubjectSamplesConfig()

    @property
    def result_file(self) -> Path:
        """The promised file."""
        return Path(self.output.folder) / f"{self.output.name}.safetensors"

    def decisive(self) -> dict[str, Any]:
        """Return everything that changes the result: a checkpoint resumes only under the same."""
        return without_harmless(self.model_dump(exclude={"output", "samples"}))


def load_subject_config(path: str | Path, overrides: Sequence[str] = ()) -> SubjectConfig:
    """Read a TOML file, with ``table.key=value`` from the command line over it.

    Raises:
        UserErrors: unreadable, unknown, missing, mistyped, out of range or contradictory keys, all of them.
    """
    # no table contradicts another
    return read_settings(SubjectConfig, path, config_text(path), overrides, lambda settings: [])
