"""The same benchmark on Flux-class models: `python -m tests.bench.finetune --base klein4b`.

Weights are random, shapes are the published ones: transformer, VAE and text encoder. One row a setting, with what
`--dry-run` would estimate beside the peak. "encoders in every step" runs VAE and text encoder for every picture, as a
loop without a cache does, with both of them resident.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model, T5Config, T5EncoderModel

from tests.bench.finetune_networks import CROPS, JOINTS, SUBJECTS, built
from training.config import FluxConfig, OutputConfig, TrainConfig
from training.config.flux import FluxDataConfig, FluxLoraConfig, FluxModelsConfig, MemoryConfig, ReferencesConfig
from training.data.encoded_flux import EncodedFlux
from training.engine.flux.batch import sample_flux_batch
from training.engine.flux.memory import StepShape, estimate_flux
from training.engine.flux.objective import FluxObjective
from training.host_diffusers.flux.architectures import PUBLISHED, class_of, empty_transformer
from training.host_diffusers.flux.lora import attach_lora
from training.host_diffusers.flux.network import FluxNetwork
from training.host_diffusers.flux.stored import store_blocks
from training.host_diffusers.images import encode_pictures

_QWEN = {
    "vocab_size": 151936,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
_T5 = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
BASES = {
    "klein4b": ("klein-4b", {**_QWEN, "hidden_size": 2560, "intermediate_size": 9728}),
    "klein9b": ("klein-9b", {**_QWEN, "hidden_size": 4096, "intermediate_size": 12288}),
    "flux1-dev": ("flux1-dev", _T5),
}
_SMALL_QWEN = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "num_attention_heads": 4}
_SMALL_TEXT = {
    True: {**_SMALL_QWEN, "num_key_value_heads": 2},
    False: {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16},
}
_SMALL = {"num_layers": 2, "num_single_layers": 4, "attention_head_dim": 32, "num_attention_heads": 4}
_SMALL_VAE = {
    "block_out_channels": (32,) * 4,
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


@dataclass(frozen=True)
class Setting:
    """One row: how the frozen weights are kept, and whether what is frozen is encoded once."""

    name: str
    batch: int
    storage: str = "precision"
    streamed: float = 0.0
    cached: bool = True
    prefetch: bool = True


def settings(batches: list[int]) -> list[Setting]:
    """Every setting of the table; of all blocks a half is streamed."""
    rows = [Setting("ours", size) for size in batches]
    rows += [Setting("ours, 8 bits", size, "fp8") for size in batches[:1]]
    rows += [Setting("ours, half streamed", size, streamed=0.5) for size in batches[:1]]
    rows += [Setting("ours, half streamed, no prefetch", size, streamed=0.5, prefetch=False) for size in batches[:1]]
    return rows + [Setting("encoders in every step", size, cached=False) for size in batches]


class Sizes:
    """Shapes of a base's networks, published or small."""

    def __init__(self, base: str, small: bool) -> None:
        name, text = BASES[base]
        self.fused, self.config, self.text = name != "flux1-dev", dict(PUBLISHED[name]), dict(text)
        self.pixels, self.reference, self.tokens = (128, 64, 32) if small else (1024, 512, 512 if self.fused else 256)
        self.vae: dict = {"latent_channels": 32 if self.fused else 16}
        if not self.fused:
            self.vae |= {**_SMALL_VAE, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
        if small:
            axes = [8] * 4 if self.fused else [4, 14, 14]
            self.config |= {**_SMALL, "axes_dims_rope": axes, "joint_attention_dim": 192 if self.fused else 64}
            self.vae |= _SMALL_VAE
            self.text |= _SMALL_TEXT[self.fused]

    def latents(self, pixels: int) -> tuple[int, int, int]:
        return (128, pixels // 16, pixels // 16) if self.fused else (16, pixels // 8, pixels // 8)


class Encoders:
    """VAE and text encoder, resident."""

    def __init__(self, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
        self.sizes, kind = sizes, AutoencoderKLFlux2 if sizes.fused else AutoencoderKL
        self.vae = built(lambda: kind(**sizes.vae), device, torch.float32)
        self.text: nn.Module = built(self._text, device, dtype)

    def _text(self) -> nn.Module:
        text = self.sizes.text
        return Qwen3Model(Qwen3Config(**text)) if self.sizes.fused else T5EncoderModel(T5Config(**text))

    @torch.no_grad()
    def encode(self, crops: EncodedFlux, device: torch.device) -> None:
        """Encode every picture and prompt of a batch once; what comes out is as large as what the cache holds."""
        ids = torch.zeros(len(crops), self.sizes.tokens, dtype=torch.long, device=device)
        self.text(ids, output_hidden_states=True)
        for pixels, count in ((self.sizes.pixels, 1 + SUBJECTS), (self.sizes.reference, SUBJECTS)):
            encode_pictures(self.vae, torch.rand(len(crops) * count, 3, pixels, pixels, device=device))


def random_crops(sizes: Sizes, device: torch.device) -> EncodedFlux:
    """CROPS encoded crops of random numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn((CROPS, *shape), generator=generator)

    cells, width = sizes.pixels // 16, sizes.config["joint_attention_dim"]
    pooled = 0 if sizes.fused else sizes.config["pooled_projection_dim"]
    crops = EncodedFlux(
        latents=normal(*sizes.latents(sizes.pixels)),
        concept_latents=normal(SUBJECTS, *sizes.latents(sizes.pixels)),
        references=normal(SUBJECTS, *sizes.latents(sizes.reference)),
        context=normal(2, sizes.tokens, width),
        pooled=normal(2, pooled),
        span=torch.zeros(CROPS, 2, sizes.tokens),
        places=torch.zeros(CROPS, SUBJECTS, dtype=torch.long),
        shares=torch.rand((CROPS, SUBJECTS, cells, cells), generator=generator),
        region=torch.ones(CROPS, 2 * cells, 2 * cells),
        present=torch.ones(CROPS, SUBJECTS),
        keypoints_target=torch.rand((CROPS, SUBJECTS, JOINTS, 2), generator=generator),
        keypoints_concepts=torch.rand((CROPS, SUBJECTS, JOINTS, 2), generator=generator),
        visible=torch.ones(CROPS, SUBJECTS, JOINTS),
        source=torch.zeros(CROPS, dtype=torch.long),
        columns=torch.zeros(CROPS),
        empty_context=torch.zeros(1, sizes.tokens, width),
        empty_pooled=torch.zeros(1, pooled),
    )
    return crops.to(device)


def measure(setting: Setting, sizes: Sizes, device: torch.device, dtype: torch.dtype, steps: int) -> dict:
    """Time the updates and read the peak memory of one setting."""
    torch.manual_seed(0)
    gc.collect()
    blocks = sizes.config["num_layers"] + sizes.config["num_single_layers"]
    streamed = round(setting.streamed * blocks)
    config = FluxConfig(
        architecture="flux",
        relation="bench",
        data=FluxDataConfig(folder="-", image_px=sizes.pixels, reference_px=sizes.reference),
        models=FluxModelsConfig(base="-"),
        output=OutputConfig(folder="-"),
        lora=FluxLoraConfig(),
        references=ReferencesConfig(drop=0.0),
        train=TrainConfig(gradient_checkpointing=True, batch_size=setting.batch),
        memory=MemoryConfig(storage=setting.storage, stream_blocks=streamed, prefetch=setting.prefetch),
    )
    transformer = built(lambda: class_of(sizes.config).from_config(sizes.config), device, dtype)
    parameters = attach_lora(transformer, config.lora.sites, config.lora.rank, config.lora.alpha, torch.Generator())
    store_blocks(transformer, device, dtype, setting.storage == "fp8", streamed, setting.prefetch)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    objective = FluxObjective(FluxNetwork(transformer, "index" if sizes.fused else "uxo", None, dtype), config)
    crops, encoders = random_crops(sizes, device), None if setting.cached else Encoders(sizes, device, dtype)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def update(step: int) -> None:
        draw = sample_flux_batch(config, step, crops, 1 if sizes.fused else 2)
        for at in range(setting.batch):
            piece = draw.part(at, at + 1)
            batch = crops.take(piece.rows.to(device))
            if encoders is not None:
                encoders.encode(batch, device)
            (objective(batch, None, *piece.inputs(device))["loss"] / setting.batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    update(0)
    started = _now(device)
    for step in range(1, 1 + steps):
        update(step)
    seconds = (_now(device) - started) / steps
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    shape = StepShape(
        sizes.latents(sizes.pixels), sizes.latents(sizes.reference), SUBJECTS, sizes.tokens, 1, config.lora.sites,
        config.lora.rank, True, setting.storage, streamed,
    )  # fmt: skip
    expected = estimate_flux(empty_transformer(sizes.config), dtype, shape, on_card=False)
    return {
        "setting": setting.name,
        "batch": setting.batch,
        "at_once": 1,
        "seconds_an_update": seconds,
        "pictures_a_second": setting.batch / seconds,
        "peak_gib": peak / 2**30 if peak else None,
        "estimated_gib": expected.total / 2**30,
    }


def _now(device: torch.device) -> float:
    """Read the clock with the GPU waited for, or the processor's own time, so that other programs do not count."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
