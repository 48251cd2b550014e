"""Nodes that stand where a stock loader stands (same outputs, tiny random weights), and tools to observe a run."""

from __future__ import annotations

import hashlib
import logging
import time

import torch
from comfy_api.latest import ComfyExtension, io

from . import tiny
from .flux import RelateTestFlux, RelateTestFluxClip, RelateTestFluxControlNet, RelateTestFluxVae
from .native import RelateTestNative

log = logging.getLogger(__name__)


class RelateTestCheckpoint(io.ComfyNode):
    """Stands for CheckpointLoaderSimple."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestCheckpoint",
            category="relate/test",
            inputs=[
                io.Combo.Input("kind", options=["sdxl", "small", "sd15", "flux"]),
                io.Int.Input("weights_seed", default=1),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, kind: str, weights_seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny.model(kind, weights_seed), tiny.clip(), tiny.vae())


class RelateTestClipVision(io.ComfyNode):
    """Stands for CLIPVisionLoader; `seconds` a picture give a test time to interrupt it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestClipVision",
            category="relate/test",
            inputs=[io.Int.Input("weights_seed", default=4), io.Float.Input("seconds", default=0.0, optional=True)],
            outputs=[io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls, weights_seed: int, seconds: float = 0.0) -> io.NodeOutput:
        def slowly(*_) -> None:
            if seconds:
                log.info("Test: a picture is encoded")
                time.sleep(seconds)

        encoder = tiny.clip_vision(weights_seed)
        encoder.model.vision_model.encoder.layers[0].layer_norm1.register_forward_pre_hook(slowly)
        return io.NodeOutput(encoder)


class RelateTestControlNet(io.ComfyNode):
    """Stands for ControlNetLoader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestControlNet",
            category="relate/test",
            inputs=[io.Int.Input("weights_seed", default=5)],
            outputs=[io.ControlNet.Output()],
        )

    @classmethod
    def execute(cls, weights_seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny.controlnet(seed=weights_seed))


class RelateTestSlowModel(io.ComfyNode):
    """A model whose every step takes `seconds`: time for a test to interrupt it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestSlowModel",
            category="relate/test",
            inputs=[io.Model.Input("model"), io.Float.Input("seconds", default=0.5)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, seconds: float) -> io.NodeOutput:
        def slowly(apply_model, arguments):
            time.sleep(seconds)
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        slow = model.clone()
        slow.set_model_unet_function_wrapper(slowly)
        return io.NodeOutput(slow)


class RelateTestDigest(io.ComfyNode):
    """Shows the SHA-256 of a latent's exact values, for bit-by-bit comparison."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestDigest",
            category="relate/test",
            inputs=[io.Latent.Input("samples")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, samples: dict) -> io.NodeOutput:
        latent = samples["samples"].float().contiguous()
        digest = hashlib.sha256(latent.numpy().tobytes()).hexdigest()
        return io.NodeOutput(ui={"digest": [digest], "finite": [bool(torch.isfinite(latent).all())]})


class RelateTestNumber(io.ComfyNode):
    """A number that is known only when the graph runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestNumber",
            category="relate/test",
            inputs=[io.Float.Input("value")],
            outputs=[io.Float.Output()],
        )

    @classmethod
    def execute(cls, value: float) -> io.NodeOutput:
        return io.NodeOutput(value)


class RelateTestExtension(ComfyExtension):
    """The test pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            RelateTestCheckpoint,
            RelateTestFlux,
            RelateTestFluxClip,
            RelateTestFluxVae,
            RelateTestFluxControlNet,
            RelateTestClipVision,
            RelateTestControlNet,
            RelateTestSlowModel,
            RelateTestDigest,
            RelateTestNumber,
            RelateTestNative,
        ]
