"""Everything a run needs, looked at before anything is loaded or written, and the plan in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..common.errors import UserErrors
from ..common.toml_config import ConfigFaults
from ..config import Config, TrainConfig
from ..config.subject import SubjectConfig
from ..data.box_growth import box_guesses
from ..data.dataset import dataset_sha256, load_triplets
from ..data.encoded_triplets import EncodedTriplets
from ..data.triplet import Triplet
from ..diffusion.noise_schedule import NoiseSchedule
from ..host_diffusers import attach_relation, relation_parameters, unet_layout
from ..host_diffusers.errors import ModelFileErrors
from ..host_diffusers.frozen import FrozenModels, open_frozen_models
from .batch import Draw, sample_batch
from .loss_faults import loss_faults
from .memory import MemoryEstimate, estimate
from .optim import check_optimizer, learning_rate_at
from .run_dir import RunDir

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoggedRun(Protocol):
    """What the loop and the `LossLog` need of a run."""

    @property
    def config(self) -> Any: ...
    @property
    def folder(self) -> RunDir: ...
    @property
    def micro_batch(self) -> int: ...

    def learning_rate(self, step: int) -> float: ...


class AnySpec(LoggedRun, Protocol):
    """What every validated run of `training.finetune` has, whatever it trains on."""

    @property
    def triplets(self) -> list[Triplet]: ...
    @property
    def dataset(self) -> str: ...

    def draw(self, step: int, crops: Any) -> Any:
        """Draw the random part of a step."""


@dataclass(frozen=True, eq=False)
class RunSpec:
    """A validated run.

    Attributes:
        config: as read.
        triplets: with skeletons in the subjects' order; dataset: their hash.
        frozen: the models, not loaded yet.
        folder: checked; nothing written yet.
        dtype: of the frozen UNet and the encoders.
        micro_batch: pictures a process sends through the UNet at once.
    """

    config: Config
    triplets: list[Triplet]
    dataset: str
    frozen: FrozenModels
    folder: RunDir
    dtype: torch.dtype
    micro_batch: int

    @property
    def schedule(self) -> NoiseSchedule:
        """The base's noise, with another prediction if the config says so."""
        prediction = self.config.loss.prediction
        base = self.frozen.base.schedule
        return base if prediction == "base" else NoiseSchedule(prediction, base.alphas)

    def draw(self, step: int, crops: EncodedTriplets) -> Draw:
        """Draw the random part of a step."""
        train = self.config.train
        return sample_batch(train.seed, step, train.batch_size, len(crops), tuple(crops.latents.shape[1:]))

    def learning_rate(self, step: int) -> float:
        return learning_rate_at(step, self.config.train)


def load_run_spec(config: Config, device: torch.device, processes: int, resume: bool) -> RunSpec:
    """Look at the data, the models, the folder and the machine.

    Raises:
        UserErrors: everything that is wrong with any of them, in one report.
    """
    # 1. what each part says on its own
    faults: list[str] = []
    triplets = or_faults(lambda: load_triplets(config.data, config.relation, config.train.seed), faults)
    frozen = or_faults(lambda: open_frozen_models(config.models), faults)
    folder = RunDir(config, config.lora_file)
    or_faults(lambda: folder.check(resume, _bytes_to_write(config, triplets or [])), faults)
    share = shared_faults(config.train, device, processes, faults)
    # 2. what does not fit between them
    if config.loss.keypoint_weight and triplets and not any(t.keypoints_target.shape[1] for t in triplets):
        faults.append(
            "loss.keypoint_weight: the triplets have no keypoints; set it to 0 or add keypoints_target and "
            "keypoints_concepts."
        )
    elif config.loss.keypoint_weight and triplets and not any(t.facts.visible_joints for t in triplets):
        faults.append(
            "loss.keypoint_weight: no joint is visible in a target and its concept and inside both squares, "
            "so there is nothing to match. Look at --preview-data SHEET.png, correct the keypoints, or set "
            "it to 0."
        )
    if frozen:
        faults += loss_faults(config.loss, frozen.base, config.data.image_px)
    if config.train.precision == "float16" and device.type != "cuda":
        faults.append('train.precision: "float16" needs a CUDA device; use "float32" or "bfloat16".')
    or_faults(lambda: check_optimizer(config.train), faults)
    # 3. whether a checkpoint is of the same run
    dataset = ""
    if triplets and frozen:
        dataset = dataset_sha256(triplets)
        folder.expect(dataset, frozen.fingerprint())
        or_faults(folder.read_checkpoint, faults)
    if faults:
        raise UserErrors(faults)
    return RunSpec(config, triplets, dataset, frozen, folder, precision_of(config), config.train.micro_batch or share)


def shared_faults(train: TrainConfig, device: torch.device, processes: int, faults: list[str]) -> int:
    """Check the settings against this machine and its processes; return each process's pictures per step."""
    if train.device != "auto" and device.type != train.device:
        faults.append(f'train.device: "{train.device}" is asked for, this machine offers "{device.type}".')
    share, rest = divmod(train.batch_size, processes)
    if rest:
        faults.append(f"train.batch_size: {train.batch_size} is not a multiple of {processes} processes.")
    elif train.micro_batch and share % train.micro_batch:
        faults.append(
            f"train.micro_batch: each of {processes} processes has {share} pictures a step, not a multiple "
            f"of {train.micro_batch}."
        )
    return share


def look_further(config: ConfigFaults) -> UserErrors:
    """Return the faults of a config, and those of the triplets and models that its right tables name."""
    faults, relation = list(config.messages), config.settings.get("relation")
    if "data" in config.tables:
        or_faults(lambda: load_triplets(config.tables["data"], relation if isinstance(relation, str) else ""), faults)
    if "models" in config.tables:
        or_faults(lambda: open_frozen_models(config.tables["models"]), faults)
    return UserErrors(faults)


def or_faults(read: Callable[[], Any], faults: list[str]) -> Any:
    """Return what `read` gives, or None with its faults added."""
    try:
        return read()
    except (UserErrors, ModelFileErrors) as error:
        faults += error.messages
        return None


def precision_of(config: Config | SubjectConfig) -> torch.dtype:
    """Return the config's precision; auto is bfloat16 on cards that have it, float16 on others, else float32."""
    if config.train.precision != "auto":
        return _PRECISIONS[config.train.precision]
    if config.train.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _bytes_to_write(config: Config, triplets: list[Triplet]) -> int:
    """Bound the latents and text of every crop, two checkpoints and pictures, in round numbers."""
    latent = (config.data.image_px // 8) ** 2 * 16 * 4
    subjects = max((len(triplet.names) for triplet in triplets), default=2)
    crops = len(triplets) * config.data.crops * box_guesses(config)
    pictures = config.data.image_px**2 * 3 * config.samples.count
    rounds = 2 + config.train.steps // config.samples.every if config.samples.every else 0
    return crops * (latent * (subjects + 1) + 4 * 2**20) + 200 * 2**20 * config.lora.rank // 4 + rounds * pictures


def memory_of(spec: RunSpec) -> MemoryEstimate:
    """Estimate the memory of a training step from the base's shapes alone."""
    config = spec.config
    return estimate(
        spec.frozen.base.empty_unet(),
        config.data.image_px // 8,
        spec.micro_batch,
        spec.dtype,
        config.lora.rank,
        config.train.gradient_checkpointing,
        config.train.optimizer == "adamw_8bit",
        with_identity=spec.frozen.identity_config is not None,
    )


def trainable_parameters(spec: RunSpec) -> int:
    """Count the numbers that the optimiser owns: 3,143,680 on SDXL at rank 4."""
    unet = spec.frozen.base.empty_unet().requires_grad_(False)
    attach_relation(unet, spec.config.lora.rank, spec.config.lora.alpha, torch.Generator())
    return sum(parameter.numel() for parameter in relation_parameters(unet).values())


def describe_run(spec: RunSpec, processes: int) -> str:
    """Return what will be done, in words and numbers."""
    config, base = spec.config, spec.frozen.base
    layout = unet_layout(base.empty_unet())
    crops = len(spec.triplets) * config.data.crops
    guesses = f", each with {box_guesses(config)} sets of boxes" if box_guesses(config) > 1 else ""
    accumulation = config.train.batch_size // (processes * spec.micro_batch)
    losses = {"denoise": 1.0, "keypoint": config.loss.keypoint_weight, "attention": config.loss.attention_weight}
    memory = memory_of(spec)
    identity = (
        f"{config.models.identity}, strength {config.identity.strength:g}, "
        f"{'with' if config.models.local_clip_vision else 'without'} local tokens"
        if spec.frozen.identity_config
        else "none (relation on the plain base)"
    )
    lines = {
        "relation": config.relation,
        "data": f"{len(spec.triplets)} triplets, {crops} crops of {config.data.image_px} px{guesses}, "
        f"sha256 {spec.dataset[:12]}",
        "base": f"{config.models.base} ({base.name}, {spec.schedule.prediction} prediction, "
        f"{len(layout.sites())} text cross-attentions)",
        "identity": identity,
        "trained": f"{trainable_parameters(spec):,} parameters (rank {config.lora.rank}), float32",
        "losses": ", ".join(f"{name} x {weight:g}" for name, weight in losses.items() if weight),
        "steps": f"{config.train.steps} of batch {config.train.batch_size} = {processes} processes x {accumulation} "
        f"micro-batches x {spec.micro_batch}",
        "precision": str(spec.dtype).removeprefix("torch."),
        "memory": memory.sentence(),
        "writes": str(spec.folder.result),
    }
    return "\n".join(f"{name:10} {text}" for name, text in lines.items())
