"""Apply Scene keeps its references in their boxes on every engine, and what the text encoder saw of them as well."""

import pytest
import torch

from tests.host.scene_studio import FAMILIES, photograph

SEEN_BY_THE_ENCODER = ("longcat", "qwen_edit", "qwen_edit_2511", "mage", "joyimage", "boogu")


@pytest.fixture(params=FAMILIES)
def family(request, scenes) -> str:
    if request.param not in scenes.native.NAMES:
        pytest.skip(f"this ComfyUI has no {request.param}")
    return request.param


def applied(scenes, family, **inputs):
    """A small picture of one or two subjects."""
    images = [photograph(64, 64, seed=1), photograph(64, 96, seed=2)]
    scene = scenes.scene(*(images[:1] if family == "longcat" else images))
    return scenes.apply(family, scene, width=128, height=64, reference_size=0.02, **inputs)


def sampled(scenes, made):
    with torch.inference_mode():
        return scenes.comfy.KSampler().sample(
            model=made.model,
            seed=1,
            steps=1,
            cfg=3.0,
            sampler_name="euler",
            scheduler="simple",
            positive=made.positive,
            negative=made.negative,
            latent_image=made.latent,
        )[0]["samples"]


@pytest.mark.parametrize("family", ["kontext", "flux2", "krea2", "mage", "omnigen2", "z_image_omni"])
def test_engines_whose_references_may_be_small_are_steered(scenes, family, caplog):
    """The others scale references to a megapixel; test_native_references.py draws with them."""
    if family not in scenes.native.NAMES:
        pytest.skip(f"this ComfyUI has no {family}")
    hard = applied(scenes, family, strength=20.0)
    found, plain = sampled(scenes, hard), sampled(scenes, applied(scenes, family))
    assert torch.isfinite(found).all() and not torch.equal(found, plain)
    assert "not kept in place" not in caplog.text


def test_the_encoders_copies_and_the_names_are_known(scenes, family):
    made = applied(scenes, family, strength=3.0)
    key = scenes.pack.module("nodes.host_comfy.references.steer").KEY
    placed = made.positive[0][1]["model_conds"][key].cond[0]
    pictures = [[stop - start for start, stop in spans if stop - start > 1] for spans in placed.copies]
    words = [[start for start, stop in spans if stop - start == 1] for spans in placed.copies]
    assert all(bool(each) == (family in SEEN_BY_THE_ENCODER) for each in pictures)
    assert all(words)  # "cat", "plushie bear"
