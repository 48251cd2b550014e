"""Local tokens that join CLIP's in three ways: what the resampler reads, and a short training of each."""

from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file

from tests.recipe.tiny_runs import Crash
from tests.surface import ROOT
from training.host_diffusers.miniworld.bundle import load_miniworld
from training.miniworld.experiments import ablate, injection
from training.miniworld.experiments.injection import ADDED, CONCATENATED, MIXED, Injection, with_injection
from training.miniworld.experiments.measure import renders


@pytest.fixture(scope="module")
def world():
    return load_miniworld()


@pytest.fixture
def features():
    """Of one subject: a class token, 8 x 8 patches, and local tokens that are their own numbers."""
    local = torch.arange(16.0)[None, :, None].expand(1, 16, 4)
    return torch.cat((torch.rand(1, 65, 4), local), dim=1)


def test_concatenated_features_stay_as_they_are(features):
    assert torch.equal(Injection(CONCATENATED, 4)(features), features)


def test_added_local_tokens_lie_on_their_patches(features):
    read = Injection(ADDED, 4)(features)
    assert read.shape == (1, 65, 4) and torch.equal(read[:, 0], features[:, 0])
    added = (read - features[:, :65])[0, 1:, 0].unflatten(0, (8, 8))
    for row, column, token in ((0, 0, 0), (1, 1, 0), (0, 2, 1), (2, 0, 4), (7, 7, 15), (5, 3, 9)):
        assert added[row, column].item() == pytest.approx(token, abs=1e-5)


def test_a_layer_begins_as_clips_patches_alone(features):
    mixed = Injection(MIXED, 4)
    torch.testing.assert_close(mixed(features), features[:, :65])
    with torch.no_grad():
        mixed.mix.weight[:, 4:] += torch.eye(4)
    torch.testing.assert_close(mixed(features), Injection(ADDED, 4)(features))


@pytest.mark.parametrize("way", [CONCATENATED, ADDED, MIXED])
def test_a_trained_branch_acts_inside_its_block_alone(world, tmp_path, monkeypatch, way):
    monkeypatch.setattr(injection, "SCENES", 3)
    before = {name: value.clone() for name, value in world.identity.state_dict().items()}
    unet = world.unet.conv_in.weight.clone()
    file = injection.train_injection(world, way, tmp_path, 0, steps=2)
    inputs = torch.randn(2, 81, 128), torch.randn(2, 64), torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 1, 1.0]])
    own = world.identity.image_proj(*inputs)
    with with_injection(world, way, file):
        assert not torch.equal(world.identity.image_proj(*inputs), own)
    assert torch.equal(world.identity.image_proj(*inputs), own) and torch.equal(world.unet.conv_in.weight, unet)
    assert all(torch.equal(value, before[name]) for name, value in world.identity.state_dict().items())
    state = load_file(file)
    assert {name.split(".")[0] for name in state} == {"identity"} | ({"injection"} if way == MIXED else set())
    changed = [name for name, value in state.items() if not torch.equal(value, before.get(name[9:], value + 1))]
    assert any("ms_adapter" in name for name in changed) and any("image_proj" in name for name in changed)
    monkeypatch.setattr(injection, "denoiser_of", None)  # a second call only takes the file
    assert injection.train_injection(world, way, tmp_path, 0, steps=2) == file


def test_a_branch_is_trained_on_the_base_and_draws_with_the_relation(world, tmp_path, monkeypatch):
    lora = ROOT / "models/miniworld/relations/miniworld_hugging.safetensors"
    base = {name: value.clone() for name, value in world.unet.state_dict().items()}
    is_base = []

    def look(*_):
        is_base.append(all(torch.equal(value, base[name]) for name, value in world.unet.state_dict().items()))

    def train(given, way, folder, seed):
        look()
        return tmp_path / "injection.safetensors"

    def draw(given, plans, seed, how):
        look()
        return renders(plans)

    def classified(*inputs):
        raise Crash

    monkeypatch.setattr(ablate, "train_relation", lambda *_: lora)
    monkeypatch.setattr(ablate, "train_injection", train)
    monkeypatch.setattr(ablate, "with_injection", lambda *_: nullcontext())
    monkeypatch.setattr(ablate, "generate_images", draw)
    monkeypatch.setattr(ablate, "classify", classified)
    row = next(row for row in ablate.ROWS if row.injection == ADDED)
    with pytest.raises(Crash):
        ablate._count(tmp_path, world, None, row, 0, 1)
    look()
    assert is_base == [True, False, True]
