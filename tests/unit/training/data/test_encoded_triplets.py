"""Rows of different numbers of subjects and joints become one batch: real ones first, padding after them."""

import pytest
import torch

from core.checkpoint import save
from training.data.encoded_flux import EncodedFlux, stack_flux_rows
from training.data.encoded_triplets import EncodedTriplets, stack_rows
from training.data.subject_cache import EncodedSubjects
from training.data.subject_prompts import PromptRow

SHARED = {"latents": (4, 2, 2), "region": (2, 2)}
OF_SUBJECT = {"concept_latents": (4, 2, 2), "present": ()}
OF_JOINT = {"keypoints_target": (2,), "keypoints_concepts": (2,), "visible": ()}
SDXL = {"context": (3, 5), "pooled": (5,), "time_ids": (6,), "span": (3,)}
FLUX = {"context": (2, 3, 5), "pooled": (2, 0), "span": (2, 3), "source": (), "columns": ()}


@pytest.mark.parametrize(
    ("fields", "of_subject", "stack", "kind"),
    [
        (SDXL, {"boxes": (4,), "identity": (3, 5)}, stack_rows, EncodedTriplets),
        (
            FLUX,
            {"references": (4, 1, 1), "places": (), "shares": (2, 2)},
            lambda rows: stack_flux_rows(rows, {"context": torch.ones(1, 3, 5), "pooled": torch.ones(1, 0)}),
            EncodedFlux,
        ),
    ],
)
def test_rows_keep_their_numbers_and_are_padded_with_zeros(fields, of_subject, stack, kind):
    def row(subjects, joints):
        shapes = SHARED | fields | {name: (subjects, *rest) for name, rest in (OF_SUBJECT | of_subject).items()}
        shapes |= {name: (subjects, joints, *rest) for name, rest in OF_JOINT.items()}
        return {name: torch.rand(shape) + 1 for name, shape in shapes.items()}

    rows = [row(1, 4), row(3, 2)]
    batch = stack(rows)
    assert isinstance(batch, kind) and len(batch) == 2
    for name in rows[0]:
        stacked = getattr(batch, name)
        if name in OF_JOINT:
            assert stacked.shape[1:3] == (3, 4)
        elif name in OF_SUBJECT or name in of_subject:
            assert stacked.shape[1] == 3
        for given, padded in zip(rows, stacked):
            assert torch.equal(padded[tuple(slice(size) for size in given[name].shape)], given[name])
            assert padded.count_nonzero() == given[name].count_nonzero()


def test_a_subject_that_is_not_there_has_no_word(tmp_path):
    """Its positions are -1: 0 would be the start token, which every row has."""
    prompts = []
    for index, subjects in enumerate((1, 3)):
        tensors = {"latents": torch.ones(4, 1, 1), "time_ids": torch.ones(6), "boxes": torch.ones(subjects, 4)}
        tensors |= {"patches": torch.ones(subjects, 1, 2, 3), "embeddings": torch.ones(subjects, 1, 5)}
        tensors["segmentations"] = torch.full((subjects, 8, 1), 255, dtype=torch.uint8)
        save(tmp_path / f"{index}.safetensors", tensors, {})
        words = torch.arange(1, subjects + 1)
        prompts.append(PromptRow("", (torch.zeros(77, dtype=torch.long),), words + 10, words))
    files = (tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    batch = EncodedSubjects(files, tuple(prompts), 4, (4, 1, 1)).take(torch.arange(2), torch.zeros(2, dtype=torch.long))
    assert batch.placeholders.tolist() == [[11, -1, -1, -1], [11, 12, 13, -1]]
    assert batch.labels.tolist() == [[1, -1, -1, -1], [1, 2, 3, -1]]
    for name in ("patches", "embeddings", "boxes", "segmentations"):
        sums = getattr(batch, name).flatten(2).sum(-1)
        assert ((sums > 0) == batch.present).all(), name
    assert batch.present.sum(1).tolist() == [1, 3]
