"""Encode Identity: what is computed once, what progress is shown, and that the photographs decide the picture."""

import pytest
import torch

from tests.host.pictures import photograph
from tests.host.studio import LEFT, RIGHT


@pytest.fixture
def encoder(tiny):
    """An encoder that counts the pictures it reads."""
    with torch.inference_mode():
        clip_vision = tiny.clip_vision(seed=4)
    clip_vision.pictures = 0

    def count(module, arguments, keywords=None):
        clip_vision.pictures += len(arguments[0])

    clip_vision.model.vision_model.embeddings.patch_embedding.register_forward_pre_hook(count)
    return clip_vision


def test_a_photograph_is_encoded_once_whatever_changes_around_it(studio, encoder):
    image = photograph(50, 40, seed=31)
    first = studio.scene({"name": "corgi", "image": image, "box": LEFT})
    studio.identity(first, clip_vision=encoder)
    assert encoder.pictures == 1
    moved = studio.scene({"name": "small dog", "image": image, "box": RIGHT, "weight": 0.4})
    studio.identity(moved, clip_vision=encoder, ground_with="learned")
    assert encoder.pictures == 1
    joined = studio.scene(
        {"name": "corgi", "image": image, "box": LEFT}, {"name": "fox", "image": photograph(30, 30), "box": RIGHT}
    )
    studio.identity(joined, clip_vision=encoder)
    assert encoder.pictures == 2


def test_another_grid_pools_the_same_dense_map(studio, encoder, tiny_sdxl):
    scene = studio.scene({"name": "corgi", "image": photograph(50, 40, seed=32)})
    latents = []
    for grid in (4, 2):
        identity = studio.identity(scene, clip_vision=tiny_sdxl.clip_vision, local_clip_vision=encoder, local_grid=grid)
        latents.append(studio.sample(studio.apply(identity)))
    assert encoder.pictures == 1 and not torch.equal(*latents)


def test_another_mask_is_another_subject(studio, encoder):
    image, mask = photograph(50, 40, seed=33), torch.zeros(1, 50, 40)
    mask[:, 10:40, 5:30] = 1
    plain = studio.identity(studio.scene({"name": "corgi", "image": image}), clip_vision=encoder)
    masked = studio.identity(studio.scene({"name": "corgi", "image": image, "mask": mask}), clip_vision=encoder)
    assert encoder.pictures == 2
    assert not torch.equal(studio.sample(studio.apply(plain)), studio.sample(studio.apply(masked)))


def test_several_photographs_of_one_subject_are_all_read(studio, encoder):
    views = torch.cat([photograph(40, 40, seed=seed) for seed in (41, 42, 43)])
    three = studio.identity(studio.scene({"name": "corgi", "image": views}), clip_vision=encoder)
    assert encoder.pictures == 3
    first = studio.identity(studio.scene({"name": "corgi", "image": views[:1].clone()}), clip_vision=encoder)
    assert not torch.equal(studio.sample(studio.apply(three)), studio.sample(studio.apply(first)))


def test_the_photograph_and_the_name_both_count(studio):
    image = photograph(50, 40, seed=34)
    latents = [
        studio.sample(studio.apply(studio.identity(studio.scene({"name": name, "image": picture}))))
        for name, picture in (("corgi", image), ("teapot", image), ("corgi", photograph(50, 40, seed=35)))
    ]
    assert not torch.equal(latents[0], latents[1]) and not torch.equal(latents[0], latents[2])


def test_progress_reaches_its_end(studio, tiny, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total)))
    with torch.inference_mode():
        local = tiny.clip_vision(seed=6)
    studio.identity(studio.scene({"name": "corgi", "image": photograph(50, 40, seed=36)}), local_clip_vision=local)
    assert len(seen) >= 2 and seen[-1][0] == seen[-1][1]


def test_both_file_kinds_hold_one_model(studio):
    """The weights to the bit; pictures nearly, since processors add mapped memory in another order."""
    scene = studio.scene({"name": "corgi", "image": photograph(50, 40, seed=37)})
    models = [studio.identity_model(f"small_ms_adapter.{end}") for end in ("bin", "safetensors")]
    first, second = (model.patcher.model.state_dict() for model in models)
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    pictures = [studio.sample(studio.apply(studio.identity(scene, identity_model=model))) for model in models]
    torch.testing.assert_close(*pictures, rtol=1e-3, atol=1e-2)  # of values up to 300


def test_preview_of_local_features_is_a_picture_for_each_photograph(studio, pack, tiny):
    with torch.inference_mode():
        local = tiny.clip_vision(seed=6)
    scene = studio.scene(
        {"name": "corgi", "image": photograph(50, 40, seed=38)}, {"name": "fox", "image": photograph(30, 60, seed=39)}
    )
    image = pack.run("RelateFeaturePreview", scene=scene, local_clip_vision=local)
    assert image.shape[0] == 2 and image.shape[-1] == 3
    assert 0 <= image.min() and image.max() <= 1 and image.std() > 0.01


def test_preview_of_the_layout_shows_the_boxes(studio, pack):
    scene = studio.scene(
        {"name": "corgi", "image": photograph(50, 40), "box": (0.0, 0.0, 0.4, 0.4)},
        {"name": "fox", "image": photograph(30, 60), "box": (0.6, 0.6, 1.0, 1.0)},
    )
    image = pack.run("RelateLayoutPreview", scene=scene, width=200, height=120)
    assert image.shape == (1, 120, 200, 3) and 0 <= image.min() and image.max() <= 1
    assert image[0, :40, :70].std() > image[0, 80:110, 10:100].std()  # a subject there, nobody here
