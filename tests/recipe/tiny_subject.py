"""A subject adapter's recipe, small enough for a test: a Stable Diffusion with random weights, a COCO set, configs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from tests.recipe.tiny_recipe import WIDTH_L, _text_config, write_tokenizer
from tests.unit.synthetic_triplets import BOXES, draw_picture

PLACEHOLDER = "q"  # "sks" is three tokens of the tiny tokenizer


def write_sd(folder: Path) -> None:
    """A diffusers folder of SD 2's architecture: one text encoder, 4 transformer blocks, context width 24."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=WIDTH_L,
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=1.0,
    ).save_pretrained(folder / "vae")
    CLIPTextModel(_text_config(WIDTH_L, "gelu")).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")


def rle(mask: np.ndarray) -> list[int]:
    """COCO's run lengths of a mask, column by column, zeros first."""
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, len(flat)]).tolist()
    return runs if not flat[0] else [0, *runs]


def compressed(counts: list[int]) -> str:
    """The same as COCO's text of 6-bit groups."""
    text = ""
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(bits + (0x20 if more else 0) + 48)
            if not more:
                break
    return text


def write_coco(folder: Path, count: int = 3, side: tuple[int, int] = (96, 96), **changes) -> Path:
    """A detection set: ellipses with polygons, run lengths or compressed run lengths in turn; its captions beside."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, (width, height) = np.random.default_rng(0), side
    images, annotations, captions = [], [], []
    for i in range(count):
        draw_picture(rng, side, list(BOXES)).save(folder / f"{i}.png")
        images.append({"id": 10 + i, "file_name": f"{i}.png", "width": width, "height": height})
        captions.append({"image_id": 10 + i, "caption": "A fox and a bear."})
        for subject, (x0, y0, x1, y1) in enumerate(BOXES):
            box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
            rows, columns = np.mgrid[0:height, 0:width]
            mask = (rows >= y0 * height) & (rows < y1 * height) & (columns >= x0 * width) & (columns < x1 * width)
            shapes = (
                [[box[0], box[1], x1 * width, box[1], x1 * width, y1 * height, box[0], y1 * height]],
                {"counts": rle(mask), "size": [height, width]},
                {"counts": compressed(rle(mask)), "size": [height, width]},
            )
            annotations.append(
                {"image_id": 10 + i, "category_id": 1 + subject, "bbox": box, "segmentation": shapes[i % 3], "id": i}
            )
    told = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "fox"}, {"id": 2, "name": "bear"}],
    }
    told |= changes
    (folder / "instances.json").write_text(json.dumps(told))
    (folder / "captions.json").write_text(json.dumps({"annotations": captions}))
    return folder / "instances.json"


def write_subject_config(path: Path, root: Path, base: str = "base", out: str = "out", **more: str) -> Path:
    """A TOML for the folders ``root/base``, ``root/models``, ``root/data``; ``more`` are lines by table."""
    tables = {
        "data": f'folder = "{(root / "data").as_posix()}"\nimage_px = 64',
        "models": f'base = "{(root / base).as_posix()}"\nclip_vision = "{(root / "models/clip_vision").as_posix()}"',
        "adapter": f'placeholder = "{PLACEHOLDER}"',
        "loss": "attention_max_cells = 64",
        "drop": "",
        "train": 'steps = 4\nbatch_size = 4\ndevice = "cpu"\nlr = 1e-3',
        "samples": "every = 2\ncount = 2\nsteps = 2",
        "output": f'folder = "{(root / out).as_posix()}"\ncache = "{(root / "cache").as_posix()}"\n'
        'checkpoint_every = 2\nname = "pair"',
    }
    if "coco" in more:
        tables["data"] = f'coco = "{more.pop("coco")}"\nimage_px = 64'
    for table, lines in more.items():
        tables[table] += "\n" + lines
    path.write_text("".join(f"[{table}]\n{lines}\n\n" for table, lines in tables.items()))
    return path
