"""A whole recipe, small enough for a test: an SDXL with random weights, and triplets drawn by code in both layouts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from core.checkpoint import save
from core.identity.model import IdentityConfig, IdentityModel
from core.identity.resampler import ResamplerConfig
from tests.unit.synthetic_triplets import write_authors
from training.host_diffusers import unet_layout

WIDTH_L, WIDTH_G, VISION = 24, 40, 48
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer without merges: one token a letter; "!" is id 0 as there."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = [
        "!",
        *LETTERS,
        *(f"{letter}</w>" for letter in LETTERS),
        ".</w>",
        ",</w>",
        "-</w>",
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": 77,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )


def _text_config(width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=59,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=width,
        max_position_embeddings=77,
        bos_token_id=56,
        eos_token_id=57,
        pad_token_id=57,
        hidden_act=activation,
    )


TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "cross_attention_dim": WIDTH_L + WIDTH_G,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": WIDTH_G + 6 * 8,
}


def tiny_config(unet: dict) -> dict:
    """The same blocks at the same places, narrow: 32 channels more on each level, text of this file's encoders."""
    widths = [32 * level for level in range(1, len(unet["block_out_channels"]) + 1)]
    shared = ("sample_size", "norm_num_groups", "cross_attention_dim", "addition_time_embed_dim")
    narrow = {key: TINY_UNET[key] for key in (*shared, "projection_class_embeddings_input_dim")}
    return {**unet, **narrow, "block_out_channels": widths, "attention_head_dim": [width // 16 for width in widths]}


def write_base(folder: Path, sizes: dict = TINY_UNET) -> UNet2DConditionModel:
    """A diffusers folder of SDXL's architecture: 2 levels, 8 text cross-attentions, context width 64."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(sizes)
    unet.save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=unet.config.in_channels,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.0,
    ).save_pretrained(folder / "vae")
    CLIPTextModel(_text_config(WIDTH_L, "quick_gelu")).save_pretrained(folder / "text_encoder")
    CLIPTextModelWithProjection(_text_config(WIDTH_G, "gelu")).save_pretrained(folder / "text_encoder_2")
    write_tokenizer(folder / "tokenizer")
    return unet


def write_identity(folder: Path, unet: UNet2DConditionModel) -> None:
    """An identity model that fits, and a CLIP vision encoder in a transformers folder."""
    torch.manual_seed(1)
    sizes = ResamplerConfig(
        width=32,
        depth=1,
        head_width=16,
        attention_width=32,
        tokens=3,
        image_width=VISION,
        context_width=WIDTH_L + WIDTH_G,
        feedforward_width=64,
        phrase_width=WIDTH_L,
    )
    widths = tuple(site.width for site in unet_layout(unet).sites())
    model = IdentityModel(IdentityConfig(sizes, widths, background_tokens=2))
    save(folder / "identity.safetensors", model.state_dict(), {"kind": "identity", "head_width": "16"})
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=VISION,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=28,
            patch_size=14,
            projection_dim=20,
            hidden_act="gelu",
        )
    ).save_pretrained(folder / "clip_vision")


def write_config(path: Path, root: Path, identity: bool = True, **more: str) -> Path:
    """A TOML for the folders ``root/base``, ``root/models``, ``root/data``; ``more`` are lines by table."""
    tables = {
        "data": f'folder = "{(root / "data").as_posix()}"\nimage_px = 64',
        "models": f'base = "{(root / "base").as_posix()}"',
        "identity": "local_grid = 2",
        "lora": "",
        "loss": "",
        "train": 'steps = 4\nbatch_size = 4\ndevice = "cpu"\nlr = 1e-3',
        "samples": "every = 2\ncount = 2\nsteps = 2",
        "output": f'folder = "{(root / "out").as_posix()}"\ncache = "{(root / "cache").as_posix()}"\n'
        "checkpoint_every = 2",
    }
    if identity:
        models = (root / "models").as_posix()
        tables["models"] += f'\nidentity = "{models}/identity.safetensors"\nclip_vision = "{models}/clip_vision"'
        tables["models"] += f'\nlocal_clip_vision = "{models}/clip_vision"'
    for table, lines in more.items():
        tables[table] += "\n" + lines
    text = 'relation = "hugging"\n' + "".join(f"\n[{table}]\n{lines}\n" for table, lines in tables.items())
    path.write_text(text)
    return path


def write_all(root: Path) -> Path:
    """Base, identity model and triplets."""
    unet = write_base(root / "base")
    write_identity(root / "models", unet)
    write_authors(root / "data")
    return root
