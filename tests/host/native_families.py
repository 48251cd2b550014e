"""Every family that takes reference latents, as ComfyUI's own classes in tiny sizes with random weights."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import ModuleType

import torch
from torch import Tensor

TEXT = 7  # tokens of a prompt; Flux.2 pads them to 512


@dataclass(frozen=True)
class Native:
    """One family.

    Attributes:
        config: its class in comfy.supported_models.
        sizes: of its network.
        channels: of its latents.
        width: of its text context.
        video: its latents have a time axis.
        method: reference_latents_method that its users set, if any.
        negative: the negative carries references.
        more: further entries of its conditioning, for so many references.
        step: what latent sides must be a multiple of.
        patch: latent cells on a side of a token.
        frames: of its latents.
        key: of reference latents in its conditioning.
        refined: an attention of its own runs over the text, or text is in no attention with references.
    """

    config: str
    sizes: dict
    channels: int = 16
    width: int = 32
    video: bool = False
    method: str | None = None
    negative: bool = True
    more: Callable[[int], dict] = field(default=lambda count: {})
    step: int = 1
    patch: int = 2
    frames: int = 1
    key: str = "reference_latents"
    refined: bool = False


def _flux(**fields) -> dict:
    return {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": 24,
        "context_in_dim": 32,
        "hidden_size": 64,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 2,
        "axes_dim": [8, 12, 12],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": True,
        "txt_ids_dims": [],
        **fields,
    }


_MIXED = {
    "patch_size": 2, "in_channels": 16, "hidden_size": 64, "num_layers": 2, "num_refiner_layers": 1,
    "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 16, "axes_dim_rope": (4, 6, 6),
    "axes_lens": (2048, 64, 64)}  # fmt: skip


def _omni(count: int) -> dict:
    """A caption before each reference, and what SigLIP saw of each of them: pictures of 32 x 48 pixels."""
    vision = importlib.import_module("comfy.clip_vision").Output()
    vision.image_sizes = [(3, 32, 48)]
    vision.last_hidden_state = draw(1, 6, 24, seed=91)
    captions = [draw(1, 2 + index, 32, seed=70 + index) for index in range(count)]
    return {"reference_latents_text_embeds": captions, "clip_vision_outputs": [vision] * count}


FAMILIES = {
    "flux2": Native("Flux2", _flux(
        image_model="flux2", in_channels=128, out_channels=128, patch_size=1, vec_in_dim=None, axes_dim=[8, 8, 8, 8],
        theta=2000, qkv_bias=False, guidance_embed=False, txt_ids_dims=[3], global_modulation=True, mlp_silu_act=True,
        ops_bias=False, default_ref_method="index", ref_index_scale=10.0), channels=128, patch=1),
    "kontext": Native("Flux", _flux()),
    "longcat": Native("LongCatImage", _flux(vec_in_dim=None, txt_ids_dims=[1, 2]), method="index"),
    "qwen": Native("QwenImage", {
        "image_model": "qwen_image", "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2,
        "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 32,
        "axes_dims_rope": (8, 12, 12)}, video=True, more=lambda count: {"attention_mask": torch.ones(1, TEXT).long()}),
    "krea2": Native("Krea2", {
        "image_model": "krea2", "features": 64, "tdim": 32, "txtdim": 16, "heads": 4, "kvheads": 2, "multiplier": 2,
        "layers": 2, "patch": 2, "channels": 16, "txtlayers": 3, "txtheads": 2, "txtkvheads": 2}, width=48, video=True,
        method="index", refined=True),
    "mage": Native("MageFlow", {
        "image_model": "mage_flow", "in_channels": 128, "out_channels": 128, "num_layers": 2, "attention_head_dim": 32,
        "num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": (8, 12, 12)}, channels=128, patch=1),
    "joyimage": Native("JoyImage", {
        "image_model": "joyimage", "patch_size": [1, 2, 2], "in_channels": 16, "hidden_size": 256,
        "num_attention_heads": 2, "text_dim": 32, "num_layers": 2}, video=True),
    "omnigen2": Native("Omnigen2", {"image_model": "omnigen2", "text_feat_dim": 32, **_MIXED}, negative=False,
                       more=lambda count: {"attention_mask": torch.ones(1, TEXT).long()}, refined=True),
    "boogu": Native("Boogu", {
        "image_model": "boogu", "instruction_feat_dim": 32, "num_double_stream_layers": 1, **_MIXED},
        more=lambda count: {"attention_mask": torch.ones(1, TEXT).long()}, refined=True),
    "zomni": Native("ZImage", {
        "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 256, "n_layers": 2, "n_refiner_layers": 1,
        "n_heads": 4, "n_kv_heads": 4, "multiple_of": 16, "ffn_dim_multiplier": 2.0, "qk_norm": True,
        "cap_feat_dim": 32, "axes_dims": [16, 24, 24], "axes_lens": [64, 64, 64], "rope_theta": 256.0,
        "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 8, "siglip_feat_dim": 24},
        more=_omni, step=2, refined=True),
    "bernini": Native("WAN21_T2V", {
        "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "text_len": 512, "in_dim": 16, "dim": 64,
        "ffn_dim": 64, "freq_dim": 32, "text_dim": 32, "out_dim": 16, "num_heads": 2, "num_layers": 2,
        "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6}, video=True, frames=2,
        key="context_latents", refined=True),
}  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def available() -> list[str]:
    """Families that this ComfyUI has."""
    models = importlib.import_module("comfy.supported_models")
    lacking = () if importlib.util.find_spec("comfy_extras.nodes_bernini") else ("bernini",)
    return [name for name, family in FAMILIES.items() if hasattr(models, family.config) and name not in lacking]


def known_sizes(sizes: dict) -> dict:
    """Sizes that this ComfyUI's Flux knows; the floor's has no dims of text positions to choose."""
    known = {item.name for item in fields(importlib.import_module("comfy.ldm.flux.model").FluxParams)}
    new = {"txt_ids_dims"} - known
    return {name: value for name, value in sizes.items() if name not in new}


class Studio:
    """One tiny MODEL, its conditioning, and ComfyUI's sampler."""

    def __init__(self, name: str, tiny: ModuleType, nodes: ModuleType) -> None:
        self.name, self.family, self.nodes = name, FAMILIES[name], nodes
        kind = getattr(importlib.import_module("comfy.supported_models"), self.family.config)
        self.model = tiny.model_of(kind, known_sizes(self.family.sizes))

    def latent(self, height: int, width: int, seed: int, batch: int = 1) -> Tensor:
        time = (1,) if self.family.video else ()
        return draw(batch, self.family.channels, *time, height, width, seed=seed)

    def empty(self, height: int, width: int, batch: int = 1) -> Tensor:
        """What the sampler starts from; a video's references are pictures."""
        time = (self.family.frames,) if self.family.video else ()
        return torch.zeros(batch, self.family.channels, *time, height, width)

    def text(self, seed: int, *references: Tensor) -> list:
        """CONDITIONING with reference latents."""
        entry = {"pooled_output": draw(1, 24, seed=seed + 50), **self.family.more(len(references))}
        if references:
            entry[self.family.key] = list(references)
            if self.family.method is not None:
                entry["reference_latents_method"] = self.family.method
        return [[draw(1, TEXT, self.family.width, seed=seed), entry]]

    def sample(self, model, positive: list, negative: list, size=(8, 12), batch: int = 1, **settings) -> Tensor:
        """ComfyUI's KSampler."""
        settings = {
            "seed": 1,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "denoise": 1.0,
            **settings,
        }
        latent = self.empty(*size, batch)
        with torch.inference_mode():
            return self.nodes.KSampler().sample(
                model=model, positive=positive, negative=negative, latent_image={"samples": latent}, **settings
            )[0]["samples"]
