"""A run put into a checkpoint, and a checkpoint put back."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from .loss_log import LossLog
from .optim import optimizer_tensors, restore_optimizer
from .run_dir import Checkpoint


def restore(
    checkpoint: Checkpoint | None,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    loss_log: LossLog,
) -> int:
    """Put a checkpoint back; return the step to resume at."""
    if checkpoint is None:
        return 0
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.lora[name])
    restore_optimizer(optimizer, checkpoint.optimizer)
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(checkpoint.scaler)
    loss_log.restore(checkpoint)
    return checkpoint.step


def checkpoint_of(
    step: int,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    loss_log: LossLog,
) -> Checkpoint:
    """Collect everything a resumed run needs; its draws and rates are functions of the step."""
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
    return Checkpoint(
        step,
        {name: parameter.detach() for name, parameter in parameters.items()},
        optimizer_tensors(optimizer),
        loss_log.history(),
        scaler,
    )
