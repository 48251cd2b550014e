"""What Flux needs beside `tiny.model("flux")`: its text encoders, VAE and ControlNet, and all of them as loaders."""

from __future__ import annotations

import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.flux
import torch
from comfy_api.latest import io

from . import tiny
from .detected import unet_config

CONTEXT, POOLED, CHANNELS = tiny.FLUX["context_in_dim"], tiny.FLUX["vec_in_dim"], 16


def clip(seed: int = 2) -> comfy.sd.CLIP:
    """CLIP: CLIP-L and T5 with the stock tokenizers."""
    flux = comfy.text_encoders.flux
    t5 = {"d_model": CONTEXT, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2}
    small = {
        "hidden_size": POOLED,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": POOLED,
        "hidden_act": "quick_gelu",
    }
    target = comfy.supported_models_base.ClipTarget(flux.FluxTokenizer, flux.flux_clip(dtype_t5=torch.float32))
    options = {"t5xxl_model_config": t5, "clip_l_model_config": small, "dtype": torch.float32}
    found = comfy.sd.CLIP(target, model_options=options)
    tiny.fill(found.cond_stage_model, seed)
    return found


def vae(seed: int = 3) -> comfy.sd.VAE:
    """VAE: factor 8, Flux's 16 channels."""
    widths = {
        "double_z": True,
        "z_channels": CHANNELS,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    network = comfy.sd.AutoencoderKL(ddconfig=widths, embed_dim=CHANNELS)
    tiny.fill(network, seed)
    found = comfy.sd.VAE(
        sd=network.state_dict(), config={"params": {"ddconfig": widths, "embed_dim": CHANNELS}}, dtype=torch.float32
    )
    found.latent_channels = CHANNELS
    return found


def controlnet(seed: int = 6) -> comfy.controlnet.ControlNet:
    """CONTROL_NET that reads latents, as InstantX's and Shakker's do."""
    network = comfy.ldm.flux.controlnet.ControlNetFlux(
        latent_input=True,
        control_latent_channels=CHANNELS,
        dtype=torch.float32,
        operations=comfy.ops.manual_cast,
        device=torch.device("cpu"),
        **unet_config(tiny.FLUX),
    )
    return comfy.controlnet.ControlNet(
        tiny.fill(network, seed),
        compression_ratio=1,
        latent_format=comfy.latent_formats.Flux(),
        load_device=comfy.model_management.get_torch_device(),
        extra_conds=["y", "guidance"],
    )


class RelateTestFlux(io.ComfyNode):
    """Stands for UNETLoader, or for all three loaders of Flux."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestFlux",
            category="relate/test",
            inputs=[io.Int.Input("weights_seed", default=1)],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, weights_seed: int) -> io.NodeOutput:
        return io.NodeOutput(tiny.model("flux", weights_seed), clip(), vae())


class RelateTestFluxClip(io.ComfyNode):
    """Stands for DualCLIPLoader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestFluxClip",
            category="relate/test",
            inputs=[io.Int.Input("weights_seed", default=2)],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, weights_seed: int) -> io.NodeOutput:
        return io.NodeOutput(clip(weights_seed))


class RelateTestFluxVae(io.ComfyNode):
    """Stands for VAELoader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestFluxVae",
            category="relate/test",
            inputs=[io.Int.Input("weights_seed", default=3)],
            outputs=[io.Vae.Output()],
        )

    @classmethod
    def execute(cls, weights_seed: int) -> io.NodeOutput:
        return io.NodeOutput(vae(weights_seed))


class RelateTestFluxControlNet(io.ComfyNode):
    """Stands for ControlNetLoader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestFluxControlNet",
            category="relate/test",
            inputs=[io.Int.Input("weights_seed", default=6)],
            outputs=[io.ControlNet.Output()],
        )

    @classmethod
    def execute(cls, weights_seed: int) -> io.NodeOutput:
        return io.NodeOutput(controlnet(weights_seed))
