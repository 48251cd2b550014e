"""Tiny models of the families that take references natively, each of ComfyUI's own classes, with random weights.

Their text encoders are real `comfy.sd.CLIP`s with the stock tokenizers; only the vision towers are replaced, by one
that makes as many tokens as the true one. A family that this ComfyUI has not is left out of `NAMES`.
"""

from __future__ import annotations

import importlib

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import torch
from comfy_api.latest import io
from torch.nn import functional as F

from . import flux, tiny

TEXT = 32  # width of the text encoders
_FLUX = {
    "out_channels": 16,
    "vec_in_dim": None,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "theta": 2000,
    "guidance_embed": False,
}
_OMNIGEN = {
    "patch_size": 2,
    "in_channels": 16,
    "hidden_size": 64,
    "num_layers": 1,
    "num_refiner_layers": 1,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "axes_dim_rope": (4, 6, 6),
    "axes_lens": (2048, 1664, 1664),
}
_QWEN = {
    "num_layers": 1,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (8, 12, 12),
}
# family: class in supported_models, sizes of its network
NETWORKS = {
    "kontext": ("Flux", {}),  # as tiny.model("flux")
    "longcat": (
        "LongCatImage",
        {
            **_FLUX,
            "image_model": "flux",
            "in_channels": 16,
            "patch_size": 2,
            "qkv_bias": True,
            "context_in_dim": TEXT,
            "axes_dim": [8, 12, 12],
            "txt_ids_dims": [1, 2],
        },
    ),
    "flux2": (
        "Flux2",
        {
            **_FLUX,
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "patch_size": 1,
            "qkv_bias": False,
            "context_in_dim": 3 * TEXT,
            "axes_dim": [8, 8, 8, 8],
            "txt_ids_dims": [3],
            "global_modulation": True,
            "mlp_silu_act": True,
            "ops_bias": False,
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
        },
    ),
    "qwen_edit": ("QwenImage", {**_QWEN, "image_model": "qwen_image", "in_channels": 64, "out_channels": 16}),
    "qwen_edit_2511": (
        "QwenImage",
        {
            **_QWEN,
            "image_model": "qwen_image",
            "in_channels": 64,
            "out_channels": 16,
            "default_ref_method": "index_timestep_zero",
        },
    ),
    "krea2": (
        "Krea2",
        {
            "image_model": "krea2",
            "features": 64,
            "tdim": 32,
            "txtdim": TEXT,
            "heads": 4,
            "kvheads": 2,
            "multiplier": 2,
            "layers": 1,
            "patch": 2,
            "channels": 16,
            "txtlayers": 12,
            "txtheads": 2,
            "txtkvheads": 2,
        },
    ),
    "mage": ("MageFlow", {**_QWEN, "image_model": "mage_flow", "in_channels": 128, "out_channels": 128}),
    "joyimage": (
        "JoyImage",
        {
            "image_model": "joyimage",
            "patch_size": [1, 2, 2],
            "in_channels": 16,
            "hidden_size": 256,
            "num_attention_heads": 2,
            "text_dim": TEXT,
            "num_layers": 1,
            "rope_dim_list": [16, 56, 56],
        },
    ),
    "boogu": (
        "Boogu",
        {**_OMNIGEN, "image_model": "boogu", "num_double_stream_layers": 1, "instruction_feat_dim": TEXT},
    ),
    "omnigen2": ("Omnigen2", {**_OMNIGEN, "image_model": "omnigen2", "text_feat_dim": TEXT}),
    "z_image_omni": (
        "ZImage",
        {
            "image_model": "lumina2",
            "patch_size": 2,
            "in_channels": 16,
            "dim": 256,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 4,
            "n_kv_heads": 4,
            "multiple_of": 16,
            "ffn_dim_multiplier": 2.0,
            "qk_norm": True,
            "cap_feat_dim": TEXT,
            "axes_dims": [16, 24, 24],
            "axes_lens": [4096, 512, 512],
            "rope_theta": 256.0,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
            "siglip_feat_dim": 48,
        },
    ),
}
# of image-to-video, for graphs only; its text comes from the tiny T5
NETWORKS_OF_VIDEO = {
    "wan": (
        "WAN22_T2V",
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "in_dim": 48,
            "out_dim": 48,
            "dim": 48,
            "ffn_dim": 64,
            "freq_dim": 32,
            "text_dim": flux.CONTEXT,
            "num_heads": 2,
            "num_layers": 1,
        },
    )
}
# family: module and tokenizer in comfy.text_encoders, its maker, the language model's name, layers it needs
ENCODERS = {
    "longcat": ("longcat_image", "LongCatImageTokenizer", "te", "qwen25_7b", 1),
    "flux2": ("flux", "KleinTokenizer", "klein_te", "qwen3_4b", 28),
    "qwen_edit": ("qwen_image", "QwenImageTokenizer", "te", "qwen25_7b", 1),
    "qwen_edit_2511": ("qwen_image", "QwenImageTokenizer", "te", "qwen25_7b", 1),
    "krea2": ("krea2", "Krea2Tokenizer", "te", "qwen3vl_4b", 36),
    "mage": ("mage_flow", "MageFlowTokenizer", "te", "qwen3vl_4b", 4),
    "joyimage": ("joyimage", "JoyImageTokenizer", "te", "qwen3vl_8b", 4),
    "boogu": ("boogu", "BooguTokenizer", "te", "qwen3vl_8b", 4),
    "omnigen2": ("omnigen2", "Omnigen2Tokenizer", "te", "qwen25_3b", 1),
    "z_image_omni": ("z_image", "ZImageTokenizer", "te", "qwen3_4b", 3),
}
NAMES = tuple(
    name
    for name, (family, _) in NETWORKS.items()
    if hasattr(comfy.supported_models, family)
    and (name == "kontext" or importlib.util.find_spec(f"comfy.text_encoders.{ENCODERS[name][0]}"))
    and not (name == "qwen_edit_2511" and not hasattr(comfy.supported_models, "Krea2"))
)


def model(name: str, seed: int = 1, **sizes) -> comfy.model_patcher.ModelPatcher:
    """MODEL of a family, with random weights; `sizes` replace some of its network's."""
    if name == "kontext":
        return tiny.model("flux", seed, {**tiny.FLUX, **sizes} if sizes else None)
    family, network = {**NETWORKS, **NETWORKS_OF_VIDEO}[name]
    config = type(family, (getattr(comfy.supported_models, family),), {})({**network, **sizes})
    config.set_inference_dtype(torch.float32, None)
    base = config.get_model({}, device=torch.device("cpu"))
    tiny.fill(base.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(
        base,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def clip(name: str, seed: int = 2) -> comfy.sd.CLIP:
    """CLIP of a family: the stock tokenizer, a language model of width TEXT, a vision tower that is only a mean."""
    if name in ("kontext", "wan"):
        return flux.clip(seed)
    module, tokenizer, maker, part, layers = ENCODERS[name]
    module = importlib.import_module(f"comfy.text_encoders.{module}")
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": TEXT,
        "intermediate_size": 32,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }
    target = comfy.supported_models_base.ClipTarget(getattr(module, tokenizer), getattr(module, maker)())
    with _TinyVision():
        made = comfy.sd.CLIP(target, model_options={f"{part}_model_config": sizes, "dtype": torch.float32})
    tiny.fill(made.cond_stage_model, seed)
    return made


class _TinyVision:
    """While CLIPs are made: ComfyUI's vision towers of 1.3 GB replaced by `MeanVision`."""

    TOWERS = (("qwen_vl", "Qwen2VLVisionTransformer"), ("qwen3vl", "Qwen3VLVisionModel"))

    def __enter__(self) -> None:
        self._before = []
        for name, tower in self.TOWERS:
            if importlib.util.find_spec(f"comfy.text_encoders.{name}"):
                module = importlib.import_module(f"comfy.text_encoders.{name}")
                self._before.append((module, tower, getattr(module, tower)))
                setattr(module, tower, MeanVision)

    def __exit__(self, *_error) -> None:
        for module, tower, before in self._before:
            setattr(module, tower, before)


class MeanVision(torch.nn.Module):
    """Stands for the vision towers of Qwen2.5-VL and Qwen3-VL: a token for each 2 x 2 patches, their mean."""

    def __init__(self, config: dict | None = None, output_hidden_size: int | None = None, **_sizes) -> None:
        super().__init__()
        self.width = output_hidden_size or config["out_hidden_size"]
        self.taps = None if config is None else len(config["deepstack_visual_indexes"])

    def forward(self, patches: torch.Tensor, grid: torch.Tensor):
        tokens = patches.reshape(int(grid[0][1]) * int(grid[0][2]) // 4, -1).mean(1, keepdim=True)
        tokens = tokens.expand(-1, self.width).contiguous()
        return tokens if self.taps is None else (tokens, [torch.zeros_like(tokens) for _ in range(self.taps)])


class PoolingVAE:
    """Stands for a VAE in graphs: a latent is the picture's mean over each cell, in every channel."""

    def __init__(self, channels: int, factor: int, frames: bool) -> None:
        self.latent_channels, self.factor, self.latent_dim = channels, factor, 3 if frames else 2
        self.first_stage_model = self

    def vae_encode_crop_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        for axis in (1, 2):
            size = pixels.shape[axis] // self.factor * self.factor
            pixels = pixels.narrow(axis, pixels.shape[axis] % self.factor // 2, size)
        return pixels[..., :3]

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        cells = F.avg_pool2d(self.vae_encode_crop_pixels(pixels).movedim(-1, 1), self.factor)
        latent = (2 * cells - 1).repeat(1, self.latent_channels // 3 + 1, 1, 1)[:, : self.latent_channels]
        return latent[:, :, None] if self.latent_dim == 3 else latent

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        frames = latent.movedim(2, 1).flatten(0, 1) if latent.ndim == 5 else latent
        cells = frames[:, :3]
        return F.interpolate(cells, scale_factor=self.factor).movedim(1, -1).mul(0.5).add(0.5).clamp(0, 1)


def vae(name: str) -> PoolingVAE:
    """VAE of a family's shape."""
    if name in ("flux2", "mage"):
        return PoolingVAE(128, 16, frames=False)
    if name == "wan":
        return PoolingVAE(48, 16, frames=True)
    return PoolingVAE(16, 8, frames=name in ("qwen_edit", "qwen_edit_2511", "krea2", "joyimage"))


class RelateTestNative(io.ComfyNode):
    """Stands for the three loaders of a family: Load Diffusion Model, Load CLIP and Load VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RelateTestNative",
            category="relate/test",
            inputs=[io.Combo.Input("family", options=[*NAMES, "wan"]), io.Int.Input("part", default=0, min=0, max=2)],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, family: str, part: int) -> io.NodeOutput:
        if part == 2 and family == "qwen_edit_2511":  # its node scales to a megapixel
            return io.NodeOutput(PoolingVAE(16, 64, frames=True))
        return io.NodeOutput((model, clip, vae)[part](family))
