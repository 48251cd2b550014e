"""Laws of Apply Identity and Load Relation on ComfyUI's own sampler: absence, cleanness, locality, any shape."""

import copy

import pytest
import torch

from tests.host.pictures import photograph
from tests.host.studio import LEFT, RIGHT


@pytest.fixture(scope="module")
def scene(studio):
    return studio.scene(
        {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
        {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
    )


@pytest.fixture(scope="module")
def identity(studio, scene):
    return studio.identity(scene)


@pytest.fixture(scope="module")
def plain(studio):
    return studio.sample()


@pytest.fixture(scope="module")
def acted(studio, identity):
    return studio.sample(studio.apply(identity))


def patches_of(model):
    """What is attached to a MODEL, deep enough that any change to it shows."""
    options = model.model_options["transformer_options"]
    slots = {block: dict(slot) for block, slot in options.get("patches_replace", {}).items()}
    return slots, copy.copy(options), dict(model.patches), copy.copy(model.wrappers), dict(model.object_patches)


def test_an_identity_changes_the_picture(plain, acted):
    assert torch.isfinite(acted).all() and (plain - acted).abs().mean() > 1e-2


@pytest.mark.parametrize(
    "absent",
    [{"weight": 0.0}, {"start_at": 0.5, "end_at": 0.5}, {"start_at": 0.7, "end_at": 0.2}, {"start_at": 1.0}],
    ids=["weight 0", "empty window", "start after end", "window at the end"],
)
def test_absence_is_the_untouched_picture_bit_for_bit(studio, identity, plain, absent):
    assert torch.equal(studio.sample(studio.apply(identity, **absent)), plain)


def test_relation_strength_0_is_the_untouched_picture_bit_for_bit(studio, pack, plain):
    model, _ = pack.run(
        "RelateRelationLoader", model=studio.base.model, lora_name="small_relation_kohya.safetensors", strength=0.0
    )
    assert torch.equal(studio.sample(model), plain)


def test_the_model_given_is_never_changed(studio, pack, identity, plain):
    model = studio.base.model
    before = patches_of(model)
    related, _ = pack.run("RelateRelationLoader", model=model, lora_name="small_relation_kohya.safetensors")
    studio.sample(studio.apply(identity, related))
    assert patches_of(model) == before
    assert torch.equal(studio.sample(), plain)


def test_sampling_leaves_nothing_in_the_patched_model(studio, identity, acted):
    model = studio.apply(identity)
    before = patches_of(model)
    first, second = studio.sample(model), studio.sample(model)
    assert patches_of(model) == before
    assert torch.equal(first, acted) and torch.equal(second, acted)


def test_a_window_acts_on_its_own_steps_only(studio, identity, acted, plain):
    """Three steps, the second third of the schedule: neither the whole schedule's picture nor the plain one."""
    steps = {"steps": 3}
    whole, nothing = studio.sample(studio.apply(identity), **steps), studio.sample(**steps)
    middle = studio.sample(studio.apply(identity, start_at=0.3, end_at=0.7), **steps)
    assert not torch.equal(middle, whole) and not torch.equal(middle, nothing)


def test_two_windows_that_meet_make_the_whole(studio, identity):
    model = studio.apply(identity, studio.apply(identity, end_at=0.5), start_at=0.5001)
    torch.testing.assert_close(
        studio.sample(model, steps=4), studio.sample(studio.apply(identity), steps=4), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("layout", ["boxes", "attention", "none"])
def test_layouts_differ_and_are_finite(studio, identity, layout, plain):
    latent = studio.sample(studio.apply(identity, layout=layout))
    assert torch.isfinite(latent).all() and not torch.equal(latent, plain)


@pytest.mark.parametrize("size", [(72, 56), (8, 40), (9, 7), (13, 31), (5, 3)], ids=str)
def test_any_latent_size(studio, identity, size):
    """Non-square, tall, wide and odd: 8 odd pixels halve to a grid that is rounded up."""
    latent = studio.sample(studio.apply(identity), size=size, steps=1)
    assert latent.shape == (1, 4, *size) and torch.isfinite(latent).all()


def test_each_picture_of_a_batch_is_the_one_made_alone(studio, identity, acted):
    both = studio.sample(studio.apply(identity), batch=2)
    torch.testing.assert_close(both[:1], acted, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(both[0], both[1])


def test_guidance_1_runs_without_negative_rows(studio, identity, plain):
    latent = studio.sample(studio.apply(identity), cfg=1.0)
    assert torch.isfinite(latent).all() and not torch.equal(latent, studio.sample(cfg=1.0))


def test_the_negative_prompt_never_sees_the_subjects(studio, identity):
    """Where the two prompts are one, guidance multiplies exactly what the identity adds."""
    text = studio.text("blurry")
    one = [studio.sample(model, text, steps=1, cfg=1.0) for model in (studio.base.model, studio.apply(identity))]
    three = [studio.sample(model, text, steps=1, cfg=3.0) for model in (studio.base.model, studio.apply(identity))]
    torch.testing.assert_close(three[1] - three[0], 3 * (one[1] - one[0]), atol=2e-2, rtol=1e-3)


def test_swapping_subjects_with_their_boxes_changes_nothing(studio, acted):
    swapped = studio.scene(
        {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
        {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
    )
    latent = studio.sample(studio.apply(studio.identity(swapped)))
    torch.testing.assert_close(latent, acted, atol=1e-2, rtol=1e-2)


def test_a_subject_of_weight_0_is_as_if_its_box_held_nobody(studio):
    def with_second(**second):
        return studio.scene(
            {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
            {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT, "weight": 0.0, **second},
        )

    first, second = (
        studio.sample(studio.apply(studio.identity(scene)))
        for scene in (with_second(), with_second(image=photograph(44, 44, seed=9), name="cat"))
    )
    assert torch.equal(first, second)


def test_the_same_subjects_give_the_same_bits(studio, acted):
    again = studio.scene(
        {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
        {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
    )
    assert torch.equal(studio.sample(studio.apply(studio.identity(again))), acted)


def test_local_tokens_are_taken_from_each_subjects_own_photograph(studio, pack, scene, tiny):
    """The published code reads the first subject's photograph for all of them."""
    encode = pack.module("nodes.host_comfy.sdxl.encoders").encode_subjects
    with torch.inference_mode():
        local = tiny.clip_vision(seed=6)
        together = encode(scene, studio.base.clip_vision, local)
        fox_alone = encode(studio.scene({"name": "fox", "image": photograph(30, 50, seed=2)}), local, local)[0]
    corgi, fox = (tokens[-16:] for tokens in together)  # a 4 x 4 grid, after the image tokens
    torch.testing.assert_close(fox, fox_alone[-16:], atol=1e-5, rtol=0)
    assert not torch.allclose(fox, corgi, atol=1e-2)
    assert torch.isfinite(studio.sample(studio.apply(studio.identity(scene, local_clip_vision=local)))).all()


def test_relation_lora_in_three_layouts_is_one_picture(studio, pack, plain):
    latents = []
    for layout in ("kohya", "diffusers", "peft"):
        model, _ = pack.run(
            "RelateRelationLoader", model=studio.base.model, lora_name=f"small_relation_{layout}.safetensors"
        )
        latents.append(studio.sample(model))
    assert torch.equal(latents[0], latents[1]) and torch.equal(latents[1], latents[2])
    assert not torch.equal(latents[0], plain)


def test_the_stock_lora_loader_makes_the_same_picture(studio, pack, comfy):
    ours, _ = pack.run("RelateRelationLoader", model=studio.base.model, lora_name="small_relation_kohya.safetensors")
    with torch.inference_mode():
        stock, _ = comfy.LoraLoader().load_lora(
            studio.base.model, studio.base.clip, "small_relation_kohya.safetensors", 1.0, 0.0
        )
    assert torch.equal(studio.sample(ours), studio.sample(stock))


def test_relation_and_identity_in_either_order_are_one_picture(studio, pack, identity):
    def relate(model):
        return pack.run("RelateRelationLoader", model=model, lora_name="small_relation_kohya.safetensors")[0]

    first = studio.sample(studio.apply(identity, relate(studio.base.model)))
    second = studio.sample(relate(studio.apply(identity)))
    assert torch.equal(first, second)
