"""Pipelines of diffusers draw, on this machine: each role by a TOML with a model and its arguments.

model = "black-forest-labs/FLUX.2-klein-4B"     # a folder, or the hub's owner/name
licence = "Apache-2.0"
pictures = "list"                               # several references at once; "one": the first alone
[arguments]
num_inference_steps = 4
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from core.user_files import read_text

from ...common.errors import UserErrors
from ...common.image_files import open_image
from ...common.schema import Checked, Words
from ...common.toml_config import read_settings
from ...host_diffusers.drawing_pipelines import DrawingPipeline, argument_faults, pipeline_class
from .. import licences
from ..request import Request, request_hash
from ..scenes import Scene, text_hash
from .comfyui import OPTIONS, template_file


class PipelineSettings(Checked):
    """A template of this engine."""

    model: Words = Field(description="a folder, or the hub's owner/name")
    licence: str = ""
    pictures: Literal["list", "one"] = "list"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    offload: bool = False
    arguments: dict[str, Any] = Field(default_factory=dict)


class DiffusersEngine:
    """See `request.Engine`.

    Args:
        files: a template for each role; names of shipped ones will do.
        device: of torch; "auto" takes the GPU.
    """

    size = 1024

    def __init__(self, files: Mapping[str, str], device: str) -> None:
        self.files = files
        self.device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.settings: dict[str, PipelineSettings] = {}
        self.hashes: dict[str, str] = {}
        self._open: dict[tuple[str, str], DrawingPipeline] = {}

    def check(self, roles: Mapping[str, int], relation: str, groups: list[tuple[str, ...]]) -> None:
        """See `request.Engine.check`: configs alone; no weights are opened."""
        faults = []
        for role, pictures in roles.items():
            path = template_file(self.files[role], ".toml")
            try:
                text = read_text(path)
                settings = read_settings(PipelineSettings, path, text, (), lambda settings: [])
                if pictures > 1 and settings.pictures == "one":
                    faults.append(f'{path}: pictures = "one", and this recipe brings {pictures}.')
                wrong_arguments = argument_faults(pipeline_class(settings.model), settings.arguments, pictures)
                faults += [f"{path}: {fault}" for fault in wrong_arguments]
                self.settings[role], self.hashes[role] = settings, hashlib.sha256(text.encode()).hexdigest()
            except UserErrors as error:
                faults += error.messages
            except (OSError, ValueError) as error:
                faults.append(f"{OPTIONS[role]}: {error}")
        if faults:
            raise UserErrors(list(dict.fromkeys(faults)))

    @property
    def facts(self) -> dict[str, Any]:
        """See `request.Engine`."""
        settings = [self.settings[role] for role in sorted(self.settings)]
        licence_by_model = {own.model: own.licence or licences.licence_of(own.model)[0] for own in settings}
        hashes = [sha256 for _, sha256 in sorted(self.hashes.items())]
        models = [{"file": model, "licence": licence} for model, licence in licence_by_model.items()]
        return {
            "engine": "diffusers",
            "template_sha256": hashes[0] if len(set(hashes)) == 1 else f"{text_hash(' '.join(hashes)):016x}",
            "models": models,
            "licence": licences.joined_licence(models),
        }

    def key(self, request: Request) -> str:
        """See `request.Engine.key`."""
        return request_hash(request, name="diffusers", template=self.hashes[request.role])

    def draw(self, request: Request) -> bytes:
        """See `request.Engine.draw`; a model is opened when it is first needed, once for all roles that share it."""
        settings = self.settings[request.role]
        if (settings.model, settings.dtype) not in self._open:
            self._open[settings.model, settings.dtype] = DrawingPipeline(
                settings.model, self.device, settings.dtype, settings.offload
            )
        picture = self._open[settings.model, settings.dtype].draw(
            request.prompt,
            request.negative,
            [open_image(path) for path in request.images],
            (request.width, request.height),
            request.seed,
            settings.arguments,
            settings.pictures == "list",
        )
        file = io.BytesIO()
        picture.convert("RGB").save(file, format="PNG")
        return file.getvalue()

    def caption(self, scene: Scene) -> str:
        """See `request.Engine.caption`: the wording's stands."""
        return ""
