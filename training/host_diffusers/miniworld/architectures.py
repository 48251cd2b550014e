"""The miniworld's sizes, and its models built as diffusers' and transformers' own classes.

Only architectures are here; what they learn is in the recipes. ComfyUI builds the same networks from the same numbers.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from core.identity.model import IdentityConfig, IdentityModel
from core.identity.resampler import ResamplerConfig

from ..unet import unet_layout

SPACE_TO_DEPTH = 4  # pixels a side folded into channels in front of the autoencoder, which halves the side once more
LATENT_SIDE = 16
CHANNELS = 16  # of the latents; a linear code gains 2 to 3 dB with each doubling
AUTOENCODER = {
    "in_channels": 3 * SPACE_TO_DEPTH**2,
    "out_channels": 3 * SPACE_TO_DEPTH**2,
    "latent_channels": CHANNELS,
    "block_out_channels": [64, 96],
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "scaling_factor": 1.0,  # the export folds the measured scale into the convolutions
}
VOCABULARY = 49408
TEXT_LENGTH = 77
_TEXT = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": TEXT_LENGTH,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "num_hidden_layers": 4,
}
TEXT_L = {
    **_TEXT,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 2,
    "projection_dim": 64,
    "pad_token_id": 1,
}
TEXT_G = {
    **_TEXT,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "projection_dim": 128,
    "pad_token_id": 1,
    "hidden_act": "gelu",
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
    "projection_dim": 128,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
FOLDER = Path(__file__).resolve().parents[3] / "models" / "miniworld"
UNET = {
    "sample_size": LATENT_SIDE,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "block_out_channels": [96, 160],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "transformer_layers_per_block": [1, 1],
    "attention_head_dim": [3, 5],
    "cross_attention_dim": TEXT_L["hidden_size"] + TEXT_G["hidden_size"],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": TEXT_G["projection_dim"] + 6 * 256,
    "norm_num_groups": 32,
}
IDENTITY = ResamplerConfig(
    width=128,
    depth=2,
    head_width=32,
    attention_width=128,
    tokens=16,
    image_width=VISION["hidden_size"],
    context_width=UNET["cross_attention_dim"],
    feedforward_width=256,
    phrase_width=TEXT_L["hidden_size"],
)
BACKGROUND_TOKENS = 4


def build_autoencoder(channels: int = CHANNELS) -> nn.Module:
    """Build a stock KL autoencoder: (B, 48, h, w) blocks of 4 x 4 pixels to `channels` latents on (h/2, w/2)."""
    return AutoencoderKL(**{**AUTOENCODER, "latent_channels": channels})


def build_text_l(vocabulary: int = VOCABULARY) -> nn.Module:
    """Return the counterpart of SDXL's CLIP-L: no projection; `vocabulary` rows of embeddings."""
    return CLIPTextModel(_text_config(TEXT_L, vocabulary))


def build_text_g(vocabulary: int = VOCABULARY) -> nn.Module:
    """Return the counterpart of SDXL's CLIP-G: its projected pooled embedding conditions the UNet."""
    return CLIPTextModelWithProjection(_text_config(TEXT_G, vocabulary))


def _text_config(config: dict, vocabulary: int) -> CLIPTextConfig:
    """Stock numbering, or the compact one of `Words`, which ends in start, end, unknown."""
    if vocabulary == VOCABULARY:
        return CLIPTextConfig(**config)
    return CLIPTextConfig(
        **{**config, "vocab_size": vocabulary, "bos_token_id": vocabulary - 3, "eos_token_id": vocabulary - 2}
    )


def build_vision() -> nn.Module:
    """Return the vision tower, in the layout of transformers' CLIPVisionModelWithProjection."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))


def build_unet(channels: int = CHANNELS) -> nn.Module:
    """SDXL's UNet in small: two levels, each with cross-attention, text-and-time conditioning."""
    return UNet2DConditionModel(**{**UNET, "in_channels": channels, "out_channels": channels})


def build_identity() -> IdentityModel:
    """Return the identity model that fits `build_unet`."""
    return IdentityModel(
        IdentityConfig(IDENTITY, tuple(site.width for site in unet_layout(build_unet()).sites()), BACKGROUND_TOKENS)
    )


class Words:
    """Captions to token ids of the reduced, renumbered tokenizer in `models/miniworld/tokenizer`.

    Ids count only the words' own tokens, in the order of their stock ids (`stock_ids`); one more row of the text
    encoders' embeddings stands for every other token. So the folder loads as any diffusers folder, and
    `expand_rows` gives the stock table to hosts that keep the stock tokenizer.
    """

    def __init__(self, folder: Path = FOLDER / "tokenizer") -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(str(folder))
        self.stock_ids: list[int] = json.loads((folder / "stock_ids.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.stock_ids) + 1

    @property
    def end(self) -> int:
        return self.tokenizer.eos_token_id

    def ids(self, prompts: list[str], pad: int, length: int = TEXT_LENGTH) -> Tensor:
        """Tokenise to (B, length) ids; `pad` is `end` for L and 0 for G, as SDXL pads."""
        rows = []
        for prompt in prompts:
            ids = self.tokenizer(prompt, truncation=True, max_length=length)["input_ids"]
            rows.append(ids + [pad] * (length - len(ids)))
        return torch.tensor(rows)

    def expand_rows(self, compact: Tensor) -> Tensor:
        """Expand (len(self), W) trained embedding rows to the stock (49408, W): unknown tokens share the last row."""
        rows = compact[-1:].expand(VOCABULARY, -1).clone()
        rows[torch.tensor(self.stock_ids)] = compact[:-1]
        return rows
