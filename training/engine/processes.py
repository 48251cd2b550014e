"""The processes of a run: one, or several that accelerate has started."""

from __future__ import annotations

from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, KwargsHandler

from ..config import TrainConfig

# The others wait while the main process encodes the pictures, or draws samples; torch gives up after 10 minutes
_LONGEST_WAIT = timedelta(days=7)


def open_accelerator(train: TrainConfig, half: bool, *handlers: KwargsHandler) -> Accelerator:
    """Join the processes of a run.

    Args:
        train: its settings.
        half: scale float16's gradients; the other precisions are ours.
        handlers: further ones of accelerate's.
    """
    return Accelerator(
        cpu=train.device == "cpu",
        mixed_precision="fp16" if half else "no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_LONGEST_WAIT), *handlers],
    )
