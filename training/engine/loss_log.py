"""The losses of a run: on the device step by step, on disk with every checkpoint."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from ..common.cli import TrainingAborted
from ..common.sheets import save_picture
from .plots import loss_chart
from .run_dir import Checkpoint
from .run_spec import LoggedRun

_ORDER = ("loss", "denoise", "keypoint", "attention", "routing", "placeholder")


class LossLog:
    """The losses of every step, in the run's folder.

    Args:
        spec: the run.
        again: the command that resumes it.
    """

    def __init__(self, spec: LoggedRun, again: str) -> None:
        self.folder, self.rate_at, self.again = spec.folder, spec.learning_rate, again
        self._losses: dict[str, list[Tensor]] = {}
        self._gathered: dict[str, Tensor] = {}
        self._rates: list[float] = []
        self._written = 0
        self._curves = None

    def log(self, losses: dict[str, Tensor]) -> None:
        """Keep this process's losses of a step where they are; nothing waits for the GPU."""
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss.float())

    def last(self) -> dict[str, float]:
        """Return the newest losses as numbers.

        Raises:
            TrainingAborted: one of them is not a number.
        """
        newest = {name: float(values[-1]) for name, values in self._losses.items()}
        if not all(torch.isfinite(torch.tensor(list(newest.values())))):
            self._diverged()
        return newest

    def sync_losses(self, accelerator: Accelerator) -> None:
        """Log the means over all processes of the steps since the last time."""
        for name, values in self._losses.items():
            fresh = accelerator.reduce(torch.stack(values), "mean").cpu()
            self._gathered[name] = torch.cat((self._gathered.get(name, fresh[:0]), fresh))
        self._losses = {name: [] for name in self._losses}

    def check(self) -> None:
        """Abort before a checkpoint is written if any loss is not a number.

        Raises:
            TrainingAborted: a loss is not a number.
        """
        if not all(bool(torch.isfinite(values).all()) for values in self._gathered.values()):
            self._diverged()

    def _diverged(self) -> None:
        losses = [*self._gathered.get("loss", torch.zeros(0)).tolist(), *map(float, self._losses.get("loss", []))]
        step = next((i for i, loss in enumerate(losses, 1) if not torch.isfinite(torch.tensor(loss))), len(losses))
        raise TrainingAborted(
            f"The loss of step {step} is not a number, so training stopped. {self.resume_hint()} Lower "
            'train.lr, or set train.precision to "bfloat16" or "float32"; then start anew.'
        )

    def history(self) -> dict[str, Tensor]:
        """Return all losses so far, each (steps,)."""
        return self._gathered

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue after a checkpoint."""
        self._gathered = {name: checkpoint.history[name] for name in _ORDER if name in checkpoint.history}
        self._written = checkpoint.step

    def write(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint first, then what people look at."""
        self.folder.write_checkpoint(checkpoint)
        self.show(checkpoint.step)
        self._tensorboard()

    def show(self, steps: int) -> None:
        """Write the table and the chart of the first steps; a resumed run's may have been cut off by a kill."""
        self._rates += [self.rate_at(step) for step in range(len(self._rates), steps)]
        self.folder.write_history(self._gathered, self._rates)
        curves = {name: values.tolist() for name, values in self._gathered.items()}
        save_picture(loss_chart(curves), self.folder.path / "loss.png")

    def _tensorboard(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._curves is None:
            self._curves = SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self._written + 1)
        for name, values in self._gathered.items():
            for step in range(self._written, len(values)):
                self._curves.add_scalar(f"loss/{name}", float(values[step]), step + 1)
        for step in range(self._written, len(self._rates)):
            self._curves.add_scalar("lr", self._rates[step], step + 1)
        self._curves.flush()
        self._written = len(self._rates)

    def resume_hint(self) -> str:
        """Return what is safe, and how to go on."""
        step = self.folder.checkpoint_step()
        if step is None:
            return f"There is no checkpoint yet; begin again with: {self.again}"
        return f"The checkpoint of step {step} is whole; go on with: {self.again}"
