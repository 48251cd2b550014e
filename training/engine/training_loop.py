"""The loop of `training.finetune` and `training.subject`: a global batch an update; pictures, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..common.cli import Progress, stop_if_asked
from .loss_log import LossLog
from .resume import checkpoint_of
from .run_spec import LoggedRun


class SamplePictures(Protocol):
    """What draws a run's sample pictures."""

    def draw(self, step: int) -> object:
        """Draw after `step` steps."""


def run_steps(
    spec: LoggedRun,
    start: int,
    one_step: Callable[[int], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    accelerator: Accelerator,
    loss_log: LossLog,
    samples: SamplePictures | None,
) -> None:
    """Take the steps that are left, with sample pictures and checkpoints.

    Args:
        spec: the run.
        start: steps that a checkpoint holds.
        one_step: updates once and returns this process's mean losses.
        optimizer, parameters: as accelerate prepared them.
        samples: of the main process; None draws nothing.

    Raises:
        TrainingAborted: a loss is not a number.
    """
    config, steps = spec.config, spec.config.train.steps
    if start and accelerator.is_main_process:
        loss_log.show(start)
    progress = Progress(start, steps)
    for step in range(start, steps):
        stop_if_asked()
        rate = spec.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss_log.log(one_step(step))
        done = step + 1
        if accelerator.is_main_process and progress.due(done):
            progress.tell(done, loss_log.last(), rate)
        if samples and (done % config.samples.every == 0 or done == steps):
            samples.draw(done)  # before the checkpoint: a run resumed from it has all pictures up to it
        if done % config.output.checkpoint_every == 0 or done == steps:
            loss_log.sync_losses(accelerator)
            if accelerator.is_main_process:
                loss_log.check()
                loss_log.write(checkpoint_of(done, parameters, optimizer, accelerator, loss_log))


def share_of(batch_size: int, micro_batch: int, accelerator: Accelerator) -> list[slice]:
    """Cut this process's share of a global batch into micro batches."""
    share = batch_size // accelerator.num_processes
    first = share * accelerator.process_index
    return [slice(at, at + micro_batch) for at in range(first, first + share, micro_batch)]


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    micro_batches: Iterable[tuple[Any, ...]],
    count: int,
    accelerator: Accelerator,
    max_grad_norm: float,
) -> dict[str, Tensor]:
    """Update once.

    Args:
        model: returns its losses by name, "loss" the sum to descend.
        micro_batches: the model's arguments for each; made one at a time, so that only one lies on the device.
        count: of micro batches.
        max_grad_norm: 0 clips nothing.

    Returns:
        Mean losses over the micro batches.
    """
    totals: dict[str, Tensor] = {}
    for number, inputs in enumerate(micro_batches, 1):
        with nullcontext() if number == count else accelerator.no_sync(model):
            losses = model(*inputs)
            accelerator.backward(losses["loss"] / count)
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0) + loss.detach() / count
    if max_grad_norm:
        accelerator.clip_grad_norm_(list(parameters.values()), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return totals
