"""Check published weights on this machine: python -m tests.check_weights MODELS_FOLDER

Published weights are too large for the tests of this repository, so whoever has them can check that all of them load.
Looks in a ComfyUI's models folder (relate/, clip_vision/, loras/) at every file there, reads each with the reader the
nodes and the training use, and prints its key report. Exit code 0 when at least one file was checked and all are
well; 1 when one has faults or there was nothing to check. Files of other packs in clip_vision/ and loras/ are told
apart and named, not failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from core.checkpoint import describe, read, read_metadata
from core.cross_attention_layers import SDXL
from core.identity.files import RELEASED, load_identity, load_vision_tower
from core.relation.lora import load_relation

ENDINGS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
BIGG_LAYERS, BIGG_WIDTH = 48, 1664


def identity(path: Path) -> str:
    """A file of models/relate."""
    metadata = read_metadata(path)
    if metadata.get("kind", "identity") != "identity":
        return f"not an identity model but of kind '{metadata['kind']}': not checked here"
    state, config = load_identity(path)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    whole = "the released model's sizes" if config == RELEASED else f"sizes of its own: {config.resampler}"
    count = sum(tensor.numel() for tensor in state.values())
    return f"identity model, {len(state)} tensors, {count:,} parameters, {'/'.join(dtypes)}, {whole}"


def vision(path: Path) -> str:
    """A file of models/clip_vision: only ViT-bigG/14 in one of its two layouts is ours to judge."""
    keys = read(path)[0]
    keys = keys.get("state_dict", keys)
    names = [key.removeprefix("module.") for key in keys]
    if any(name.startswith("visual.") for name in names):
        tower = load_vision_tower(path)
        depth = len({key.split(".")[3] for key in tower if ".resblocks." in key})
        width = tower["visual.class_embedding"].shape[0]
        layout = "open_clip"
    elif "vision_model.embeddings.class_embedding" in keys:
        depth = len({name.split(".")[3] for name in names if name.startswith("vision_model.encoder.layers.")})
        width = keys["vision_model.embeddings.class_embedding"].shape[0]
        layout = "transformers"
    else:
        return f"no CLIP: not checked. {describe(names)}"
    fits = (depth, width) == (BIGG_LAYERS, BIGG_WIDTH)
    return (f"CLIP vision encoder in {layout} layout, {depth} layers of width {width}: "
            + ("ViT-bigG/14, as the released identity model needs" if fits else "not ViT-bigG/14"))


def relation(path: Path) -> str:
    """A file of models/loras: judged as a relation LoRA when its cross-attentions are SDXL's."""
    try:
        lora = load_relation(path, SDXL)
    except ValueError as error:
        return f"no relation LoRA for SDXL: not checked ({error})"
    extra = f"; {len(lora.left_out)} other modules are not for Load Relation" if lora.left_out else ""
    named = f", '{lora.relation}'" if lora.relation else ""
    return f"LoRA, {lora.report()}{named}{extra}"


FOLDERS: dict[str, Callable[[Path], str]] = {"relate": identity, "clip_vision": vision, "loras": relation}


def check(models: Path) -> tuple[int, int]:
    """Print a line a file; the number of files and of those with faults."""
    checked = faults = 0
    for folder, judge in FOLDERS.items():
        files = sorted(file for file in (models / folder).rglob("*") if file.suffix in ENDINGS)
        if not files:
            sys.stdout.write(f"{folder}/: no files\n")
        for file in files:
            checked += 1
            try:
                verdict = f"ok     {judge(file)}"
            except ValueError as error:
                faults += 1
                verdict = f"FAULT  {error}"
            sys.stdout.write(f"{file.relative_to(models)}: {verdict}\n")
    return checked, faults


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", type=Path, metavar="MODELS_FOLDER", help="the models folder of a ComfyUI")
    checked, faults = check(options.parse_args().models)
    sys.stdout.write(f"{checked} files checked, {faults} with faults\n")
    sys.exit(1 if faults or not checked else 0)


if __name__ == "__main__":
    main()
