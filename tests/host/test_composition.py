"""Beside others: a pack that patches the same slots, another identity, ControlNet, regions, another LoRA."""

import pytest
import torch

from tests.host.pictures import photograph
from tests.host.studio import LEFT, RIGHT


@pytest.fixture(scope="module")
def identity(studio):
    return studio.identity(
        studio.scene(
            {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
            {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
        )
    )


@pytest.fixture(scope="module")
def acted(studio, identity):
    return studio.sample(studio.apply(identity))


class ForeignPatch:
    """An identity pack of the IP-Adapter family: callbacks that each add a term to the text attention."""

    def __init__(self, callback, **arguments):
        self.callbacks = [(callback, arguments)]
        self.calls = 0

    def add(self, callback, **arguments):
        self.callbacks.append((callback, arguments))

    def __call__(self, query, key, value, options):
        from comfy.ldm.modules.attention import optimized_attention

        self.calls += 1
        out = optimized_attention(query, key, value, options["n_heads"])
        for callback, arguments in self.callbacks:
            out = out + callback(out, query, key, value, options, **arguments)
        return out


def foreign_term(out, query, key, value, options, weight=0.3, **window):
    """What the other pack adds: something of the query only, so that the order of the packs cannot matter."""
    return weight * torch.tanh(query)


SLOTS = (("input", 3, 0), ("middle", 0, 1), ("output", 1, 1))


def attach_foreign(model, **arguments):
    """As IPAdapter packs attach: into a free slot, or with `add` onto what is already there."""
    clone = model.clone()
    occupied = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for slot in SLOTS:
        if slot in occupied:
            occupied[slot].add(foreign_term, **arguments)
        else:
            clone.set_model_attn2_replace(ForeignPatch(foreign_term, **arguments), *slot)
    return clone


def test_another_identity_pack_before_ours_and_after_ours(studio, identity, acted):
    before = studio.sample(studio.apply(identity, attach_foreign(studio.base.model)))
    after = studio.sample(attach_foreign(studio.apply(identity)))
    alone = studio.sample(attach_foreign(studio.base.model))
    torch.testing.assert_close(before, after, atol=1e-2, rtol=1e-3)
    assert not torch.allclose(before, acted, atol=1e-1) and not torch.allclose(before, alone, atol=1e-1)


def test_a_pack_added_onto_ours_stays_out_of_the_model_it_was_not_added_to(studio, identity, acted):
    """`add` reaches a patch object that clones share: the model applied before must not feel it."""
    ours = studio.apply(identity)
    attach_foreign(ours)
    assert torch.equal(studio.sample(ours), acted)


def test_it_stays_out_also_where_clones_share_patch_objects(studio, identity, acted, monkeypatch):
    """ComfyUI 0.33 copies lists and dictionaries of a clone's options and shares what is in them; 0.3.64 learns it."""
    import comfy.model_patcher

    def containers(value, *_):
        if isinstance(value, dict):
            return {key: containers(item) for key, item in value.items()}
        return [containers(item) for item in value] if isinstance(value, list) else value

    if hasattr(comfy.model_patcher, "copy"):
        monkeypatch.setattr(comfy.model_patcher.copy, "deepcopy", containers)
    ours = studio.apply(identity)
    theirs = attach_foreign(ours)
    monkeypatch.undo()
    assert torch.equal(studio.sample(ours), acted)
    assert not torch.allclose(studio.sample(theirs), acted, atol=1e-1)


def test_a_foreign_window_is_respected(studio, identity, acted):
    never = attach_foreign(studio.apply(identity), sigma_start=0.001, sigma_end=0.0)
    assert torch.equal(studio.sample(never), acted)


def test_a_patch_that_returns_its_own_tensor_keeps_it(studio, identity):
    """What another patch returns may be its own (a cache): ours adds to a copy."""
    kept = {}

    def constant(query, key, value, options):
        return kept.setdefault(query.shape, torch.ones_like(query))

    model = studio.base.model.clone()
    model.set_model_attn2_replace(constant, *SLOTS[0])
    studio.sample(studio.apply(identity, model))
    assert kept and all(torch.equal(tensor, torch.ones_like(tensor)) for tensor in kept.values())


def test_two_identities_chained_act_both(studio, identity, acted):
    second = studio.identity(studio.scene({"name": "cat", "image": photograph(20, 20, seed=7)}))
    both = studio.sample(studio.apply(second, studio.apply(identity)))
    reverse = studio.sample(studio.apply(identity, studio.apply(second)))
    torch.testing.assert_close(both, reverse, atol=1e-2, rtol=1e-3)
    assert not torch.allclose(both, acted, atol=1e-1)


def test_one_identity_on_two_models_does_not_mix_them(studio, identity, acted):
    """The same RELATE_IDENTITY at two weights in one graph: the second must not change the first."""
    strong, weak = studio.apply(identity, weight=0.6), studio.apply(identity, weight=0.1)
    assert not torch.equal(studio.sample(weak), acted)
    assert torch.equal(studio.sample(strong), acted)


def test_controlnet_beside_it(studio, identity, acted, tiny):
    positive = studio.controlled(tiny.controlnet("small"), "a corgi hugging a fox")
    with_control = studio.sample(studio.apply(identity), positive)
    control_only = studio.sample(positive=positive)
    assert torch.isfinite(with_control).all()
    assert not torch.equal(with_control, control_only) and not torch.equal(with_control, acted)


def test_regional_prompts_by_mask(studio, identity, comfy):
    mask = torch.zeros(1, 128, 192)
    mask[..., :96] = 1
    with torch.inference_mode():
        left = comfy.ConditioningSetMask().append(studio.text("a corgi"), mask, "default", 1.0)[0]
        right = comfy.ConditioningSetMask().append(studio.text("a fox"), 1 - mask, "default", 1.0)[0]
    latent = studio.sample(studio.apply(identity), left + right)
    assert torch.isfinite(latent).all() and not torch.equal(latent, studio.sample(positive=left + right))


def test_a_box_means_the_picture_also_for_a_prompt_that_covers_a_part(studio, comfy):
    """A prompt limited to the left half is computed on a crop; a subject of the right half is not in that crop."""
    right_only = studio.identity(studio.scene({"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT}))
    whole = studio.text("a garden")
    with torch.inference_mode():
        left = comfy.ConditioningSetAreaPercentage().append(studio.text("a corgi"), 0.5, 1.0, 0.0, 0.0, 1.0)[0]
    settings = {"steps": 1, "cfg": 1.0, "size": (16, 32)}
    alone = studio.sample(positive=left, **settings)
    assert torch.equal(studio.sample(studio.apply(right_only), left, **settings), alone)
    assert not torch.equal(studio.sample(studio.apply(right_only), left + whole, **settings), alone)


def test_another_lora_beside_it(studio, identity, acted, comfy):
    with torch.inference_mode():
        styled, _ = comfy.LoraLoader().load_lora(
            studio.base.model, studio.base.clip, "small_style.safetensors", 0.8, 0.0
        )
    assert not torch.equal(studio.sample(studio.apply(identity, styled)), acted)


def test_differential_patches_on_the_query_reach_the_identity(studio, identity, acted):
    """A pack that changes attention's input (`attn2_patch`) changes the query both branches share."""

    def louder(query, key, value, options):
        return query * 1.2, key, value

    model = studio.base.model.clone()
    model.set_model_attn2_patch(louder)
    assert not torch.equal(studio.sample(studio.apply(identity, model)), acted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_other_precisions_of_the_base(studio, identity, tiny, dtype):
    """Weights in bf16 or fp8 with computation in float32, as ComfyUI loads them on cards without native support."""
    with torch.inference_mode():
        base = tiny.model("small", dtype=dtype)
    patched, plain = studio.sample(studio.apply(identity, base), steps=1), studio.sample(base, steps=1)
    assert torch.isfinite(patched).all() and not torch.equal(patched, plain)
