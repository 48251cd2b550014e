"""Memory law: what is remembered of a picture and a mask goes when either of them goes."""

import gc
import weakref

import pytest
import torch

from tests.host.pictures import photograph


@pytest.fixture
def image():
    return photograph(40, 60, seed=3)


def mask_of(number, height=40, width=60):
    mask = torch.zeros(1, height, width)
    mask[:, 4 : 20 + number, 5:30] = 1.0
    return mask


def alive(references):
    gc.collect()
    return sum(reference() is not None for reference in references)


def test_forty_masks_of_one_picture_leave_one_pair(pack, image):
    """Forty masks, one after the other, as when Grow Mask is moved and the picture stays in ComfyUI's cache."""
    read = pack.module("nodes.pipelines.subject_images").read_photographs
    kept, mask = [], None
    for number in range(20):
        mask = mask_of(number)
        kept += [weakref.ref(tensor) for tensor in read(image, mask)]
    assert alive(kept) == 2
    assert read(image, mask)[0] is kept[-2]()  # the living pair is remembered
    del mask
    assert alive(kept) == 0


def test_a_picture_that_goes_takes_its_pairs_along(pack):
    read = pack.module("nodes.pipelines.subject_images").read_photographs
    mask, image = mask_of(0), photograph(40, 60, seed=4)
    kept = [weakref.ref(tensor) for tensor in (*read(image, mask), read(image, None)[0])]
    assert alive(kept) == 3
    del image
    assert alive(kept) == 0


def test_the_same_picture_without_a_mask_is_read_once(pack, image):
    read = pack.module("nodes.pipelines.subject_images").read_photographs
    assert read(image, None)[0] is read(image, None)[0]


def features_kept(encoders):
    gc.collect()
    return len(encoders._remembered._entries)


def test_features_of_eight_masks_leave_one_set(studio, pack, image):
    encoders = pack.module("nodes.host_comfy.sdxl.encoders")
    before = features_kept(encoders)
    for number in range(8):
        scene = studio.scene({"name": "corgi", "image": image, "mask": mask_of(number)})
        with torch.inference_mode():
            tokens = encoders.image_tokens(scene.subjects[0], studio.base.clip_vision)
            assert encoders.image_tokens(scene.subjects[0], studio.base.clip_vision) is tokens
    assert features_kept(encoders) == before + 1
    del scene, tokens
    assert features_kept(encoders) == before


def test_features_go_with_the_encoder_that_made_them(studio, pack, tiny, image):
    """A CLIP vision model that is loaded again, with the photographs in the cache."""
    encoders = pack.module("nodes.host_comfy.sdxl.encoders")
    subject = studio.scene({"name": "corgi", "image": image}).subjects[0]
    made = []
    with torch.inference_mode():
        for seed in range(3):
            made.append(weakref.ref(encoders.image_tokens(subject, tiny.clip_vision(seed=seed))))
    assert alive(made) == 0
