"""What a subject adapter costs a sampling step: python -m tests.bench.subject [--size small|full] [--host HOST]

One random-weight UNet of SDXL's layout, the same inputs, a batch of [negative, positive], object tokens of two subjects
(512) projected once. Three ways take turns: plain; an adapter in the first block of each of the 11 stacks, as
configs/subject_sdxl.toml trains it; one in all 70 blocks, as every block of SD 2 has one. Ratios are medians over the
rounds of the ratio within a round. In ComfyUI the adapters act on the positive row, in diffusers on both.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from types import SimpleNamespace

import torch
from torch import Tensor

from core.subject.files import SubjectAdapter, SubjectAdapterConfig
from tests.bench.hosts import HOSTS, SIZES, Step
from tests.bench.identity import RESULTS as IDENTITY
from tests.bench.identity import chip, in_turn, keep, ratio, writing

RESULTS = IDENTITY.with_name("subject.json")
SUBJECTS, TOKENS, IMAGE, EMBEDDING, HEAD = 2, 256, 1280, 1024, 64
BOXES = ((0.05, 0.2, 0.5, 0.9), (0.5, 0.2, 0.95, 0.9))


def adapter_of(host: Step, first_only: bool) -> SubjectAdapter:
    """Random weights with open gates, for a UNet's blocks."""
    blocks = {
        site.diffusers.removesuffix(".attn2"): site.width
        for site in host.layout.sites()
        if not first_only or site.diffusers.endswith("transformer_blocks.0.attn2")
    }
    context = host.layout.context_width
    torch.manual_seed(0)
    config = SubjectAdapterConfig(IMAGE, EMBEDDING, context, context, TOKENS, (EMBEDDING, 768), blocks, HEAD)
    adapter = SubjectAdapter(config).to(host.device, host.dtype).eval().requires_grad_(False)
    for fuser in adapter.fusers:
        fuser.alpha_attn.fill_(0.5)
        fuser.alpha_dense.fill_(0.5)
    return adapter


def in_comfyui(host, adapter: SubjectAdapter, objects: Tensor):
    """A step with an adapter through the pack's own nodes' code."""
    attach = importlib.import_module(f"{host.pack}.nodes.host_comfy.subject.attach")
    loaded = SimpleNamespace(
        patcher=SimpleNamespace(model=adapter), changes={}, config=adapter.config, file="bench.safetensors"
    )
    return host._call(attach.attach(host.model, loaded, objects, torch.tensor(BOXES), 1.0, (0.0, 1.0), False))


def in_diffusers(host, adapter: SubjectAdapter, patches: Tensor):
    """A step with an adapter on diffusers' UNet, put on and taken off around it; object tokens are made in the step."""
    from training.host_diffusers.subject import attach, detach, object_arguments

    boxes = torch.tensor(BOXES, device=host.device, dtype=host.dtype).expand(2, -1, -1)
    objects = object_arguments(patches.expand(2, -1, -1, -1), boxes, torch.ones(2, SUBJECTS, dtype=torch.bool))
    objects["present"] = objects["present"].to(host.device)
    step = host._call(host.unet.attn_processors, cross_attention_kwargs={"gligen": objects})

    def with_adapter() -> Tensor:
        attach(host.unet, adapter, location=False)
        try:
            return step()
        finally:
            detach(host.unet, adapter)

    return with_adapter


@torch.inference_mode()
def measure(host_name: str, size: str, dtype: torch.dtype, rounds: int) -> dict:
    """The plain step in seconds, and both ways over it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    host = HOSTS[host_name](SIZES[size], device, dtype)
    patches = torch.randn(1, SUBJECTS, TOKENS, IMAGE, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    boxes, present = torch.tensor([BOXES]).to(device, dtype), torch.ones(1, SUBJECTS, dtype=torch.bool, device=device)
    ways = {"plain": host.plain()}
    for name, first_only in (("first blocks", True), ("all blocks", False)):
        adapter = adapter_of(host, first_only)
        if host_name == "comfyui":
            ways[name] = in_comfyui(host, adapter, adapter.proj(patches, boxes, present))
        else:
            ways[name] = in_diffusers(host, adapter, patches)
    seconds = in_turn(ways, rounds)
    return {
        "plain_step_s": statistics.median(seconds["plain"]),
        **{f"{name} over plain": ratio(seconds, name, "plain") for name in list(ways)[1:]},
        "changed": float((ways["all blocks"]() - ways["plain"]()).abs().max()),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="full" if torch.cuda.is_available() else "small")
    options.add_argument("--host", choices=HOSTS, default="comfyui")
    options.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    options.add_argument("--rounds", type=int, default=9)
    writing(options, RESULTS)
    chosen = options.parse_args()
    row = measure(chosen.host, chosen.size, getattr(torch, chosen.dtype), chosen.rounds)
    title = f"{chip()}, torch {torch.__version__}, {chosen.host}, {chosen.size}, {chosen.dtype}"
    sys.stdout.write(f"{title}\nplain step {row['plain_step_s'] * 1000:.1f} ms\n")
    for name in ("first blocks over plain", "all blocks over plain"):
        told = row[name]
        sys.stdout.write(f"{name}: {told['median']:.3f} ({told['least']:.3f} to {told['most']:.3f})\n")
    keep(chosen.write, title, row)


if __name__ == "__main__":
    main()
