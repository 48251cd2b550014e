"""Whatever ends a run, the message says what is safe and what to type to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator

from ..common.cli import TrainingAborted, say
from ..common.errors import UserErrors
from ..common.folder_lock import FolderInUse, locked
from ..host_diffusers.errors import ModelFileErrors
from .loss_log import LossLog


@contextmanager
def going_on_named(loss_log: LossLog, accelerator: Accelerator, folder: Path) -> Iterator[None]:
    """Train with the run's folder locked, and end what began however it ends.

    Args:
        loss_log: knows the last checkpoint and the command that resumes the run.
        accelerator: of this process; the main one holds the folder.
        folder: of the run.

    Raises:
        UserErrors: a model is broken, or the folder is in use.
        TrainingAborted: Ctrl-C; reading or writing failed; out of memory.
    """
    try:
        with locked(folder) if accelerator.is_main_process else nullcontext():
            yield
    except KeyboardInterrupt as error:
        raise TrainingAborted(f"Stopped. {loss_log.resume_hint()}") from error
    except ModelFileErrors as error:
        raise UserErrors(error.messages) from error
    except FolderInUse as error:
        raise UserErrors(f"output.folder: {error}") from error
    except OSError as error:
        raise TrainingAborted(f"Reading or writing failed: {error}. {loss_log.resume_hint()}") from error
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingAborted(
            f"Out of memory: {str(error).splitlines()[0]} Add --set train.gradient_checkpointing=true and "
            f"--set train.micro_batch=1 to this command. {loss_log.resume_hint()}"
        ) from error
    except (UserErrors, TrainingAborted):
        raise
    except Exception:
        say(f"Something unforeseen ended the run; what Python says of it follows. {loss_log.resume_hint()}")
        raise
    finally:
        accelerator.end_training()
