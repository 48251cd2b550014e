"""A run's folder: what is in it, what may be started in it, and its one checkpoint, whole or not at all.

    checkpoint.safetensors   LoRA, optimiser, loss history, in one file that is replaced at once
    history.csv, loss.png    every loss of every step
    samples/, samples.png    pictures on the way
    tensorboard/             the same curves
    <relation>.safetensors   the promised file; its presence means: finished
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from core.checkpoint import read, save

from ..common.atomic_io import write_text
from ..common.errors import Faults
from ..config import Config

_MARGIN = 64 * 1024**2  # bytes that must stay free


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands after ``step`` steps."""

    step: int
    lora: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    history: dict[str, Tensor]
    scaler: dict


class RunFolder:
    """The folder of one run."""

    def __init__(self, config: Config, dataset: str, models: str) -> None:
        self.path = Path(config.output.folder)
        self.result = config.lora_file
        self.checkpoint_file = self.path / "checkpoint.safetensors"
        self.samples = self.path / "samples"
        self._made_of = {"config": config.digest(), "dataset": dataset, "models": models}
        self._settings = asdict(config)

    def check(self, resume: bool, needed: int) -> None:
        """What may be started here.

        Args:
            resume: whether the user asked to go on.
            needed: bytes that the run will write.

        Raises:
            Faults: finished already; unfinished and not asked to resume; resumed with other settings; no space.
        """
        if self.result.exists():
            raise Faults(f"{self.result} exists: this run is finished, and finished runs are not overwritten. Choose "
                         "another output.folder or output.name, or move the file away.")
        if self.checkpoint_file.exists() and not resume:
            raise Faults(f"{self.path} holds an unfinished run. Add --resume to go on with it, or choose another "
                         "output.folder.")
        faults = []
        for folder in {self.path, Path(self._settings["output"]["cache"])}:
            standing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
            if not os.access(standing, os.W_OK):
                faults.append(f"{folder}: cannot be written to; choose another output folder.")
            elif shutil.disk_usage(standing).free < needed + _MARGIN:
                free, wanted = (amount / 1024**2 for amount in (shutil.disk_usage(standing).free, needed + _MARGIN))
                faults.append(f"{folder}: {free:.0f} MiB free on its disk, {wanted:.0f} MiB needed. Free some, or "
                              "choose another output folder.")
        if faults:
            raise Faults(faults)
        if self.checkpoint_file.exists():
            self.read_checkpoint()

    def begin(self) -> None:
        """Clear away what a killed process left half written; write the settings as understood, for people."""
        for leftover in self.path.glob(".*.part*"):
            leftover.unlink()
        write_text(self.path / "settings.json", json.dumps(self._settings, indent=1) + "\n")

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint at once; on any error the one before stays."""
        tensors = {f"lora.{name}": tensor for name, tensor in checkpoint.lora.items()} | checkpoint.optimizer
        tensors |= {f"history.{name}": tensor for name, tensor in checkpoint.history.items()}
        metadata = {"kind": "training checkpoint", "step": str(checkpoint.step),
                    "scaler": json.dumps(checkpoint.scaler), **self._made_of}
        save(self.checkpoint_file, tensors, metadata)

    def read_checkpoint(self) -> Checkpoint | None:
        """Where the run stands, or None at its beginning.

        Raises:
            Faults: unreadable, or of a run with other settings, data or models.
        """
        if not self.checkpoint_file.exists():
            return None
        try:
            tensors, metadata = read(self.checkpoint_file)
        except ValueError as error:
            raise Faults(str(error)) from error
        words = {"config": "the settings", "dataset": "the triplets", "models": "the model files"}
        changed = [words[key] for key, value in self._made_of.items() if metadata.get(key) != value]
        if changed:
            raise Faults(f"{self.checkpoint_file}: {' and '.join(changed)} changed since this run was started, so it "
                         "cannot go on to the same result. Put them back, or choose another output.folder.")

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        return Checkpoint(int(metadata["step"]), part("lora."),
                          {key: value for key, value in tensors.items() if key.startswith("optimizer.")},
                          part("history."), json.loads(metadata["scaler"]))

    def write_history(self, history: dict[str, Tensor], rates: list[float]) -> None:
        """``history.csv``: one row a step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *history, "lr"])
        columns = [values.tolist() for values in history.values()]
        for step, row in enumerate(zip(*columns, rates), 1):
            writer.writerow([step, *(f"{value:.8g}" for value in row)])
        write_text(self.path / "history.csv", text.getvalue())
