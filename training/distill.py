"""A local image encoder from a CLIP of yours: CLIPSelf (arXiv:2310.01403).

    python -m training.distill --model ViT-bigG-14 --weights clip.safetensors --images photos/ --out local.safetensors
    python -m training.distill --model miniworld --out out/miniworld/distill

How the student learns, and where that differs from the paper: `training/engine/clipself.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from core.checkpoint import save
from core.user_files import read_json_object, visible_files

from .common import arguments as of_type
from .common.atomic_io import check_writable, write_text
from .common.cli import TrainingAborted, command, going_on, leave, shell_command
from .common.errors import UserErrors, all_or_faults
from .common.image_files import ENDINGS, image_size, open_image, to_tensor
from .engine.clipself import Distillation, Pictures, distil
from .engine.timed_loop import TrainerConfig
from .host_diffusers.clipself import VisionEncoder, load_encoder

_RUN = ".run"  # ending of the folder of checkpoints, beside the file to write


def folder_pictures(folder: Path) -> Pictures:
    """Draw random images of a folder and the folders in it, squashed to 512 x 512 as the encoder will see subjects.

    Raises:
        UserErrors: no images in it, or some that are none; all of them are looked at, none is decoded.
    """
    files = visible_files(folder, ENDINGS, deep=True)
    if not files:
        raise UserErrors(f"--images {folder}: expected pictures (png, jpg, webp, bmp), found none.")
    faults = []
    for file in files:
        try:
            image_size(file)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise UserErrors(faults)

    def draw_pictures(rng: np.random.Generator, count: int) -> Tensor:
        try:
            chosen = [
                to_tensor(open_image(files[i]).resize((512, 512), Image.Resampling.BICUBIC))
                for i in rng.integers(len(files), size=count)
            ]
        except ValueError as error:  # one that ends before its last line, or has been deleted meanwhile
            raise TrainingAborted(f"{error} Take it out of the folder; the same command goes on.") from error
        return torch.stack(chosen)

    return draw_pictures


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.distill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="miniworld, a transformers folder, or an open_clip architecture")
    parser.add_argument("--weights", type=of_type.path, help="checkpoint of the open_clip architecture")
    parser.add_argument("--images", type=of_type.path, help="folder of pictures")
    parser.add_argument(
        "--out", type=of_type.path, required=True, help="safetensors file to write; for miniworld the run's folder"
    )
    parser.add_argument("--steps", type=of_type.whole(), default=44358, help="optimiser steps; %(default)s by default")
    parser.add_argument("--batch", type=of_type.whole(), default=2, help="pictures a step; %(default)s by default")
    parser.add_argument("--lr", type=of_type.positive, default=1e-5, help="learning rate; %(default)s by default")
    parser.add_argument(
        "--unlocked",
        type=of_type.whole(),
        default=Distillation.unlocked,
        help="how many of the last blocks learn; %(default)s by default",
    )
    parser.add_argument(
        "--minutes", type=of_type.positive, default=1e9, help="length of this call; call again to go on"
    )
    parser.add_argument("--device", type=of_type.device, default="cpu", help="of torch; %(default)s by default")
    parser.add_argument("--threads", type=of_type.whole(), default=2, help="of the CPU; %(default)s by default")
    args = parser.parse_args()
    again = shell_command("training.distill", sys.argv[1:])
    return command(lambda: going_on(lambda: run(args), again), "%(asctime)s %(message)s")


def run(args: argparse.Namespace) -> None:
    """Look at everything, distil, write the encoder.

    Raises:
        UserErrors: of the model, the images and the output, all of them.
    """
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.model == "miniworld":
        from .miniworld.recipes.local_encoder import train

        train(args.out.parent, device, args.minutes)
        return
    if args.images is None:
        raise UserErrors("--images: expected a folder of pictures, got nothing.")
    _, encoder, pictures = all_or_faults(
        lambda: _check_out(args.out),
        lambda: load_encoder(args.model, args.weights),
        lambda: folder_pictures(args.images),
    )
    if args.unlocked > len(encoder.blocks):
        raise UserErrors(f"--unlocked {args.unlocked}: the encoder has {len(encoder.blocks)} blocks.")
    _keep_to_the_run(args)
    settings = replace(
        TrainerConfig("distill", args.steps, args.batch, args.lr),
        warmup_steps=max(1, min(1000, args.steps // 10)),
        weight_decay=0.1,
        adamw_params=("",),
    )
    student, _ = distil(
        encoder,
        _rebuilder(encoder),
        pictures,
        Distillation(unlocked=args.unlocked),
        settings,
        args.out.with_suffix(_RUN),
        device,
        args.minutes,
    )
    save_visual(student, args.out)


def _check_out(out: Path) -> None:
    """Look whether the encoder's file can be written; its checkpoints lie in a folder beside it.

    Raises:
        ValueError: a folder, the folder of the checkpoints, or not to be written.
    """
    if out.is_dir() or out.suffix == _RUN:
        raise ValueError(f"--out {out}: expected the file to write, e.g. local.safetensors, got a folder.")
    check_writable(out.parent)


def _keep_to_the_run(args: argparse.Namespace) -> None:
    """Note which encoder a run's checkpoints are of and what of it learns; a later call must say the same.

    Raises:
        UserErrors: they are of another encoder or of other blocks.
    """
    folder = args.out.with_suffix(_RUN)
    facts: dict[str, int | str] = {"unlocked": args.unlocked}
    if Path(args.model).is_dir():
        facts["model"] = str(Path(args.model).resolve())
    else:
        facts |= {"model": args.model, "weights": str(args.weights.resolve())}
    note = folder / "run.json"
    if (folder / "latest.json").exists() and note.exists():
        try:
            before = read_json_object(note)
        except ValueError as error:
            raise UserErrors(f"{error} Delete the folder to begin anew.") from error
        other = [f"--{key} {value}" for key, value in before.items() if facts.get(key) != value]
        if other:
            raise UserErrors(
                f"{folder}: its checkpoint was trained with {', '.join(other)}. Say the same to go on, choose another "
                "--out, or delete the folder to begin anew."
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(facts, indent=1))


def _rebuilder(encoder: VisionEncoder) -> Callable[[nn.Module], VisionEncoder]:
    from .host_diffusers.clipself import encoder_of_open_clip, encoder_of_transformers

    return encoder_of_transformers if hasattr(encoder.module, "vision_model") else encoder_of_open_clip


def save_visual(encoder: VisionEncoder, path: Path) -> None:
    """Write the vision tower alone, in half precision; open_clip's keys get their usual `visual.` prefix."""
    prefix = "" if hasattr(encoder.module, "vision_model") else "visual."
    tensors = {
        prefix + name: value.half().contiguous().clone()
        for name, value in encoder.module.state_dict().items()
        if value.is_floating_point()
    }
    save(path, tensors, {"format": "pt", "created_with": "python -m training.distill"})


if __name__ == "__main__":
    leave(main())
