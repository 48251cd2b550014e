"""The optimiser and its rate: pure functions of the step, so that a resumed run needs no memory of its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ..common.errors import UserErrors
from ..config import TrainConfig


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of step 0, 1, ...: a linear warm-up, then constant, or falling to 0 at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.schedule == "linear":
        return config.lr * (1 - done)
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * done)) / 2
    return config.lr


def check_optimizer(config: TrainConfig) -> None:
    """Check that the config's optimiser is installed.

    Raises:
        UserErrors: 8 bits are asked for and bitsandbytes is not installed.
    """
    if config.optimizer == "adamw_8bit":
        try:
            import bitsandbytes.optim  # noqa: F401
        except ImportError as error:
            raise UserErrors(
                'train.optimizer: "adamw_8bit" needs the package bitsandbytes. Install it (pip install '
                'bitsandbytes) or set "adamw"; 3.1 M parameters need 25 MB of state.'
            ) from error


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW with the usual betas, in 32 or 8 bits.

    Raises:
        UserErrors: as `check_optimizer`.
    """
    check_optimizer(config)
    settings = {"lr": config.lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, **settings)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimiser's state as ``optimizer.<parameter>.<name>`` tensors; numbers become float64 scalars."""
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float64)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put a saved state back."""
    state: dict[int, dict] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = int(value) if value.dtype == torch.float64 else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
