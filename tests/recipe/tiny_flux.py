"""FLUX.1, Kontext and Klein in a few thousand random numbers: transformers, whole diffusers folders, configs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2Transformer2DModel, FluxTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from core.checkpoint import save
from core.routing.files import TABLES
from tests.recipe.tiny_recipe import LETTERS, _text_config, write_tokenizer
from training.host_diffusers.flux.network import FluxNetwork

WIDTH, HEADS, HEAD = 32, 2, 16
TEXT, POOLED = 20, 24
FLUX1 = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": HEAD,
    "num_attention_heads": HEADS,
    "joint_attention_dim": TEXT,
    "pooled_projection_dim": POOLED,
    "guidance_embeds": True,
    "axes_dims_rope": (2, 6, 8),
}
FLUX2 = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": HEAD,
    "num_attention_heads": HEADS,
    "joint_attention_dim": 3 * TEXT,
    "guidance_embeds": False,
    "axes_dims_rope": (4, 4, 4, 4),
}
WORDS = ("a", "fox", "hugs", "bear", "is", "hugging", "from", "image", "1", "2", "user", "assistant", ".", "A")


def transformer(generation: int, seed: int = 0) -> torch.nn.Module:
    """A transformer with random weights, modulations included, frozen."""
    torch.manual_seed(seed)
    model = FluxTransformer2DModel(**FLUX1) if generation == 1 else Flux2Transformer2DModel(**FLUX2)
    return model.eval().requires_grad_(False)


def network(generation: int, method: str = "", seed: int = 0) -> FluxNetwork:
    return FluxNetwork(
        transformer(generation, seed), method or ("uxo" if generation == 1 else "index"), None, torch.float32
    )


def inputs(generation: int, batch: int = 2, seed: int = 1) -> dict:
    """Latents of 4 x 6 tokens, two references, a prompt of 5 tokens, two times."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    channels, patch = (4, 2) if generation == 1 else (16, 1)
    return {
        "noisy": normal(batch, channels, 4 * patch, 6 * patch),
        "time": torch.rand(batch, generator=generator),
        "context": normal(batch, 5, TEXT if generation == 1 else 3 * TEXT),
        "pooled": normal(batch, POOLED) if generation == 1 else None,
        "references": [
            normal(batch, channels, 4 * patch, 4 * patch),
            normal(batch, channels, 2 * patch, 4 * patch),
        ],
    }


def _words(folder: Path, chat: bool) -> None:
    """A tokenizer of whole words."""
    vocabulary = {word: index for index, word in enumerate(("<pad>", "<unk>", *WORDS, *LETTERS[1:]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    if chat:
        fast.chat_template = (
            "{% for message in messages %}{{ message.role }} {{ message.content }}{% endfor %}"
            "{% if add_generation_prompt %} assistant{% endif %}"
        )
    fast.save_pretrained(folder)


def write_flux(folder: Path, kind: str = "flux1") -> Path:
    """A whole diffusers folder: flux1, kontext, klein or klein-distilled."""
    klein, torch_seed = kind.startswith("klein"), torch.manual_seed(3)
    del torch_seed
    transformer(2 if klein else 1).save_pretrained(folder / "transformer")
    blocks = {
        "block_out_channels": (8,) * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    if klein:
        vae = AutoencoderKLFlux2(**blocks)
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2)
        config = Qwen3Config(
            vocab_size=64, hidden_size=TEXT, intermediate_size=24, num_hidden_layers=28, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8,
        )  # fmt: skip
        Qwen3ForCausalLM(config).save_pretrained(folder / "text_encoder")
        _words(folder / "tokenizer", chat=True)
    else:
        vae = AutoencoderKL(**blocks, scaling_factor=0.36, shift_factor=0.11)
        CLIPTextModel(_text_config(POOLED, "quick_gelu")).save_pretrained(folder / "text_encoder")
        write_tokenizer(folder / "tokenizer")
        t5 = T5Config(vocab_size=64, d_model=TEXT, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
        T5EncoderModel(t5).save_pretrained(folder / "text_encoder_2")
        _words(folder / "tokenizer_2", chat=False)
    vae.save_pretrained(folder / "vae")
    names = {"flux1": "FluxPipeline", "kontext": "FluxKontextPipeline"}
    index = {"_class_name": names.get(kind, "Flux2KleinPipeline"), "is_distilled": kind == "klein-distilled"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_tables(path: Path) -> Path:
    """DreamO's embedding.safetensors for the tiny FLUX.1."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((2, WIDTH), (10, WIDTH), (10, TEXT))
    save(path, {name: torch.randn(shape, generator=generator) for name, shape in zip(TABLES, shapes)}, {})
    return path


def write_flux_config(path: Path, base: Path, data: Path, out: Path, **more: str) -> Path:
    """A TOML of four steps of two pictures; ``more`` are lines by table."""
    tables = {
        "data": f'folder = "{data.as_posix()}"\nimage_px = 64\nreference_px = 32',
        "models": f'base = "{base.as_posix()}"\ntext_tokens = 16',
        "references": "drop = 0.3\ntext_drop = 0.2",
        "lora": "rank = 2\nalpha = 4.0",
        "flow": "",
        "loss": "keypoint_max_time = 0.9",
        "train": 'steps = 4\nbatch_size = 2\ndevice = "cpu"\nlr = 1e-2',
        "memory": "",
        "samples": "every = 0\ncount = 1\nsteps = 2",
        "output": f'folder = "{out.as_posix()}"\ncache = "{(out.parent / "cache").as_posix()}"\ncheckpoint_every = 2',
    }
    for table, lines in more.items():  # a later line of a key replaces the one before
        keys = dict(line.split(" = ", 1) for line in [*tables[table].splitlines(), *lines.splitlines()])
        tables[table] = "\n".join(f"{key} = {value}" for key, value in keys.items())
    text = 'architecture = "flux"\nrelation = "hugging"\n'
    path.write_text(text + "".join(f"\n[{table}]\n{lines}\n" for table, lines in tables.items()))
    return path
