"""Everything frozen about pictures of subjects, encoded once, kept on disk by content, read again row by row.

A detection set does not fit into memory, so a step reads the files of its own rows: the latents, and for each subject
the image encoder's patch tokens and embedding of every view of its reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from core.checkpoint import save
from core.subject.reference import encoder_pixels

from ..common.errors import UserErrors
from ..config.subject import SubjectConfig
from ..host_diffusers.images import encode_pictures, patches_and_embedding
from ..host_diffusers.subject_base import SubjectModels
from .encoded_triplets import pad_to
from .encoding_cache import is_whole
from .frozen_encoding import free_memory
from .square_crop import SquareCrop
from .subject_prompts import PromptRow
from .subject_samples import prepare_sample
from .subject_scenes import SubjectScene, crop_scene

_VERSION = 1  # of the cache; raised whenever an encoding changes


@dataclass(frozen=True, eq=False)
class SubjectBatch:
    """B rows, padded to S subjects.

    Attributes:
        latents: (B, C, h, w), scaled; time_ids: (B, 6).
        patches: (B, S, T, I); embeddings: (B, S, E) of one view each.
        boxes: (B, S, 4); present: (B, S) bool.
        segmentations: (B, S, px, px) float, 0 or 1.
        ids: for each text encoder (B, 77).
        placeholders, labels: (B, S) positions in the prompt, -1 where there is none.
    """

    latents: Tensor
    time_ids: Tensor
    patches: Tensor
    embeddings: Tensor
    boxes: Tensor
    present: Tensor
    segmentations: Tensor
    ids: tuple[Tensor, ...]
    placeholders: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> SubjectBatch:
        moved = {
            name: tuple(part.to(device) for part in value) if isinstance(value, tuple) else value.to(device)
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }
        return SubjectBatch(**moved)


@dataclass(frozen=True, eq=False)
class EncodedSubjects:
    """Rows on disk.

    Attributes:
        files: one a row.
        prompts: of the same rows.
        subjects: S that batches are padded to.
        latent: (C, h, w) of every row.
    """

    files: tuple[Path, ...]
    prompts: tuple[PromptRow, ...]
    subjects: int
    latent: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: Tensor, views: Tensor) -> SubjectBatch:
        """Read rows (B,), of every subject the view with number `views` (B,) modulo how many there are."""
        loaded = [load_file(self.files[row]) for row in rows.tolist()]
        prompts = [self.prompts[row] for row in rows.tolist()]
        views = [int(view) % row["patches"].shape[1] for view, row in zip(views, loaded)]
        px = loaded[0]["latents"].shape[-1] * 8
        present = torch.zeros(len(loaded), self.subjects, dtype=torch.bool)
        for index, row in enumerate(loaded):
            present[index, : len(row["boxes"])] = True
        segmentations = [torch.from_numpy(np.unpackbits(row["segmentations"].numpy(), axis=-1)) for row in loaded]
        return SubjectBatch(
            torch.stack([row["latents"] for row in loaded]),
            torch.stack([row["time_ids"] for row in loaded]),
            self._padded([row["patches"][:, view].float() for row, view in zip(loaded, views)]),
            self._padded([row["embeddings"][:, view] for row, view in zip(loaded, views)]),
            self._padded([row["boxes"] for row in loaded]),
            present,
            self._padded([segmentation[..., :px].float() for segmentation in segmentations]),
            tuple(torch.stack(of_encoder) for of_encoder in zip(*(prompt.ids for prompt in prompts))),
            self._padded([prompt.placeholders for prompt in prompts], -1),
            self._padded([prompt.labels for prompt in prompts], -1),
        )

    def _padded(self, rows: Sequence[Tensor], fill: float = 0) -> Tensor:
        return torch.stack([pad_to(row, (self.subjects, *row.shape[1:]), fill) for row in rows])


def rows_of(scenes: Sequence[SubjectScene], config: SubjectConfig) -> list[tuple[SubjectScene, SquareCrop]]:
    """List every crop of every picture that shows a subject.

    Raises:
        UserErrors: none does.
    """
    crops = (
        crop_scene(scene, config.data, crop, config.train.seed) for scene in scenes for crop in range(config.data.crops)
    )
    rows = [row for row in crops if row is not None]
    if not rows:
        raise UserErrors('data.fit: no crop shows a subject; use "pad", or more data.crops.')
    return rows


def encode_subjects(
    rows: Sequence[tuple[SubjectScene, SquareCrop]],
    prompts: Sequence[PromptRow],
    config: SubjectConfig,
    models: SubjectModels,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> EncodedSubjects:
    """Encode every row that the cache does not have.

    Args:
        rows: from `rows_of`; prompts: of the same rows.
        device, dtype: where and in which precision the image encoder runs; the VAE is float32.
        progress: called with what is being done.
    """
    fingerprint = models.fingerprint()
    files = [
        Path(config.output.cache) / f"{_key(scene, place, config, fingerprint, dtype)}.safetensors"
        for scene, place in rows
    ]
    missing = [index for index, file in enumerate(files) if not is_whole(file)]
    if missing:
        progress(f"encoding {len(missing)} of {len(rows)} pictures")
        vae, vision = models.base.vae().to(device), models.vision(dtype).to(device)
        for index in tqdm(missing, desc="pictures", unit="", mininterval=1):
            save(files[index], _encoded(*rows[index], config, vae, vision), {"kind": "encoded subjects"})
        del vae, vision
        free_memory(device)
    latent = tuple(load_file(files[0])["latents"].shape)
    return EncodedSubjects(tuple(files), tuple(prompts), config.adapter.max_subjects, latent)


def _key(scene: SubjectScene, place: SquareCrop, config: SubjectConfig, models: str, dtype: torch.dtype) -> str:
    data = config.data
    made_of = [_VERSION, models, str(dtype), data.image_px, vars(place), data.views, config.train.seed]
    return sha256(json.dumps([*made_of, scene.digest, scene.names, bool(scene.photographs)]).encode()).hexdigest()


def _encoded(scene: SubjectScene, place: SquareCrop, config: SubjectConfig, vae, vision) -> dict[str, Tensor]:
    sample = prepare_sample(scene, place, config.data, config.train.seed)
    size = vision.config.image_size
    views = torch.stack([encoder_pixels(view, size) for of_subject in sample.references for view in of_subject])
    patches, embeddings = patches_and_embedding(vision, views)
    shape = (len(sample.references), config.data.views)
    return {
        "latents": encode_pictures(vae, sample.target[None])[0],
        "time_ids": sample.time_ids,
        "boxes": sample.boxes,
        "segmentations": torch.from_numpy(np.packbits(sample.segmentations.numpy(), axis=-1)),
        "patches": patches.half().unflatten(0, shape),
        "embeddings": embeddings.unflatten(0, shape),
    }
