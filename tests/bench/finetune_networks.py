"""The networks of the fine-tuning benchmark: SDXL, CLIP and MS-Diffusion in shape, random in weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from core.identity.files import RELEASED
from core.identity.model import IdentityConfig, IdentityModel
from core.identity.resampler import ResamplerConfig
from training.data.encoded_triplets import EncodedTriplets
from training.host_diffusers import IdentityBatch, identity_batch, unet_layout
from training.host_diffusers.checkpoint_configs import SDXL, SDXL_UNET
from training.host_diffusers.images import encode_pictures, image_tokens

SUBJECTS, CROPS, JOINTS = 2, 5, 17


@dataclass(frozen=True, eq=False)
class Sizes:
    """Shapes of all networks of a run."""

    configs: dict
    vision: dict
    identity: IdentityConfig
    pixels: int


FULL = Sizes(
    SDXL,
    {
        "hidden_size": 1664,
        "intermediate_size": 8192,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    RELEASED,
    1024,
)


def small_sizes() -> Sizes:
    """The same architecture, a thousandth of the work."""
    unet = {
        **SDXL_UNET,
        "sample_size": 16,
        "block_out_channels": [32, 64, 128],
        "attention_head_dim": [2, 4, 8],
        "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 96,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64 + 48,
    }
    text = {"num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    configs = {
        "unet": unet,
        "vae": {**SDXL["vae"], "block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
        "clip_l": {**SDXL["clip_l"], **text, "hidden_size": 32, "projection_dim": 32},
        "clip_g": {**SDXL["clip_g"], **text, "hidden_size": 64, "projection_dim": 64},
    }
    with torch.device("meta"):
        layout = unet_layout(UNet2DConditionModel.from_config(unet))
    resampler = ResamplerConfig(64, 2, 16, 64, 4, 48, 96, 128, 32)
    vision = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "patch_size": 14,
        "image_size": 56,
        "projection_dim": 20,
        "hidden_act": "gelu",
    }
    return Sizes(configs, vision, IdentityConfig(resampler, tuple(site.width for site in layout.sites()), 4), 128)


def built(make: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A frozen network with random weights, made where it will be used."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return make().to(dtype).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


class Encoders:
    """The frozen encoders, as in the published loop all resident: from when each is first asked."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        self.sizes, self.device, self.dtype = sizes, device, dtype

    @cached_property
    def vae(self) -> nn.Module:
        return built(lambda: AutoencoderKL.from_config(self.sizes.configs["vae"]), self.device, torch.float32)

    @cached_property
    def clip_l(self) -> nn.Module:
        config = CLIPTextConfig(**self.sizes.configs["clip_l"])
        return built(lambda: CLIPTextModel(config), self.device, self.dtype)

    @cached_property
    def clip_g(self) -> nn.Module:
        config = CLIPTextConfig(**self.sizes.configs["clip_g"])
        return built(lambda: CLIPTextModelWithProjection(config), self.device, self.dtype)

    @cached_property
    def vision(self) -> nn.Module:
        config = CLIPVisionConfig(**self.sizes.vision)
        return built(lambda: CLIPVisionModelWithProjection(config), self.device, self.dtype)

    @cached_property
    def identity(self) -> nn.Module:
        return built(lambda: IdentityModel(self.sizes.identity), self.device, self.dtype)

    @torch.no_grad()
    def encode(self, crops: EncodedTriplets, unet: nn.Module) -> tuple[EncodedTriplets, IdentityBatch]:
        """Every picture of a batch from its pixels and words."""
        batch, ids = len(crops), torch.full((len(crops), 77), 49407, device=self.device)
        pixels = torch.rand(batch * (1 + SUBJECTS), 3, self.sizes.pixels, self.sizes.pixels, device=self.device)
        latents = encode_pictures(self.vae, pixels).to(self.device)
        of_l = self.clip_l(ids, output_hidden_states=True).hidden_states[-2]
        of_g = self.clip_g(ids, output_hidden_states=True)
        phrases = self.clip_l(ids.repeat_interleave(SUBJECTS, 0)).pooler_output
        photographs = torch.rand(batch * SUBJECTS, 3, *[self.sizes.vision["image_size"]] * 2, device=self.device)
        tokens = image_tokens(self.vision, photographs)
        subjects = self.identity.image_proj(tokens, phrases, crops.boxes.flatten(0, 1))
        fresh = replace(
            crops,
            latents=latents[:batch],
            context=torch.cat((of_l, of_g.hidden_states[-2]), -1),
            concept_latents=latents[batch:].unflatten(0, (batch, SUBJECTS)),
            pooled=of_g.text_embeds,
        )
        return fresh, self.project(subjects.unflatten(0, (batch, SUBJECTS)), crops, unet)

    @torch.no_grad()
    def project(self, subjects: Tensor, crops: EncodedTriplets, unet: nn.Module) -> IdentityBatch:
        """Keys and values at every site."""
        batch = identity_batch(
            self.identity.ms_adapter,
            subjects,
            self.identity.dummy_image_tokens[0],
            crops.boxes,
            crops.present.to(subjects),
            tuple(crops.latents.shape[-2:]),
            unet,
        )
        return batch.to(self.device, self.dtype)


def random_crops(sizes: Sizes, device: torch.device) -> EncodedTriplets:
    """CROPS encoded crops of random numbers, on the device."""
    generator = torch.Generator().manual_seed(0)
    side, unet = sizes.pixels // 8, sizes.configs["unet"]

    def normal(*shape: int) -> Tensor:
        return torch.randn((CROPS, *shape), generator=generator).to(device)

    box = torch.tensor([[0.0, 0.2, 0.55, 0.85], [0.55, 0.26, 0.95, 0.9]], device=device).expand(CROPS, -1, -1)
    span = torch.zeros(CROPS, 77, device=device)
    span[:, 4] = 1
    joints = torch.rand((2, CROPS, SUBJECTS, JOINTS, 2), generator=generator).to(device)
    tokens = sizes.identity.resampler
    return EncodedTriplets(
        latents=normal(4, side, side),
        concept_latents=normal(SUBJECTS, 4, side, side),
        context=normal(77, unet["cross_attention_dim"]),
        pooled=normal(sizes.configs["clip_g"]["projection_dim"]),
        time_ids=torch.full((CROPS, 6), float(sizes.pixels), device=device),
        span=span,
        boxes=box,
        present=torch.ones(CROPS, SUBJECTS, device=device),
        identity=normal(SUBJECTS, tokens.tokens, tokens.context_width),
        region=torch.ones(CROPS, side, side, device=device),
        keypoints_target=joints[0],
        keypoints_concepts=joints[1],
        visible=torch.ones(CROPS, SUBJECTS, JOINTS, device=device),
    )
