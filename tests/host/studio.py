"""A short way to say what a graph says: subjects, an identity, a sampled latent; in this process, on the tiny SDXL."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from tests.host.pictures import photograph

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Pack:
    """A node pack as ComfyUI loaded it."""

    name: str  # the module name ComfyUI gave it: its path
    nodes: dict[str, type]
    log: str

    def module(self, path: str) -> ModuleType:
        """`core.scene`, `nodes.host_comfy`, ... of the loaded pack: its classes are the ones its nodes use."""
        return importlib.import_module(f"{self.name}.{path}")

    def run(self, node_id: str, **inputs):
        """Execute a node as ComfyUI does, widgets left out at their defaults; a single output is unpacked."""
        node = self.nodes[node_id]
        given = {**_defaults(node), **inputs}
        prepared = node.PREPARE_CLASS_CLONE({})
        with torch.inference_mode():
            result = getattr(prepared, node.FUNCTION)(**given)
            result = asyncio.run(result) if asyncio.iscoroutine(result) else result
        return result.args[0] if len(result.args) == 1 else result.args


def _defaults(node: type) -> dict:
    """What the widgets of a fresh node hold."""
    values = {}
    for name, (kind, options) in node.INPUT_TYPES().get("required", {}).items():
        choices = kind if isinstance(kind, list) else options.get("options")
        if "default" in options or choices:
            values[name] = options.get("default", choices[0] if choices else None)
    return values


@dataclass(frozen=True)
class Studio:
    """The pack's nodes and ComfyUI's, on one tiny SDXL."""

    pack: Pack
    comfy: ModuleType  # ComfyUI's `nodes`
    base: SimpleNamespace  # model, clip, vae, clip_vision

    def scene(self, *subjects: dict, **common):
        """A chain of Subject nodes; each subject is the node's inputs, with `box` for its four numbers."""
        scene = None
        for subject in subjects:
            inputs = {**common, **subject}
            if "box" in inputs:
                inputs.update(zip(("x0", "y0", "x1", "y1"), inputs.pop("box"), strict=True))
            scene = self.pack.run("RelateSubject", **inputs, **({} if scene is None else {"scene": scene}))
        return scene

    def identity_model(self, file: str = "small_ms_adapter.bin"):
        return self.pack.run("RelateIdentityModelLoader", model_name=file)

    def identity(self, scene, **inputs):
        defaults = {"clip": self.base.clip, "clip_vision": self.base.clip_vision}
        model = inputs.pop("identity_model", None) or self.identity_model()
        return self.pack.run("RelateEncodeIdentity", scene=scene, identity_model=model, **{**defaults, **inputs})

    def apply(self, identity, model=None, **inputs):
        model = self.base.model if model is None else model
        return self.pack.run("RelateApplyIdentity", model=model, identity=identity, **inputs)

    def text(self, prompt: str):
        """CONDITIONING of a prompt."""
        with torch.inference_mode():
            return self.comfy.CLIPTextEncode().encode(self.base.clip, prompt)[0]

    def controlled(self, controlnet, prompt: str):
        """Positive conditioning with a ControlNet at 0.7 over the whole schedule."""
        with torch.inference_mode():
            return self.comfy.ControlNetApplyAdvanced().apply_controlnet(
                self.text(prompt), self.text("blurry"), controlnet, photograph(64, 96), 0.7, 0.0, 1.0
            )[0]

    def sample(self, model=None, positive=None, size=(16, 24), batch: int = 1, seed: int = 1, **sampler) -> Tensor:
        """Latents (batch, 4, *size) of a KSampler: 2 steps, guidance 4, unless told otherwise."""
        settings = {"steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **sampler}
        positive = self.text("a corgi hugging a fox") if positive is None else positive
        with torch.inference_mode():
            return self.comfy.KSampler().sample(
                model=self.base.model if model is None else model,
                seed=seed,
                positive=positive,
                negative=self.text("blurry"),
                latent_image={"samples": torch.zeros(batch, 4, *size)},
                **settings,
            )[0]["samples"]
