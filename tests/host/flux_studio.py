"""The studio's sister for Flux: a tiny Flux with its text encoders and VAE, DreamO's files in its widths."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.host.studio import Pack

WIDTH, CONTEXT, POOLED, HEADS = 64, 32, 24, 2
WIDTHS = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": POOLED, "context_in_dim": CONTEXT, "hidden_size": WIDTH,
    "mlp_ratio": 2.0, "num_heads": HEADS, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12],
    "guidance_embed": True,
}  # fmt: skip
MLP = 2 * WIDTH
PROMPT = "a corgi from [ref#1] and a fox from [ref#2] in the park"


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def tables() -> dict[str, Tensor]:
    """`embedding.safetensors` in the tiny widths."""
    return {
        "dreamo_task_embedding.weight": draw(2, WIDTH, seed=31, scale=0.5),
        "dreamo_idx_embedding.weight": draw(10, WIDTH, seed=32, scale=0.5),
        "dreamo_t5_embedding.weight": draw(10, CONTEXT, seed=33),
    }


def fused_lora(infix: str = "_processor_", rank: int = 4, seed: int = 41, width: int = WIDTH) -> dict[str, Tensor]:
    """A root file: `double_blocks_0_processor_qkv_lora1.down.weight` and so on."""
    state, seeds = {}, iter(range(seed, seed + 1000))
    shapes = {
        "qkv_lora1": (width, 3 * width),
        "qkv_lora2": (width, 3 * width),
        "proj_lora1": (width, width),
        "proj_lora2": (width, width),
    }
    single = {"qkv_lora": (width, 3 * width), "proj_lora": (width + 2 * width, width)}
    for stream, count, names in (("double", 2, shapes), ("single", 2, single)):
        for block in range(count):
            for name, (into, out) in names.items():
                stem = f"{stream}_blocks{infix[0]}{block}{infix}{name}"
                state[f"{stem}.down.weight"] = draw(rank, into, seed=next(seeds), scale=0.1)
                state[f"{stem}.up.weight"] = draw(out, rank, seed=next(seeds), scale=0.1)
    return state


def split_lora(fused: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same in the layout of the ComfyUI and v1.1 files."""
    names = {
        "qkv_lora1": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "proj_lora1": ("attn.to_out.0",),
        "qkv_lora2": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "proj_lora2": ("attn.to_add_out",),
        "qkv_lora": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "proj_lora": ("proj_out",),
    }
    state = {}
    for key, down in fused.items():
        if not key.endswith(".down.weight"):
            continue
        stem = key.removesuffix(".down.weight")
        stream, block, name = stem.split("_")[0], stem.split("_")[2], "_".join(stem.split("_")[-2:])
        up = fused[f"{stem}.up.weight"]
        prefix = f"transformer.{'transformer_blocks' if stream == 'double' else 'single_transformer_blocks'}.{block}"
        for target, part in zip(names[name], up.chunk(len(names[name]))):
            state[f"{prefix}.{target}.lora_A.weight"] = down.clone()
            state[f"{prefix}.{target}.lora_B.weight"] = part.clone()
    return state


def text_stream_lora(blocks: int = 1, width: int = WIDTH, rank: int = 4) -> dict[str, Tensor]:
    """A relation LoRA on the text stream of double blocks, as this pack's training writes it; the tiny Flux.2's."""
    state = {}
    for block in range(blocks):
        for number, name in enumerate(("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")):
            module = f"transformer.transformer_blocks.{block}.attn.{name}"
            state[f"{module}.lora_A.weight"] = draw(rank, width, seed=70 + number, scale=0.1)
            state[f"{module}.lora_B.weight"] = draw(width, rank, seed=80 + number, scale=0.1)
    return state


def save_files(models: Path) -> None:
    """Every published layout, in the tiny widths."""
    save_file(tables(), models / "relate" / "embedding.safetensors")
    no_words = {key: value for key, value in tables().items() if "t5" not in key}
    save_file(no_words, models / "relate" / "no_words.safetensors")
    save_file({**fused_lora(), **tables()}, models / "loras" / "dreamo.safetensors")
    for number, name in enumerate(("dreamo_cfg_distill", "dreamo_quality_lora_pos", "dreamo_quality_lora_neg")):
        save_file(fused_lora(seed=2000 * (number + 1)), models / "loras" / f"{name}.safetensors")
    for number, name in enumerate(("dreamo_sft_lora", "dreamo_dpo_lora", "flux-turbo")):
        save_file(split_lora(fused_lora(seed=20000 * (number + 1))), models / "loras" / f"{name}.safetensors")
    save_file(fused_lora(width=2 * WIDTH), models / "loras" / "wide_flux.safetensors")
    save_file(text_stream_lora(), models / "loras" / "relation_flux2.safetensors", {"kind": "relation"})


@dataclass(frozen=True)
class FluxStudio:
    """The pack's nodes and ComfyUI's, on one tiny Flux."""

    pack: Pack
    comfy: ModuleType  # ComfyUI's `nodes`
    base: SimpleNamespace  # model, clip, vae: as loaded
    loaded: SimpleNamespace  # model, clip: after Load DreamO

    def load(self, **inputs):
        defaults = {"model": self.base.model, "clip": self.base.clip, "embeddings": "embedding.safetensors"}
        return SimpleNamespace(
            **dict(zip(("model", "clip"), self.pack.run("RelateDreamOLoader", **{**defaults, **inputs})))
        )

    def reference(self, image: Tensor, references=None, **inputs):
        defaults = {"vae": self.base.vae, "resolution": 256}
        more = {} if references is None else {"references": references}
        return self.pack.run("RelateReference", image=image, **{**defaults, **more, **inputs})

    def references(self, *each: dict):
        """A chain of Reference Image nodes."""
        found = None
        for inputs in each:
            found, _ = self.reference(references=found, **inputs)
        return found

    def text(self, prompt: str = PROMPT, clip=None):
        with torch.inference_mode():
            return self.comfy.CLIPTextEncode().encode(clip or self.loaded.clip, prompt)[0]

    def apply(self, references, model=None, positive=None):
        return self.pack.run(
            "RelateApplyReferences",
            model=model or self.loaded.model,
            positive=positive or self.text(),
            references=references,
        )

    def ksample(self, model=None, positive=None, negative=None, size=(16, 24), batch: int = 1, **settings) -> Tensor:
        """ComfyUI's KSampler, two steps."""
        settings = {
            "seed": 1,
            "steps": 2,
            "cfg": 1.0,
            "sampler_name": "euler",
            "scheduler": "simple",
            "denoise": 1.0,
            **settings,
        }
        with torch.inference_mode():
            return self.comfy.KSampler().sample(
                model=model or self.loaded.model,
                positive=positive or self.text(),
                negative=negative or self.text("blurry"),
                latent_image={"samples": torch.zeros(batch, 16, *size)},
                **settings,
            )[0]["samples"]

    def route(self, references, size=(16, 24), batch: int = 1, **settings):
        """Our sampler, two steps: latent, map, heat maps, masks."""
        settings = {
            "model": self.loaded.model,
            "positive": self.text(),
            "negative": self.text("blurry"),
            "seed": 1,
            "steps": 2,
            "references": references,
            **settings,
        }
        latent, *rest = self.pack.run(
            "RelateRoutingSampler", latent_image={"samples": torch.zeros(batch, 16, *size)}, **settings
        )
        return latent["samples"], *rest


def make(pack: Pack, comfy: ModuleType, tiny: ModuleType) -> FluxStudio:
    with torch.inference_mode():
        parts = importlib.import_module(f"{tiny.__package__}.flux")
        base = SimpleNamespace(model=tiny.model("flux", unet=WIDTHS), clip=parts.clip(), vae=parts.vae())
    bare = FluxStudio(pack, comfy, base, None)
    return FluxStudio(pack, comfy, base, bare.load())
