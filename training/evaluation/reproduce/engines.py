"""Engines that draw jobs: a running ComfyUI over its API, or this package's models through diffusers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from ...common.comfyui_client import ComfyUIClient, ComfyUIError
from ...common.errors import UserErrors
from ...common.image_files import open_picture, to_tensor
from ...common.sheets import to_picture
from .graphs import SAVE, files_needed, graph_of
from .jobs import Job
from .manifest import file_hash
from .settings import DrawingSettings


class Engine(Protocol):
    """Draws jobs.

    Attributes:
        facts: kind and versions, for the manifest.
    """

    facts: dict[str, Any]

    def missing_relations(self, files: Sequence[str]) -> list[str]:
        """List the relation files that are missing."""
        ...

    def check(self, jobs: Sequence[Job]) -> None:
        """Check that these jobs can be drawn.

        Raises:
            UserErrors: missing nodes and files, all of them.
        """
        ...

    def weights(self, relation_files: Sequence[str]) -> dict[str, str]:
        """Hash the weight files in use, by name; empty where a file is on another machine."""
        ...

    def draw(self, job: Job) -> Image.Image:
        """Draw one picture.

        Raises:
            ComfyUIError, ValueError: it cannot be drawn.
        """
        ...


class ComfyEngine:
    """A running ComfyUI with this pack.

    Args:
        client: of the server.
        settings: how to draw.

    Raises:
        UserErrors: no answer.
    """

    def __init__(self, client: ComfyUIClient, settings: DrawingSettings) -> None:
        self.client, self.settings = client, settings
        try:
            stats = client.check()
        except ComfyUIError as error:
            raise UserErrors(f"--comfyui: {error}") from error
        # Patch versions of a server may draw differently; so may another torch.
        system = stats.get("system", {})
        self.facts = {
            "kind": "comfy",
            "comfyui": system.get("comfyui_version", "unknown"),
            "torch": system.get("pytorch_version", "unknown"),
        }

    def check(self, jobs: Sequence[Job]) -> None:
        """See `Engine.check`."""
        where = f"the ComfyUI at {self.client.url}"
        graphs = [graph_of(job, self.settings, [""] * len(job.entry.names)) for job in jobs]
        every = {f"{number} {name}": value for number, graph in enumerate(graphs) for name, value in graph.items()}
        try:
            faults = [
                f"{where} has no node {name}. Install this pack there." for name in self.client.missing_nodes(every)
            ]
            if not faults:
                faults = [
                    f"{where} has no {file} for {kind}'s {name}. Put it there, or name another with --set."
                    for kind, name, file in files_needed(self.settings)
                    if file not in self.client.choices(kind, name)
                ]
        except ComfyUIError as error:
            raise UserErrors(f"--comfyui: {error}") from error
        if faults:
            raise UserErrors(faults)

    def missing_relations(self, files: Sequence[str]) -> list[str]:
        """See `Engine.missing_relations`."""
        try:
            offered = self.client.choices("RelateRelationLoader", "lora_name")
        except ComfyUIError as error:
            raise UserErrors(f"--comfyui: {error}") from error
        return [file for file in files if file not in offered]

    def weights(self, relation_files: Sequence[str]) -> dict[str, str]:
        """See `Engine.weights`: the server's files have names only."""
        own = self.settings
        names = (own.checkpoint, own.identity, own.clip_vision, own.local_clip_vision, *relation_files)
        return {name: "" for name in names if name}

    def draw(self, job: Job) -> Image.Image:
        """See `Engine.draw`."""
        photographs = [self.client.upload(path) for path in job.entry.references]
        finished = self.client.run(graph_of(job, self.settings, photographs), [SAVE])
        with Image.open(io.BytesIO(finished.pictures[0])) as picture:
            return picture.convert("RGB")


class DiffusersEngine:
    """This package's own models, on this machine.

    Args:
        settings: how to draw; file names are paths, relation files relative to `relations`.
        relations: folder of relation LoRAs.
        device: torch device.
        dtype: precision of the large models.

    Raises:
        UserErrors: models that are missing or do not fit, all of them.
    """

    def __init__(self, settings: DrawingSettings, relations: Path, device: str, dtype: torch.dtype) -> None:
        from ...config import ModelsConfig
        from ...host_diffusers.frozen import open_frozen_models
        from ...host_diffusers.miniworld.architectures import FOLDER
        from ...host_diffusers.painter import versions

        self.settings, self.relations, self.device, self.dtype = settings, relations, device, dtype
        if settings.world == "miniworld":
            models = ModelsConfig(
                base=str(FOLDER),
                identity=str(FOLDER / "identity.safetensors"),
                clip_vision=str(FOLDER / "clip_vision"),
                local_clip_vision=str(FOLDER / "local_clip_vision"),
            )
        else:
            models = ModelsConfig(
                base=settings.checkpoint,
                identity=settings.identity,
                clip_vision=settings.clip_vision,
                local_clip_vision=settings.local_clip_vision,
            )
        self.frozen = open_frozen_models(models)
        self.facts = {"kind": "diffusers", **versions(), "dtype": str(dtype).removeprefix("torch.")}
        self._painter = None

    def check(self, jobs: Sequence[Job]) -> None:
        """See `Engine.check`: the models were checked when they were opened."""

    def missing_relations(self, files: Sequence[str]) -> list[str]:
        """See `Engine.missing_relations`."""
        return [file for file in files if not (self.relations / file).is_file()]

    def weights(self, relation_files: Sequence[str]) -> dict[str, str]:
        """See `Engine.weights`: the base by its fingerprint, relations by their contents."""
        hashes = {
            name: file_hash(self.relations / name) for name in relation_files if (self.relations / name).is_file()
        }
        return {"base": self.frozen.fingerprint(), **hashes}

    def draw(self, job: Job) -> Image.Image:
        """See `Engine.draw`."""
        if self._painter is None:
            from ...host_diffusers.painter import Painter, PainterSettings

            own = self.settings
            settings = PainterSettings(
                own.width, own.height, own.steps, own.guidance, own.sampler, own.strength, own.local_grid, own.negative
            )
            self._painter = Painter(self.frozen, settings, self.device, self.dtype)
        self._painter.set_relation(self.relations / job.relation_file if job.relation_file else None)
        entry = job.entry
        photographs = [to_tensor(open_picture(path)) for path in entry.references]
        return to_picture(self._painter.draw(entry.prompt, entry.names, photographs, entry.boxes, job.seed))
