"""A local image encoder from a CLIP of yours: CLIPSelf (arXiv:2310.01403).

    python -m training.distill --model ViT-bigG-14 --weights clip.safetensors --images photos/ --out local.safetensors
    python -m training.distill --model miniworld --out out/miniworld/distill

How the student learns, and where that differs from the paper: `training/engine/clipself.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .engine.clipself import Distillation, Pictures, distil
from .engine.timed_loop import Settings
from .host_diffusers.clipself import VisionEncoder, load_encoder


def folder_pictures(folder: Path) -> Pictures:
    """Random pictures of a folder, squashed to 512 x 512 as the encoder will see subjects.

    Raises:
        ValueError: no pictures in it.
    """
    from PIL import Image

    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
    )
    if not files:
        raise ValueError(f"--images {folder}: expected pictures (png, jpg, webp, bmp), found none.")

    def draw_pictures(draw: np.random.Generator, count: int) -> Tensor:
        chosen = [
            Image.open(files[i]).convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
            for i in draw.integers(len(files), size=count)
        ]
        return torch.from_numpy(np.stack([np.asarray(image) for image in chosen])).permute(0, 3, 1, 2).float() / 255

    return draw_pictures


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="miniworld, a transformers folder, or an open_clip architecture")
    parser.add_argument("--weights", type=Path, help="checkpoint of the open_clip architecture")
    parser.add_argument("--images", type=Path, help="folder of pictures")
    parser.add_argument(
        "--out", type=Path, required=True, help="safetensors file to write; for miniworld the run's folder"
    )
    parser.add_argument("--steps", type=int, default=44358)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--unlocked", type=int, default=Distillation.unlocked)
    parser.add_argument("--minutes", type=float, default=1e9, help="length of this call; call again to go on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.model == "miniworld":
        from .miniworld.recipes.clipself import train

        train(args.out.parent, device, args.minutes)
        return 0
    try:
        if args.images is None:
            raise ValueError("--images: expected a folder of pictures, got nothing.")
        encoder, pictures = load_encoder(args.model, args.weights), folder_pictures(args.images)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    rebuild = _rebuilder(encoder)
    settings = replace(
        Settings("distill", args.steps, args.batch, args.lr),
        warmup_steps=max(1, min(1000, args.steps // 10)),
        weight_decay=0.1,
        plain=("",),
    )
    student, _ = distil(
        encoder,
        rebuild,
        pictures,
        Distillation(unlocked=args.unlocked),
        settings,
        args.out.with_suffix(".run"),
        device,
        args.minutes,
    )
    save_visual(student, args.out)
    return 0


def _rebuilder(encoder: VisionEncoder) -> Callable[[nn.Module], VisionEncoder]:
    from .host_diffusers.clipself import encoder_of_open_clip, encoder_of_transformers

    return encoder_of_transformers if hasattr(encoder.module, "vision_model") else encoder_of_open_clip


def save_visual(encoder: VisionEncoder, path: Path) -> None:
    """Writes the vision tower alone, in half precision; open_clip's keys get their usual `visual.` prefix."""
    prefix = "" if hasattr(encoder.module, "vision_model") else "visual."
    tensors = {
        prefix + name: value.half().contiguous().clone()
        for name, value in encoder.module.state_dict().items()
        if value.is_floating_point()
    }
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"format": "pt", "created_with": "python -m training.distill"})
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
