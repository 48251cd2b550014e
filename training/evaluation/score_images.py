"""Embed pictures and prompts, and score each picture."""

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
    """Score every picture as RelationBench does; every file and every text is encoded once.

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
    row_of_file = {file: index for index, file in enumerate(files)}
    embedders = [clip] if dino is None else [clip, dino]
    clip_vectors, *dino_vectors = embed_files([embedder.pictures for embedder in embedders], files, batch)
    texts = list(dict.fromkeys([entry.prompt for entry in entries] + [text for text in predicates if text]))
    text_vectors = dict(zip(texts, _embed_texts(clip, texts, batch)))
    picture_rows = [row_of_file[entry.picture] for entry in entries]
    references = [[row_of_file[file] for file in entry.references] for entry in entries]
    pictures = clip_vectors[picture_rows]  # (N, E)
    columns: dict[str, list[float | None]] = {
        "CLIP-T": similarity(pictures, torch.stack([text_vectors[entry.prompt] for entry in entries])).tolist(),
        "CLIP-R": [
            float(similarity(picture, text_vectors[text])) if text else None
            for picture, text in zip(pictures, predicates)
        ],
        "CLIP-I": subject_similarity(pictures, clip_vectors, references),
    }
    for vectors in dino_vectors:
        columns["DINO"] = subject_similarity(vectors[picture_rows], vectors, references)
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def embed_files(encoders: Sequence[Callable], files: Sequence[Path], batch: int) -> list[Tensor]:
    """Decode each file once and embed it with each encoder: one (F, E) per encoder.

    Raises:
        UserErrors: every file that is not a whole picture.
    """
    vectors_of_each: list[list[Tensor]] = [[] for _ in encoders]
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
                for vectors, encode in zip(vectors_of_each, encoders):
                    vectors.append(encode(pictures))
            bar.update(len(files[start : start + batch]))
    if faults:
        raise UserErrors(faults)
    return [torch.cat(vectors) for vectors in vectors_of_each]


def _embed_texts(clip: Embedder, texts: Sequence[str], batch: int) -> Tensor:
    return torch.cat([clip.texts(texts[start : start + batch]) for start in range(0, len(texts), batch)])
