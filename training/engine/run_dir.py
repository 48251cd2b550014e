"""A run's folder: what is in it, what may be started in it, and its one checkpoint, replaced at once.

checkpoint.safetensors   LoRA, optimiser, loss history, in one file that is replaced at once
history.csv, loss.png    every loss of every step
samples/, samples.png    sample pictures
tensorboard/             the same curves
<relation>.safetensors   the promised file; its presence means: finished
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from core.checkpoint import read, read_metadata, save
from core.user_files import read_json_object

from ..common.atomic_io import check_writable, write_text
from ..common.errors import UserErrors
from ..common.folder_lock import FolderInUse, check_free
from ..common.schema import shown
from ..config import Config, FluxConfig
from ..config.subject import SubjectConfig

_MARGIN = 64 * 1024**2  # bytes that must stay free


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands after ``step`` steps."""

    step: int
    lora: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    history: dict[str, Tensor]
    scaler: dict


class RunDir:
    """The folder of one run.

    Args:
        config: of the run.
        result: the promised file.
    """

    def __init__(self, config: Config | FluxConfig | SubjectConfig, result: Path) -> None:
        self.path = Path(config.output.folder)
        self.result = result
        self.checkpoint_file = self.path / "checkpoint.safetensors"
        self.samples = self.path / "samples"
        self._cache = Path(config.output.cache)
        self._decisive = config.decisive()
        self._made_of = {"config": sha256(json.dumps(self._decisive, sort_keys=True).encode()).hexdigest()}
        self._settings = config.model_dump()

    def expect(self, dataset: str, models: str) -> None:
        """Set the hashes of the triplets and of the model files that a checkpoint must have been made with."""
        self._made_of |= {"dataset": dataset, "models": models}

    def check(self, resume: bool, needed: int) -> None:
        """Check what may be started here.

        Args:
            resume: whether the user gave --resume.
            needed: bytes that the run will write.

        Raises:
            UserErrors: in use by another run; finished already; unfinished without --resume; no space.
        """
        # 1. the folder's state
        try:
            check_free(self.path)
        except FolderInUse as error:
            raise UserErrors(f"output.folder: {error}") from error
        if self.result.exists():
            raise UserErrors(
                f"{self.result} exists: this run is finished, and finished runs are not overwritten. Choose "
                "another output.folder or output.name, or move the file away."
            )
        if self.checkpoint_file.exists() and not resume:
            raise UserErrors(
                f"{self.path} holds an unfinished run. Add --resume to go on with it, or choose another output.folder."
            )
        # 2. permission and space
        faults = []
        for folder in dict.fromkeys((self.path, self._cache)):
            try:
                check_writable(folder)
            except ValueError as error:
                faults.append(str(error))
                continue
            standing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
            free_mib, needed_mib = (size / 1024**2 for size in (shutil.disk_usage(standing).free, needed + _MARGIN))
            if free_mib < needed_mib:
                faults.append(
                    f"{folder}: {free_mib:.0f} MiB free on its disk, {needed_mib:.0f} MiB needed. Free some, or "
                    "choose another output folder."
                )
        if faults:
            raise UserErrors(faults)

    def begin(self) -> None:
        """Clear away what a killed process left half written; write the settings as understood, for people."""
        for leftover in self.path.glob(".*.part*"):
            leftover.unlink()
        write_text(self.path / "settings.json", json.dumps(self._settings, indent=1) + "\n")

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint at once; on any error the one before stays."""
        tensors = {f"lora.{name}": tensor for name, tensor in checkpoint.lora.items()} | checkpoint.optimizer
        tensors |= {f"history.{name}": tensor for name, tensor in checkpoint.history.items()}
        metadata = {
            "kind": "training checkpoint",
            "step": str(checkpoint.step),
            "scaler": json.dumps(checkpoint.scaler),
            **self._made_of,
        }
        save(self.checkpoint_file, tensors, metadata)

    def read_checkpoint(self) -> Checkpoint | None:
        """Read where the run stands, or None at its beginning.

        Raises:
            UserErrors: unreadable, or of a run with other settings, data or models.
        """
        if not self.checkpoint_file.exists():
            return None
        try:
            tensors, metadata = read(self.checkpoint_file)
        except ValueError as error:
            raise UserErrors(str(error)) from error
        words = {
            "config": f"the settings{self._changed_settings()}",
            "dataset": "the triplets",
            "models": "the model files",
        }
        changed = [words[key] for key, value in self._made_of.items() if metadata.get(key) != value]
        if changed:
            raise UserErrors(
                f"{self.checkpoint_file}: {' and '.join(changed)} changed since this run was started, so it "
                "cannot go on to the same result. Put them back, or choose another output.folder."
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        return Checkpoint(
            int(metadata["step"]),
            part("lora."),
            {key: value for key, value in tensors.items() if key.startswith("optimizer.")},
            part("history."),
            json.loads(metadata["scaler"]),
        )

    def _changed_settings(self) -> str:
        """Name, in brackets, what ``settings.json`` has otherwise; nothing where there is none that can be read."""
        try:
            before, now = read_json_object(self.path / "settings.json"), json.loads(json.dumps(self._decisive))
        except ValueError:
            return ""
        changes = []
        for name, table in now.items():
            pairs = table.items() if isinstance(table, dict) else [("", table)]
            for key, value in pairs:
                old = before.get(name)
                old = old.get(key) if key and isinstance(old, dict) else old
                if old != value:
                    changes.append(f"{name}{'.' * bool(key)}{key} was {shown(old)} and is {shown(value)}")
        return f" ({', '.join(changes)})" if changes else ""

    def checkpoint_step(self) -> int | None:
        """Return the step after which the checkpoint was written; None where there is none that can be read."""
        try:
            return int(read_metadata(self.checkpoint_file)["step"]) if self.checkpoint_file.exists() else None
        except (ValueError, KeyError):
            return None

    def write_history(self, history: dict[str, Tensor], rates: list[float]) -> None:
        """Write ``history.csv``: one row per step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *history, "lr"])
        columns = [values.tolist() for values in history.values()]
        for step, row in enumerate(zip(*columns, rates), 1):
            writer.writerow([step, *(f"{value:.8g}" for value in row)])
        write_text(self.path / "history.csv", text.getvalue())
