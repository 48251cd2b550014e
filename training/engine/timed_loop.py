"""The one training loop of the miniworld: bounded in time, resumable exactly, the same on a CPU and on a GPU.

Every draw of step n comes from a generator seeded with (seed, n), so a run stopped and resumed is the run never
stopped. The learning rate is constant after its warm-up and an exponential moving average of the weights is what is
exported: any moment is a good moment to stop, and longer is better.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.checkpoint import read
from core.checkpoint import save as save_tensors
from core.user_files import read_json_object

from ..common.atomic_io import write_text
from ..common.cli import stop_if_asked
from ..common.errors import UserErrors
from ..common.folder_lock import locked
from .muon import Muon

log = logging.getLogger(__name__)

LOG_SECONDS = 30
SHARD_BYTES = 15 * 2**20  # a checkpoint file stays below 16 MiB, so that it travels anywhere


@dataclass(frozen=True)
class TrainerConfig:
    """How a recipe trains.

    Attributes:
        name: of the recipe; its checkpoints are under `<out>/<name>`.
        steps: total number of optimiser steps.
        batch_size: samples per step.
        lr: learning rate after the warm-up.
        warmup_steps: linear warm-up.
        ema_decay: decay of the moving average at the end; early on it is shorter, (1 + n) / (10 + n).
        weight_decay: of matrices, decoupled.
        max_grad_norm: largest gradient norm.
        seed: of every draw.
        save_minutes: between checkpoints.
        adamw_params: parts of names that AdamW trains, see Muon; ("",) is AdamW for everything.
        cooldown: share of `steps` at the end over which the learning rate falls linearly to nothing; 0 for none.
    """

    name: str
    steps: int
    batch_size: int
    lr: float
    warmup_steps: int = 200
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0
    save_minutes: float = 5.0
    adamw_params: tuple[str, ...] = ()
    cooldown: float = 0.0

    def learning_rate(self, step: int) -> float:
        """Return the rate of step `step`, counted from 0: a warm-up, a plateau, and the cool-down if there is one."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        remaining = (self.steps - step) / (self.cooldown * self.steps) if self.cooldown else 1.0
        return self.lr * warm * min(1.0, max(remaining, 0.0))


@dataclass
class State:
    """Where a run is: steps done, samples seen, seconds trained, and the moving average of the weights."""

    step: int
    samples: int
    seconds: float
    average: dict[str, Tensor]


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the owner of step `step`'s randomness, on the CPU."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def fit(
    settings: TrainerConfig,
    model: nn.Module,
    loss: Callable[[int, torch.Generator], dict[str, Tensor]],
    folder: Path,
    device: torch.device,
    minutes: float,
    until: int | None = None,
) -> State:
    """Train until the settings' steps or the minutes are used up, saving now and then.

    Args:
        settings: how it trains.
        model: all that is trained, already on the device; its gradients follow `loss`.
        loss: (step, generator) to named losses; "loss" is minimised, the others are only logged.
        folder: of the checkpoints; an earlier state in it is resumed.
        device: where the model is; on a GPU bfloat16 autocast is used.
        minutes: of this call.
        until: stop at this step of the settings' schedule; at its end by default.
    Returns:
        The final State.
    Raises:
        FolderInUse: another process trains in the folder.
        UserErrors: the checkpoint in the folder cannot be read, or is one of another model.
    """
    with locked(folder):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = Muon(model, settings.lr, settings.weight_decay, adamw_params=settings.adamw_params)
        state = resume(folder, model, optimiser)
        started = saved = time.monotonic()
        before, progress = state.seconds, Progress(settings)
        last = settings.steps if until is None else min(until, settings.steps)
        while state.step < last and time.monotonic() - started < 60 * minutes:
            stop_if_asked()
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate(state.step)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                losses = loss(state.step, step_generator(settings.seed, state.step))
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
            optimiser.step()
            state.step += 1
            state.samples += settings.batch_size
            update_ema(state, model, settings.ema_decay)
            progress.add(losses, state.step)
            state.seconds = before + time.monotonic() - started
            if time.monotonic() - saved > 60 * settings.save_minutes:
                save(folder, state, model, optimiser)
                saved = time.monotonic()
        save(folder, state, model, optimiser)
        return state


class Progress:
    """One log line every half minute: means of the losses since the last one, and samples per second."""

    def __init__(self, settings: TrainerConfig) -> None:
        self.settings = settings
        self._start()

    def _start(self) -> None:
        self.last_shown, self.steps = time.monotonic(), 0
        self.sums: dict[str, Tensor] = {}  # tensors: a GPU is asked for numbers only when a line is shown

    def add(self, losses: dict[str, Tensor], step: int) -> None:
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        waited = time.monotonic() - self.last_shown
        if waited < LOG_SECONDS and step < self.settings.steps:
            return
        means = "  ".join(f"{name} {float(total) / self.steps:.4f}" for name, total in self.sums.items())
        pace = self.steps * self.settings.batch_size / waited
        log.info("%s step %d  %s  %.1f samples/s", self.settings.name, step, means, pace)
        self._start()


def update_ema(state: State, model: nn.Module, decay: float) -> None:
    decay = min(decay, (1 + state.step) / (10 + state.step))
    weights = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    with torch.no_grad():
        torch._foreach_lerp_(list(state.average.values()), [weights[name] for name in state.average], 1 - decay)


def save(folder: Path, state: State, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write weights, average and moments in shards, then point `latest.json` at them, then drop the older ones."""
    tensors = {f"weights.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for index, slot in optimiser.state_dict()["state"].items():
        tensors |= {f"moments.{index}.{name}": torch.as_tensor(value) for name, value in slot.items()}
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for name, value in tensors.items():
        if value.nbytes > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = value.detach().cpu().contiguous()
        room -= value.nbytes
    names = [f"{state.step:07d}-{index:02d}.safetensors" for index in range(len(shards))]
    for file, shard in zip(names, shards):
        save_tensors(folder / file, {name: value.clone() for name, value in shard.items()}, {})
    pointer = {"step": state.step, "samples": state.samples, "seconds": state.seconds, "shards": names}
    write_text(folder / "latest.json", json.dumps(pointer))
    for old in folder.glob("*.safetensors"):
        if old.name not in names:
            old.unlink()


def resume(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> State:
    """Load the latest state of a run into the model and optimiser; a fresh State where there is none."""
    if (latest := _latest(folder)) is None:
        average = {
            name: value.detach().clone() for name, value in model.state_dict().items() if value.is_floating_point()
        }
        return State(0, 0, 0.0, average)
    tensors, pointer = latest
    device = next(model.parameters()).device
    try:
        model.load_state_dict(_part(tensors, "weights."))
    except RuntimeError as error:
        raise UserErrors(
            f"{folder}: its checkpoint is one of another model ({' '.join(str(error).split())[:300]}). "
            "Choose another --out, or delete the folder to begin anew."
        ) from error
    if optimiser is not None:
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, "moments.").items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    average = {name: value.to(device) for name, value in _part(tensors, "average.").items()}
    return State(pointer["step"], pointer["samples"], pointer["seconds"], average)


def load_ema_weights(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """Return the moving average of the latest state, and the pointer's facts (step, seconds).

    Raises:
        FileNotFoundError: nothing trained there yet.
    """
    latest = _latest(folder)
    if latest is None:
        raise FileNotFoundError(f"{folder}: expected a checkpoint, found none; run the recipe of that name first")
    return _part(latest[0], "average."), latest[1]


def _latest(folder: Path) -> tuple[dict[str, Tensor], dict] | None:
    if not (folder / "latest.json").exists():
        return None
    tensors: dict[str, Tensor] = {}
    try:
        pointer = read_json_object(folder / "latest.json")
        for name in pointer["shards"]:
            tensors |= read(folder / name)[0]
        return tensors, pointer
    except (ValueError, KeyError, TypeError) as error:
        raise UserErrors(f"{folder}: its checkpoint is broken ({error}). Delete the folder to begin anew.") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
