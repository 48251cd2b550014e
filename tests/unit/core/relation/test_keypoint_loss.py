"""The keypoint matching loss against the published system's numbers, a computation by hand, and its laws."""

import numpy as np
import pytest
import torch

from core.relation.keypoint_loss import (
    KeypointPairs,
    keypoint_distances,
    keypoint_loss,
    keypoint_loss_as_released,
    sample_at,
)
from tests import golden_tensors


@pytest.fixture(scope="module")
def golden():
    tensors, _ = golden_tensors.read("dreamrelation_public")
    return {key.removeprefix("kml."): tensor for key, tensor in tensors.items() if key.startswith("kml.")}


def pairs_of(target, concept, visible=None):
    everything = torch.ones(target.shape[:3], dtype=torch.bool)
    return KeypointPairs(target, concept, everything if visible is None else visible)


def test_equals_the_published_numbers(golden):
    pairs = pairs_of(golden["keypoints_target"], golden["keypoints_concept"])
    distances = keypoint_distances(golden["z0"], golden["concept_latents"], pairs)
    torch.testing.assert_close(distances, golden["per_keypoint"], atol=1e-4, rtol=0)
    torch.testing.assert_close(distances.mean() / 4, golden["mse"], atol=1e-4, rtol=0)
    loss = keypoint_loss(golden["z0"], golden["concept_latents"], pairs, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(loss, golden["per_keypoint"].mean(dim=(1, 2)), atol=1e-4, rtol=0)


@pytest.fixture
def published_vector():
    """The published test vector T9: latents drawn from seeds 17 and 18, keypoints from 19 and 20."""

    def normal(seed, *shape):
        return torch.from_numpy(np.random.RandomState(7 + seed).standard_normal(shape)).float()

    def uniform(seed, *shape):
        return torch.from_numpy(np.random.RandomState(7 + seed).random_sample(shape)).float()

    concepts = normal(11, 1, 2, 16, 16, 4).permute(0, 1, 4, 2, 3)
    return normal(10, 1, 4, 16, 16), concepts, pairs_of(uniform(12, 1, 2, 17, 2), uniform(13, 1, 2, 17, 2))


def test_paper_form_and_released_error_of_the_test_vector(published_vector):
    gate = torch.tensor([True])
    assert float(keypoint_loss(*published_vector, gate)) == pytest.approx(8.36466694, abs=1e-5)
    assert float(keypoint_loss_as_released(*published_vector, gate)) == pytest.approx(1.87534738, abs=1e-5)


def test_by_hand():
    clean, concepts = torch.zeros(1, 2, 2, 4), torch.zeros(1, 1, 2, 3, 3)
    clean[0, :, 1, 2] = torch.tensor([3.0, 5.0])  # x in [0.5, 0.75), y in [0.5, 1)
    concepts[0, 0, :, 0, 2] = torch.tensor([1.0, 1.0])  # x in [2/3, 1], y in [0, 1/3)
    pairs = pairs_of(torch.tensor([[[[0.6, 0.5], [0.1, 0.1]]]]), torch.tensor([[[[1.0, 0.2], [0.4, 0.9]]]]))
    gate = torch.tensor([True])
    assert float(keypoint_loss(clean, concepts, pairs, gate)) == (4 + 16 + 0) / 2


def test_invisible_and_gated_pictures_do_not_count():
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(3, 4, 8, 8, generator=generator).requires_grad_()
    concepts = torch.randn(3, 2, 4, 8, 8, generator=generator)
    visible = torch.ones(3, 2, 5, dtype=torch.bool)
    visible[0, 1, 2:] = False
    visible[2] = False
    pairs = pairs_of(torch.rand(3, 2, 5, 2, generator=generator), torch.rand(3, 2, 5, 2, generator=generator), visible)
    loss = keypoint_loss(clean, concepts, pairs, torch.tensor([True, False, True]))
    distances = keypoint_distances(clean, concepts, pairs)
    assert loss[0].item() == pytest.approx(float(distances[0][visible[0]].mean()))
    assert loss[1:].tolist() == [0, 0]
    loss.sum().backward()
    assert clean.grad[0].abs().sum() > 0
    assert clean.grad[1:].abs().sum() == 0
    assert int((clean.grad[0].abs().sum(0) > 0).sum()) <= 7  # only the cells under the visible keypoints


def test_one_visible_joint_counts_whole():
    visible = torch.zeros(1, 1, 3, dtype=torch.bool)
    visible[0, 0, 1] = True
    pairs = pairs_of(torch.rand(1, 1, 3, 2), torch.rand(1, 1, 3, 2), visible)
    clean, concepts = torch.full((1, 2, 4, 4), 3.0), torch.zeros(1, 1, 2, 4, 4)
    assert keypoint_loss(clean, concepts, pairs, torch.tensor([True])).tolist() == [18]
    half = keypoint_loss(clean.half(), concepts.half(), pairs, torch.tensor([True]))
    assert half.dtype == torch.float32 and half.tolist() == [18]


def test_a_batch_is_its_pictures_one_by_one():
    generator = torch.Generator().manual_seed(2)
    clean, concepts = torch.randn(4, 4, 6, 9, generator=generator), torch.randn(4, 3, 4, 6, 9, generator=generator)
    target, concept = torch.rand(4, 3, 17, 2, generator=generator), torch.rand(4, 3, 17, 2, generator=generator)
    gate = torch.ones(4, dtype=torch.bool)
    for loss in (keypoint_loss, keypoint_loss_as_released):
        together = loss(clean, concepts, pairs_of(target, concept), gate)
        apart = [
            loss(clean[i : i + 1], concepts[i : i + 1], pairs_of(target[i : i + 1], concept[i : i + 1]), gate[:1])
            for i in range(4)
        ]
        torch.testing.assert_close(together, torch.cat(apart))


def test_the_last_edge_is_in_the_last_cell():
    latents = torch.arange(12.0).view(1, 3, 4)
    assert sample_at(latents, torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.999, 0.34]])).flatten().tolist() == [11, 0, 7]


def test_wrong_shapes_name_the_input():
    with pytest.raises(ValueError, match="concept keypoints: expected shape"):
        pairs_of(torch.zeros(1, 2, 17, 2), torch.zeros(1, 2, 16, 2))
    with pytest.raises(ValueError, match="keypoint visibility: expected shape"):
        pairs_of(torch.zeros(1, 2, 17, 2), torch.zeros(1, 2, 17, 2), torch.ones(1, 2, 16))
    pairs = pairs_of(torch.zeros(1, 2, 17, 2), torch.zeros(1, 2, 17, 2))
    for shape in ((1, 3, 4, 8, 8), (2, 2, 4, 8, 8), (1, 2, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"concept latents: expected shape .* with B = 1, C = 4, S = 2, got"):
            keypoint_distances(torch.zeros(1, 4, 8, 8), torch.zeros(shape), pairs)
    with pytest.raises(ValueError, match="predicted latents: expected shape .* with B = 1, got"):
        keypoint_distances(torch.zeros(2, 4, 8, 8), torch.zeros(2, 2, 4, 8, 8), pairs)
    with pytest.raises(ValueError, match=r"noise gate: expected shape \(B\) with B = 1, got \(2,\)"):
        keypoint_loss(torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 4, 8, 8), pairs, torch.ones(2, dtype=torch.bool))
