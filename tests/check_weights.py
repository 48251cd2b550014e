"""Check published weights on this machine: python -m tests.check_weights MODELS_FOLDER

Published weights are too large for the tests of this repository, so whoever has them can check that all of them load.
Looks in a ComfyUI's models folder (relate/, clip_vision/, loras/) at every file there, whatever its name ends in, reads
each with the reader the nodes and the training use, and prints one line about it. Exit code 0 when at least one file of
tensors was checked and all are well; 1 when one has faults or there was nothing to check. Files of other packs in
clip_vision/ and loras/ are told apart and named, not failed, unless they are broken.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoint import kind_of, read, read_metadata, tensors_of
from core.cross_attention_layers import SDXL
from core.identity.files import RELEASED, load_identity, load_vision_tower
from core.key_report import describe
from core.lora_keys import first_names, split_key
from core.relation.lora import load_relation
from core.routing.files import TABLES, load_tables

ENDINGS = {".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt"}  # a file that is so called must be one
BIGG_LAYERS, BIGG_WIDTH = 48, 1664


def identity(path: Path) -> str:
    """A file of models/relate."""
    metadata = read_metadata(path)
    if metadata.get("kind", "identity") != "identity":
        return f"not an identity model but of kind '{metadata['kind']}': not checked here"
    tensors, _ = tensors_of(read(path)[0])
    if TABLES[0] in tensors:
        check_finite(tensors, path.name)
        words = "with" if load_tables(path).words is not None else "without"
        return f"DreamO's embeddings, {words} those of its placeholders"
    state, config = load_identity(path)
    check_finite(state, path.name)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    whole = "the released model's sizes" if config == RELEASED else f"sizes of its own: {config.resampler}"
    count = sum(tensor.numel() for tensor in state.values())
    return f"identity model, {len(state)} tensors, {count:,} parameters, {'/'.join(dtypes)}, {whole}"


def vision(path: Path) -> str:
    """A file of models/clip_vision: only ViT-bigG/14 in one of its two layouts is ours to judge."""
    content = read(path)[0]
    inner = content.get("state_dict", content)
    tensors, _ = tensors_of(
        {str(key).removeprefix("module."): value for key, value in inner.items()}
        if isinstance(inner, dict)
        else content
    )
    if any(name.startswith("visual.") for name in tensors):
        tower = load_vision_tower(path)
        depth = len({key.split(".")[3] for key in tower if ".resblocks." in key})
        width = tower["visual.class_embedding"].shape[0]
        layout = "open_clip"
    elif "vision_model.embeddings.class_embedding" in tensors:
        tower = {name: tensor for name, tensor in tensors.items() if name.startswith("vision_model.")}
        depth = len({name.split(".")[3] for name in tower if name.startswith("vision_model.encoder.layers.")})
        width = tower["vision_model.embeddings.class_embedding"].numel()
        layout = "transformers"
    else:
        return f"no CLIP: not checked. {describe(tensors)}".rstrip()
    check_finite(tower, path.name)
    fits = (depth, width) == (BIGG_LAYERS, BIGG_WIDTH)
    return f"CLIP vision encoder in {layout} layout, {depth} layers of width {width}: " + (
        "ViT-bigG/14, as the released identity model needs" if fits else "not ViT-bigG/14"
    )


def relation(path: Path) -> str:
    """A file of models/loras: judged as a relation LoRA when its cross-attentions are SDXL's."""
    tensors, _ = tensors_of(read(path)[0])
    keys = [key for key in map(split_key, tensors) if key is not None]
    if not any(key.role in ("down", "up") for key in keys):
        return f"no relation LoRA for SDXL: not checked. {describe(tensors)}".rstrip()
    check_finite(tensors, path.name)
    halves = Counter(key.spelled for key in keys if key.role in ("down", "up"))
    single = [module for module, count in halves.items() if count != 2]
    if single:
        raise ValueError(
            f"{path.name}: {len(single)} of {len(halves)} pairs have only one half: {first_names(single)}. The "
            "file is not whole: download it again."
        )
    try:
        lora = load_relation(path, SDXL)
    except ValueError as error:
        if re.search(r": 0 of \d+ text cross-attentions|: (\d+) of \1 pairs do not fit", str(error)) is None:
            raise
        return f"no relation LoRA for SDXL: not checked ({error})"
    named = f", '{lora.relation}'" if lora.relation else ""
    return "; ".join((f"LoRA, {lora.report()}{named}", *lora.remarks()))


def check_finite(tensors: dict[str, Tensor], file: str) -> None:
    """No weight is NaN or infinite.

    Raises:
        ValueError: some are.
    """
    broken = [
        key
        for key, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all())
    ]
    if broken:
        raise ValueError(
            f"{file}: {len(broken)} of {len(tensors)} tensors hold NaN or infinity: {first_names(broken)}. The "
            "file was damaged when it was made: get it again."
        )


FOLDERS: dict[str, Callable[[Path], str]] = {"relate": identity, "clip_vision": vision, "loras": relation}


def judge(path: Path, reader: Callable[[Path], str]) -> tuple[str, str]:
    """One file's mark ("ok", "FAULT", or "-" where it is no file of tensors) and what is said of it in one line."""
    try:
        if kind_of(path) is None and path.suffix.lower() not in ENDINGS:
            return "-", "no file of tensors: not checked"
        mark, said = "ok", reader(path)
    except ValueError as error:
        mark, said = "FAULT", str(error)
    except Exception as error:  # a stranger's file may break a reader in a way nobody thought of
        mark, said = "FAULT", f"{path.name}: cannot be judged ({type(error).__name__}: {error})"
    return mark, " ".join(said.split())


def files_of(folder: Path) -> list[Path]:
    """Every file under a folder; hidden ones, and those in hidden folders (.cache, .git), are not the user's."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def check(models: Path) -> tuple[int, int]:
    """Print a line a file; the number of files of tensors and of those with faults."""
    marks: Counter[str] = Counter()
    for folder, reader in FOLDERS.items():
        files = files_of(models / folder)
        if not files:
            say(f"{folder}/: no files")
        for file in files:
            mark, said = judge(file, reader)
            marks[mark] += 1
            say(f"{file.relative_to(models).as_posix()}: {mark:6} {said}")
    return marks["ok"] + marks["FAULT"], marks["FAULT"]


def say(line: str) -> None:
    """Print a line on any terminal, letters that it does not have escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("models", type=Path, metavar="MODELS_FOLDER", help="the models folder of a ComfyUI")
    checked, faults = check(options.parse_args().models)
    say(f"{checked} files checked, {faults} with faults")
    sys.exit(1 if faults or not checked else 0)


if __name__ == "__main__":
    main()
