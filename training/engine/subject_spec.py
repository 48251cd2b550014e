"""Everything a run of ``training.subject`` needs, looked at before anything is loaded or written, and the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.subject.files import SubjectAdapter

from ..common.errors import UserErrors
from ..common.toml_config import ConfigFaults
from ..config.subject import AdapterConfig, SubjectConfig
from ..data.square_crop import SquareCrop
from ..data.subject_cache import rows_of
from ..data.subject_prompts import PromptRow, prompt_rows
from ..data.subject_scenes import SubjectScene, scenes_sha256
from ..data.subject_sources import load_scenes
from ..host_diffusers.fused_text import PromptTokens
from ..host_diffusers.subject import attach, object_arguments, trained_in_base
from ..host_diffusers.subject_base import SubjectModels, open_subject_models
from .loss_faults import map_faults, snr_faults, zero_terminal
from .memory import activation_bytes
from .optim import check_optimizer, learning_rate_at
from .run_dir import RunDir
from .run_spec import or_faults, precision_of, shared_faults
from .subject_adapter import sized_adapter

_GIB = 1024**3


@dataclass(frozen=True, eq=False)
class SubjectRun:
    """A validated run.

    Attributes:
        config: as read.
        rows: every crop of every picture; prompts: of the same; scenes: how many pictures there are.
        dataset: their hash.
        models: not loaded yet.
        folder: checked; nothing written yet.
        dtype: of the frozen parts.
        micro_batch: pictures a process sends through the UNet at once.
    """

    config: SubjectConfig
    rows: Sequence[tuple[SubjectScene, SquareCrop]]
    prompts: Sequence[PromptRow]
    tokens: PromptTokens
    scenes: int
    dataset: str
    models: SubjectModels
    folder: RunDir
    dtype: torch.dtype
    micro_batch: int

    def learning_rate(self, step: int) -> float:
        return learning_rate_at(step, self.config.train)


def load_subject_run(config: SubjectConfig, device: torch.device, processes: int, resume: bool) -> SubjectRun:
    """Look at the data, the models, the folder and the machine.

    Raises:
        UserErrors: everything that is wrong with any of them, in one report.
    """
    # 1. pictures, models, prompts
    faults: list[str] = []
    scenes = or_faults(lambda: load_scenes(config.data, config.adapter, config.train.seed), faults)
    models = or_faults(lambda: open_subject_models(config.models), faults)
    rows = or_faults(lambda: rows_of(scenes, config), faults) or [] if scenes else []
    tokens = or_faults(lambda: _tokens(models, config), faults) if models else None
    prompts = (
        or_faults(lambda: prompt_rows([scene for scene, _ in rows], tokens, config.adapter), faults) if tokens else ()
    )
    if models:
        faults += _base_faults(models, config)
    if tokens and config.samples.every and tokens.placeholder in tokens.ids([config.samples.negative])[0]:
        faults.append(f"samples.negative: it has the placeholder '{config.adapter.placeholder}'. Leave that word out.")
    # 2. the machine and the folder
    trained = trainable_numbers(models, config) if models and not faults else 0
    folder = RunDir(config, config.result_file)
    or_faults(lambda: folder.check(resume, _bytes_to_write(config, len(rows), trained, models)), faults)
    share = shared_faults(config.train, device, processes, faults)
    if config.train.precision == "float16" and device.type != "cuda":
        faults.append('train.precision: "float16" needs a CUDA device; use "float32" or "bfloat16".')
    or_faults(lambda: check_optimizer(config.train), faults)
    # 3. whether a checkpoint is of the same run
    dataset = scenes_sha256(scenes) if scenes else ""
    if scenes and models:
        folder.expect(dataset, models.fingerprint())
        or_faults(folder.read_checkpoint, faults)
    if faults:
        raise UserErrors(faults)
    return SubjectRun(
        config,
        rows,
        prompts,
        tokens,
        len(scenes),
        dataset,
        models,
        folder,
        precision_of(config),
        config.train.micro_batch or share,
    )


def _tokens(models: SubjectModels, config: SubjectConfig) -> PromptTokens:
    try:
        return PromptTokens.of_base(models.base, config.adapter.placeholder)
    except ValueError as error:
        raise UserErrors(str(error)) from error


def look_further_at_subjects(config: ConfigFaults) -> UserErrors:
    """Collect the faults of a config, and of the pictures and models that its right tables name."""
    faults = list(config.messages)
    if "data" in config.tables:
        adapter = config.tables.get("adapter", AdapterConfig())
        or_faults(lambda: load_scenes(config.tables["data"], adapter, 0), faults)
    if "models" in config.tables:
        or_faults(lambda: open_subject_models(config.tables["models"]), faults)
    return UserErrors(faults)


def _base_faults(models: SubjectModels, config: SubjectConfig) -> list[str]:
    schedule = models.base.schedule
    faults = snr_faults(schedule, config.loss.min_snr_gamma)
    if zero_terminal(schedule) and schedule.prediction == "epsilon":
        faults.append("models.base: zero terminal SNR with epsilon prediction says nothing; choose another base.")
    try:
        unet = models.base.empty_unet()
        blocks = sized_adapter(unet, models.base.text_widths, models, config).blocks
        if config.loss.attention_weight:
            faults += map_faults(unet, config.data.image_px, config.loss.attention_max_cells, blocks)
        text = models.base.vocabulary
        if config.adapter.text_encoder == "all" and text != 49408:
            faults.append(
                f"adapter.text_encoder: the base knows {text} tokens, not CLIP's 49408, so its embeddings would fit "
                'no other host; use "layers".'
            )
    except ValueError as error:
        faults.append(f"models.base: {error}")
    return faults


def _meta_unet(models: SubjectModels, config: SubjectConfig):
    """Build the base's UNet with the adapter on the meta device, and the adapter."""
    unet = models.base.empty_unet()
    with torch.device("meta"):
        adapter = SubjectAdapter(sized_adapter(unet, models.base.text_widths, models, config))
    attach(unet, adapter, config.adapter.location)
    return unet, adapter


def trainable_numbers(models: SubjectModels, config: SubjectConfig) -> int:
    """Count the numbers that the optimiser owns without the text encoder: 241,661,792 on SD 2 with CLIP ViT-H."""
    unet, adapter = _meta_unet(models, config)
    settings = config.adapter
    own = sum(
        parameter.numel()
        for name, parameter in adapter.named_parameters()
        if (settings.fused_words if name.startswith("mlp") else settings.adapter)
    )
    return own + sum(parameter.numel() for parameter in trained_in_base(unet, adapter.config).values())


def memory_sentence(run: SubjectRun) -> str:
    """Estimate the memory of a training step from shapes alone; the text encoders' are not in it."""
    config, dtype = run.config, run.dtype
    unet, adapter = _meta_unet(run.models, config)
    weights = sum(parameter.numel() for parameter in unet.parameters()) * dtype.itemsize
    trained = trainable_numbers(run.models, config) * (4 + 4 + (2 if config.train.optimizer == "adamw_8bit" else 8))
    unet.to(dtype).train().requires_grad_(False)
    for parameter in (*adapter.parameters(), *trained_in_base(unet, adapter.config).values()):
        parameter.requires_grad_(True)
    saved = activation_bytes(unet, lambda: _meta_call(unet, adapter, run), config.train.gradient_checkpointing)
    total = (weights + trained + saved) / _GIB
    return (
        f"about {total:.2f} GiB a process for the UNet: {weights / _GIB:.2f} weights, {trained / _GIB:.2f} trained "
        f"with gradients and optimiser, {saved / _GIB:.2f} kept for the backward pass; the text encoder comes to it"
    )


def _meta_call(unet, adapter: SubjectAdapter, run: SubjectRun) -> None:
    config, dtype, rows = run.config, run.dtype, run.micro_batch
    sizes, side, base = adapter.config, run.config.data.image_px // 8, unet.config

    def empty(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=of, device="meta")

    conditions = None
    if base.addition_embed_type == "text_time":
        pooled = base.projection_class_embeddings_input_dim - 6 * base.addition_time_embed_dim
        conditions = {"text_embeds": empty(rows, pooled), "time_ids": empty(rows, 6)}
    objects = object_arguments(
        empty(rows, sizes.max_subjects, sizes.tokens, sizes.image_width),
        empty(rows, sizes.max_subjects, 4),
        empty(rows, sizes.max_subjects, of=torch.bool),
    )
    channels = base.in_channels + int(config.adapter.location)
    unet(
        empty(rows, channels, side, side),
        empty(rows, of=torch.long),
        empty(rows, 77, base.cross_attention_dim),
        added_cond_kwargs=conditions,
        cross_attention_kwargs={"gligen": objects} if config.adapter.adapter else None,
    )


def _bytes_to_write(config: SubjectConfig, rows: int, trained: int, models: SubjectModels | None) -> int:
    """Bound the encoded rows, two checkpoints, the file and the pictures, in round numbers."""
    side, sizes = config.data.image_px, models.sizes if models else None
    subject = config.data.views * (sizes.patches * sizes.width * 2 + sizes.embedding * 4) if sizes else 2**20
    row = (side // 8) ** 2 * 16 * 4 + config.adapter.max_subjects * (subject + side**2 // 8)
    rounds = 2 + config.train.steps // config.samples.every if config.samples.every else 0
    return rows * row + 2 * trained * 12 + trained * 4 + rounds * side**2 * 3 * config.samples.count


def describe_subject_run(run: SubjectRun, processes: int) -> str:
    """Say what will be done, in words and numbers."""
    config, models, adapter = run.config, run.models, run.config.adapter
    blocks = sized_adapter(models.base.empty_unet(), models.base.text_widths, models, config).blocks
    parts = [name for name in ("adapter", "location", "coordinates", "fused_words") if getattr(adapter, name)]
    source = config.data.folder or config.data.coco
    accumulation = config.train.batch_size // (processes * run.micro_batch)
    losses = {"denoise": 1.0, f"attention ({config.loss.attention_form})": config.loss.attention_weight}
    lines = {
        "data": f"{run.scenes} pictures of {source}, {len(run.rows)} crops of {config.data.image_px} px, references "
        f"from the {config.data.references}, sha256 {run.dataset[:12]}",
        "base": f"{config.models.base} ({models.base.name}, {models.base.schedule.prediction} prediction)",
        "vision": f"{config.models.clip_vision} ({models.sizes.patches} patches of {models.sizes.width}, embedding "
        f"{models.sizes.embedding})",
        "adapter": f"{', '.join(parts)}; {len(blocks)} blocks; up to {adapter.max_subjects} subjects as "
        f"'{adapter.placeholder}'",
        "trained": f"{trainable_numbers(models, config):,} parameters, float32; text encoder: {adapter.text_encoder}",
        "losses": ", ".join(f"{name} x {weight:g}" for name, weight in losses.items() if weight),
        "drops": ", ".join(f"{name.replace('_', ' ')} {share:g}" for name, share in config.drop.model_dump().items()),
        "steps": f"{config.train.steps} of batch {config.train.batch_size} = {processes} processes x {accumulation} "
        f"micro-batches x {run.micro_batch}",
        "precision": str(run.dtype).removeprefix("torch."),
        "memory": memory_sentence(run),
        "writes": str(run.folder.result),
    }
    return "\n".join(f"{name:10} {text}" for name, text in lines.items())
