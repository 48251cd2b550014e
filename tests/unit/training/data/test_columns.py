"""Two crops side by side: each column keeps its subject, whatever the other has."""

from dataclasses import replace

import torch

from tests.unit.synthetic_triplets import write_authors
from training.config import DataConfig
from training.data.columns import two_columns
from training.data.dataset import load_triplets, prepare


def test_columns_of_different_joints_keep_their_own(tmp_path):
    write_authors(tmp_path / "hug")
    config = DataConfig(folder=str(tmp_path / "hug"), image_px=64)
    one, other = (prepare(triplet, config) for triplet in load_triplets(config, "hugging")[:2])
    few = replace(
        one,
        keypoints_target=one.keypoints_target[:, :3],
        keypoints_concepts=one.keypoints_concepts[:, :3],
        visible=one.visible[:, :3],
    )
    many = other.visible.shape[1]
    for pair, sides in (((few, other), (3, many)), ((other, few), (many, 3))):
        both = two_columns(*pair)
        subjects = (0, len(pair[1].boxes) - 1)
        assert both.target.shape == one.target.shape and both.visible.shape == (2, many)
        assert both.triplet.names == tuple(each.triplet.names[at] for each, at in zip(pair, subjects))
        for column, (each, at, joints) in enumerate(zip(pair, subjects, sides)):
            assert torch.equal(both.keypoints_concepts[column, :joints], each.keypoints_concepts[at])
            assert not both.visible[column, joints:].any() and not both.keypoints_concepts[column, joints:].any()
        assert both.boxes[0, 2] <= 0.5 <= both.boxes[1, 0]
