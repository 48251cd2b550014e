"""Pictures, prompts and encoders to the scores of each picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..common.errors import UserErrors
from ..common.image_files import open_image
from ..host_diffusers.embedders import Embedder
from .prompts import Entry
from .scores import similarity, subject_similarity


def score_pictures(
    entries: Sequence[Entry], predicates: Sequence[str | None], clip: Embedder, dino: Embedder | None, batch: int
) -> list[dict[str, float | None]]:
    """RelationBench's scores of every picture; every file and every text is encoded once.

    Args:
        entries: N pictures and what they should show.
        predicates: N predicates, None where there is none.
        clip: with a text half.
        dino: None leaves the column out.
        batch: pictures encoded at once.

    Returns:
        N times metric to 100 cos; None where a picture has no predicate or no references.

    Raises:
        UserErrors: pictures that cannot be decoded, all of them.
    """
    files = list(dict.fromkeys(file for entry in entries for file in (entry.picture, *entry.references)))
    row = {file: index for index, file in enumerate(files)}
    embedders = [clip] if dino is None else [clip, dino]
    of_clip, *of_dino = embed_files([embedder.pictures for embedder in embedders], files, batch)
    texts = list(dict.fromkeys([entry.prompt for entry in entries] + [text for text in predicates if text]))
    of_text = dict(zip(texts, _embed_texts(clip, texts, batch)))
    drawn = [row[entry.picture] for entry in entries]
    references = [[row[file] for file in entry.references] for entry in entries]
    columns: dict[str, list[float | None]] = {
        "CLIP-T": similarity(of_clip[drawn], torch.stack([of_text[entry.prompt] for entry in entries])).tolist(),
        "CLIP-R": [
            float(similarity(of_clip[index], of_text[text])) if text else None for index, text in zip(drawn, predicates)
        ],
        "CLIP-I": subject_similarity(of_clip[drawn], of_clip, references),
    }
    for vectors in of_dino:
        columns["DINO"] = subject_similarity(vectors[drawn], vectors, references)
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def embed_files(encoders: Sequence[Callable], files: Sequence[Path], batch: int) -> list[Tensor]:
    """Decode each file once and show it to each encoder: one (F, E) an encoder.

    Raises:
        UserErrors: every file that is not a whole picture.
    """
    found: list[list[Tensor]] = [[] for _ in encoders]
    faults: list[str] = []
    with tqdm(total=len(files), desc="pictures", unit="") as bar:
        for start in range(0, len(files), batch):
            pictures = []
            for file in files[start : start + batch]:
                try:
                    pictures.append(open_image(file))
                except ValueError as error:
                    faults.append(str(error))
            if not faults:
                for vectors, encode in zip(found, encoders):
                    vectors.append(encode(pictures))
            bar.update(len(files[start : start + batch]))
    if faults:
        raise UserErrors(faults)
    return [torch.cat(vectors) for vectors in found]


def _embed_texts(clip: Embedder, texts: Sequence[str], batch: int) -> Tensor:
    return torch.cat([clip.texts(texts[start : start + batch]) for start in range(0, len(texts), batch)])
