"""All that a run on a Flux-class model needs, looked at before anything is loaded or written, and its plan in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from ...common.errors import UserErrors
from ...common.toml_config import ConfigFaults
from ...config import FluxConfig
from ...data.dataset import dataset_sha256, load_triplets
from ...data.encoded_flux import EncodedFlux
from ...data.triplet import Triplet
from ...host_diffusers.flux.files import FluxBaseFiles, open_flux_base
from ...host_diffusers.flux.lora import site_modules
from ..optim import check_optimizer
from ..run_dir import RunDir
from ..run_spec import or_faults, shared_faults
from .batch import FluxDraw, sample_flux_batch
from .memory import FluxMemory, StepShape, estimate_flux, what_fits
from .stages import all_stages, loss_names, rate_at


@dataclass(frozen=True, eq=False)
class FluxSpec:
    """A validated run.

    Attributes:
        config: as read.
        folders: of each folder of the config its triplets; dataset: their hash.
        base: not loaded yet.
        folder: checked; nothing written yet.
        dtype: that the frozen transformer computes in.
        micro_batch: pictures a process sends through it at once.
    """

    config: FluxConfig
    folders: list[list[Triplet]]
    dataset: str
    base: FluxBaseFiles
    folder: RunDir
    dtype: torch.dtype
    micro_batch: int

    @property
    def triplets(self) -> list[Triplet]:
        return [triplet for folder in self.folders for triplet in folder]

    @property
    def patch(self) -> int:
        """Side of a token in latent cells."""
        return 1 if len(self.base.config["axes_dims_rope"]) == 4 else 2

    def draw(self, step: int, crops: EncodedFlux) -> FluxDraw:
        """Draw the random part of a step."""
        return sample_flux_batch(self.config, step, crops, self.patch)

    def learning_rate(self, step: int) -> float:
        return rate_at(self.config, step)


def flux_precision(config: FluxConfig) -> torch.dtype:
    """Return the config's precision; auto is bfloat16 on a card, float32 elsewhere: Flux overflows in float16."""
    if config.train.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.train.precision]
    on_card = config.train.device in ("auto", "cuda") and torch.cuda.is_available()
    return torch.bfloat16 if on_card else torch.float32


def load_flux_spec(config: FluxConfig, device: torch.device, processes: int, resume: bool) -> FluxSpec:
    """Look at the data, the models, the folder and the machine.

    Raises:
        UserErrors: everything that is wrong with any of them, in one report.
    """
    faults: list[str] = []
    read = [or_faults(partial(_triplets, config, folder), faults) or [] for folder in config.folders()]
    base = or_faults(lambda: open_flux_base(config.models, config.references.method), faults)
    folder = RunDir(config, config.lora_file)
    triplets = [triplet for of_folder in read for triplet in of_folder]
    or_faults(lambda: folder.check(resume, _bytes_to_write(config, triplets, base)), faults)
    share = shared_faults(config.train, device, processes, faults)
    if "keypoint" in loss_names(config) and triplets and not any(t.facts and t.facts.visible_joints for t in triplets):
        faults.append(
            "loss.keypoint_weight: no joint is visible in a target and its concept and inside both squares, so "
            "there is nothing to match. Look at --preview-data SHEET.png, add keypoints, or set it to 0."
        )
    faults += _misfits(config, base, device)
    or_faults(lambda: check_optimizer(config.train), faults)
    dataset = ""
    if triplets and base and not faults:
        dataset = dataset_sha256(triplets)
        folder.expect(dataset, base.fingerprint())
        or_faults(folder.read_checkpoint, faults)
    if faults or base is None:
        raise UserErrors(faults)
    return FluxSpec(config, read, dataset, base, folder, flux_precision(config), config.train.micro_batch or share)


def look_further(config: ConfigFaults) -> UserErrors:
    """Add to the faults of a config those of the triplets and models that its right tables name."""
    faults, relation = list(config.messages), config.settings.get("relation")
    if "data" in config.tables:
        or_faults(lambda: load_triplets(config.tables["data"], relation if isinstance(relation, str) else ""), faults)
    if "models" in config.tables:
        or_faults(lambda: open_flux_base(config.tables["models"]), faults)
    return UserErrors(faults)


def _triplets(config: FluxConfig, folder: str) -> list[Triplet]:
    return load_triplets(config.data.model_copy(update={"folder": folder}), config.relation, config.train.seed)


def _misfits(config: FluxConfig, base: FluxBaseFiles | None, device: torch.device) -> list[str]:
    """List what the settings need of a base or a machine that it does not have."""
    faults = []
    if config.memory.storage == "nf4" and (device.type != "cuda" or find_spec("bitsandbytes") is None):
        lacking = "a CUDA device" if device.type != "cuda" else "the package bitsandbytes (pip install bitsandbytes)"
        faults.append(f'memory.storage: "nf4" needs {lacking}; use "fp8", which needs neither.')
    if config.memory.storage == "nf4" and Path(config.models.base).is_file():
        faults.append('memory.storage: "nf4" reads a diffusers folder, models.base is one file; use "fp8".')
    if base is None:
        return faults
    placeholders = "placeholder" in loss_names(config)
    if placeholders and (base.tables is None or base.tables.words is None):
        faults.append(
            "loss.placeholder_weight: there are no placeholders without DreamO's table of words; name "
            "models.embeddings, or set it to 0."
        )
    elif placeholders and not config.references.named:
        faults.append("loss.placeholder_weight: no prompt names its references; set references.named above 0.")
    return faults


def _bytes_to_write(config: FluxConfig, triplets: list[Triplet], base: FluxBaseFiles | None) -> int:
    """Bound the latents and text of every crop, two checkpoints and the pictures, in round numbers."""
    cells = (config.data.image_px // 8) ** 2 + (config.data.reference_px // 8) ** 2
    subjects = max((len(triplet.names) for triplet in triplets), default=2)
    text = 2 * base.parts.tokens * base.parts.context_width * 4 if base else 2**25
    crops = len(triplets) * config.data.crops * (2 if config.wants_columns else 1)
    rounds = 2 + config.train.steps // config.samples.every if config.samples.every else 0
    pictures = config.data.image_px**2 * 3 * config.samples.count * rounds
    return crops * (cells * 32 * 4 * (subjects + 1) + text) + 60 * 2**20 * config.lora.rank + pictures


def step_shape(spec: FluxSpec) -> StepShape:
    """Describe the step's sizes, from the config and the triplets alone."""
    config, channels = spec.config, spec.base.parts.latent_channels

    def latents(px: int) -> tuple[int, int, int]:
        return (channels, px // 8, px // 8) if spec.patch == 2 else (4 * channels, px // 16, px // 16)

    return StepShape(
        latents(config.data.image_px),
        latents(config.data.reference_px),
        max((len(triplet.names) for triplet in spec.triplets), default=2),
        spec.base.parts.tokens,
        spec.micro_batch,
        config.lora.sites,
        config.lora.rank,
        config.train.gradient_checkpointing,
        config.memory.storage,
        config.memory.stream_blocks,
        config.train.optimizer == "adamw_8bit",
    )


def memory_of(spec: FluxSpec, on_card: bool) -> FluxMemory:
    """Estimate the memory of a training step from the base's shapes alone."""
    return estimate_flux(spec.base.empty(), spec.dtype, step_shape(spec), on_card)


def trainable_parameters(spec: FluxSpec) -> int:
    """Count the numbers that the optimiser owns."""
    empty, config = spec.base.empty(), spec.config
    count = sum(sum(empty.get_submodule(name).weight.shape) for name in site_modules(empty, config.lora.sites))
    tables = spec.base.tables
    return config.lora.rank * count + (
        tables.task.numel() + tables.index.numel() if config.lora.tables and tables else 0
    )


def describe_flux_run(spec: FluxSpec, processes: int) -> str:
    """Say what will be done, in words and numbers.

    Args:
        spec: of the run.
        processes: of it.
    """
    config, base, card = spec.config, spec.base, _room(spec.config.train.device)
    memory = memory_of(spec, card is not None)
    empty = base.empty()
    blocks = len(empty.transformer_blocks) + len(empty.single_transformer_blocks)
    numbers = sum(parameter.numel() for parameter in empty.parameters())
    crops = len(spec.triplets) * config.data.crops
    accumulation = config.train.batch_size // (processes * spec.micro_batch)
    stages = all_stages(config)
    losses = [f"{name} x {'/'.join(f'{stage.weights[name]:g}' for stage in stages)}" for name in loss_names(config)]
    fits = "" if card is None else f"; {what_fits(memory, step_shape(spec), card, spec.dtype.itemsize)}"
    lines = {
        "relation": config.relation,
        "data": f"{len(spec.triplets)} triplets, {crops} crops of {config.data.image_px} px, references of "
        f"{config.data.reference_px} px, sha256 {spec.dataset[:12]}",
        "base": f"{config.models.base} ({base.name}, {numbers:,} parameters, {blocks} blocks, references {base.method}"
        f"{', DreamO x ' + str(len(config.models.dreamo)) if config.models.dreamo else ''})",
        "trained": f"{trainable_parameters(spec):,} parameters (sites {config.lora.sites}, rank {config.lora.rank}), "
        "float32",
        "losses": ", ".join(losses),
        "steps": f"{config.train.steps} of batch {config.train.batch_size} = {processes} processes x {accumulation} "
        f"micro-batches x {spec.micro_batch}" + (f", {len(stages)} stages" if config.stages else ""),
        "precision": f"{str(spec.dtype).removeprefix('torch.')}"
        + (f", blocks stored in {config.memory.storage}" if config.memory.storage != "precision" else "")
        + (f", {config.memory.stream_blocks} of {blocks} blocks streamed" if config.memory.stream_blocks else ""),
        "memory": memory.sentence() + fits,
        "writes": str(spec.folder.result),
    }
    return "\n".join(
        [*(f"{name:10} {text}" for name, text in lines.items()), *(f"warning    {r}" for r in base.remarks)]
    )


def _room(device: str) -> int | None:
    """Return the bytes of the card that will train; None where there is none."""
    trains = device in ("auto", "cuda") and torch.cuda.is_available()
    return torch.cuda.mem_get_info()[1] if trains else None
