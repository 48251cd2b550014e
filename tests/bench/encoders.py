"""What the encoders cost: python -m tests.bench.encoders [--size small|full]

The dense branch at four times the encoder's size (896 pixels for CLIP's 224) for two subjects through ComfyUI: the
first time, again with other boxes and names (remembered), and as published (the last block computed and thrown away,
nothing remembered). `full` is ViT-bigG/14 with random weights, for a GPU; `small` has 12 blocks of width 256.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from core.identity.image_prep import normalise_pixels, squares
from core.identity.local_tokens import dense_features
from tests.bench.hosts import _load_pack
from tests.bench.identity import chip, timed

SIZES = {"small": (256, 12, 4, 1024), "full": (1664, 48, 16, 8192)}


def encoder(size: str):
    """A CLIP vision encoder of ComfyUI with random weights."""
    import comfy.clip_vision

    tiny = importlib.import_module("tests.host.test_pack.tiny")
    width, layers, heads, hidden = SIZES[size]
    config = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "intermediate_size": hidden,
        "image_size": 224,
        "patch_size": 14,
        "num_channels": 3,
        "projection_dim": width,
        "model_type": "clip_vision_model",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        vision = comfy.clip_vision.ClipVisionModel(str(path))
    if not torch.cuda.is_available():
        vision.model.float()
    tiny.fill(vision.model, 0)
    return vision


@torch.inference_mode()
def measure(size: str) -> dict[str, float]:
    """Seconds for two subjects."""
    pack = _load_pack()
    encoders, models, scenes = (
        importlib.import_module(f"{pack}.{name}")
        for name in ("nodes.host_comfy.sdxl.encoders", "nodes.host_comfy.sdxl.models", "core.scene")
    )
    vision = encoder(size)
    draw = torch.Generator().manual_seed(0)
    pictures = [torch.rand(1, 3, 640, 480, generator=draw) for _ in range(2)]
    scene = scenes.Scene(tuple(scenes.Subject(name, picture) for name, picture in zip(("cat", "bear"), pictures)))
    moved = scenes.Scene(
        tuple(replace(subject, box=scenes.Box(0, 0, 0.5, 1), name=subject.name + " two") for subject in scene.subjects)
    )

    def published() -> None:
        tower = models.vision_tower(vision)
        last = vision.model.vision_model.encoder.layers[-1]
        for picture in pictures:
            pixels = normalise_pixels(squares(picture, None, 896)).to(vision.load_device)
            if torch.cuda.is_available():
                pixels = pixels.half()
            dense = dense_features(tower, pixels)
            last(dense.flatten(2).transpose(1, 2).to(pixels), None, _attention(vision.load_device))  # thrown away

    warm = scenes.Scene((scenes.Subject("warm", pictures[0].clone()),))
    timed(lambda: encoders.encode_subjects(warm, vision, vision))
    return {
        "first": timed(lambda: encoders.encode_subjects(scene, vision, vision)),
        "remembered": timed(lambda: encoders.encode_subjects(moved, vision, vision)),
        "published": timed(published),
    }


def _attention(device: torch.device):
    from comfy.ldm.modules.attention import optimized_attention_for_device

    return optimized_attention_for_device(device)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="full" if torch.cuda.is_available() else "small")
    chosen = options.parse_args()
    seconds = measure(chosen.size)
    sys.stdout.write(f"{chip()}, torch {torch.__version__}, {chosen.size}\n")
    sys.stdout.write(
        "two subjects, image and local tokens: first time "
        f"{seconds['first']:.3f} s, remembered {seconds['remembered']:.4f} s "
        f"({seconds['remembered'] / seconds['first']:.4f} of it); dense branch as published "
        f"{seconds['published']:.3f} s every run\n"
    )


if __name__ == "__main__":
    main()
