"""Identities act on positive conditionings only, under every guider and beside every guidance of ComfyUI's own.

One step of Euler returns the guided prediction itself, so each guider's formula can be written out from predictions
that were made alone: the positive one by the model with the identity, the others by the bare model.
"""

import importlib
from collections import Counter

import pytest
import torch

from tests.host.pictures import photograph
from tests.host.studio import LEFT, RIGHT

SITES = 8  # cross-attentions of the tiny UNet


@pytest.fixture(scope="module")
def identity(studio):
    return studio.identity(
        studio.scene(
            {"name": "corgi", "image": photograph(60, 40, seed=1), "box": LEFT},
            {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
        )
    )


def extras(name):
    return importlib.import_module(f"comfy_extras.nodes_{name}")


def node(name, kind, *inputs, **named):
    """The outputs of one of ComfyUI's nodes."""
    kind = getattr(extras(name), kind)
    v3 = hasattr(kind, "execute")
    found = kind.execute(*inputs, **named).result if v3 else getattr(kind(), kind.FUNCTION)(*inputs, **named)
    return found[0] if len(found) == 1 else found


def sampled(studio, guider, steps=1, size=(16, 24), seed=1):
    """What SamplerCustomAdvanced gives for a guider, with KSampler's noise and schedule."""
    import comfy.samplers

    model = guider.model_patcher
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    with torch.inference_mode():
        return node(
            "custom_sampler",
            "SamplerCustomAdvanced",
            node("custom_sampler", "RandomNoise", seed),
            guider,
            comfy.samplers.sampler_object("euler"),
            sigmas,
            {"samples": torch.zeros(1, 4, *size)},
        )[0]["samples"]


def alone(studio, model, text):
    """The prediction under one prompt."""
    return sampled(studio, node("custom_sampler", "BasicGuider", model, text))


@pytest.fixture(scope="module")
def texts(studio):
    return {
        name: studio.text(text)
        for name, text in {
            "positive": "a corgi hugging a fox",
            "middle": "a meadow",
            "negative": "blurry",
            "empty": "",
        }.items()
    }


@pytest.fixture(scope="module")
def predictions(studio, identity, texts):
    """Each prompt's own: positive by the model with the identity, the others by the bare model."""
    acting = studio.apply(identity)
    return {
        name: alone(studio, acting if name == "positive" else studio.base.model, text) for name, text in texts.items()
    }


def close(latent, expected):
    torch.testing.assert_close(latent, expected, atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("style", ["regular", "nested"])
@pytest.mark.parametrize("second", [1.0, 2.5])
def test_dual_cfg_guider(studio, identity, texts, predictions, style, second):
    guider = node(
        "custom_sampler",
        "DualCFGGuider",
        studio.apply(identity),
        texts["positive"],
        texts["middle"],
        texts["negative"],
        3.0,
        second,
        style,
    )
    positive, middle, negative = (predictions[name] for name in ("positive", "middle", "negative"))
    if style == "nested":
        expected = negative + second * (middle + 3.0 * (positive - middle) - negative)
    else:
        expected = negative + second * (middle - negative) + 3.0 * (positive - middle)
    close(sampled(studio, guider), expected)


def perpendicular(predictions, scale, negative_scale):
    positive, negative = (predictions[name] - predictions["empty"] for name in ("positive", "negative"))
    away = negative - (negative * positive).sum() / positive.norm() ** 2 * positive
    return predictions["empty"] + scale * (positive - negative_scale * away)


def test_perp_neg_guider(studio, identity, texts, predictions):
    guider = node(
        "perpneg",
        "PerpNegGuider",
        studio.apply(identity),
        texts["positive"],
        texts["negative"],
        texts["empty"],
        3.0,
        0.7,
    )
    close(sampled(studio, guider), perpendicular(predictions, 3.0, 0.7))


@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
def test_perp_neg_with_a_conditioning_that_no_guider_knows(studio, identity, texts, predictions, first):
    """The deprecated node brings its own empty prompt and asks for it alone."""
    model = studio.base.model if first else studio.apply(identity)
    model = node("perpneg", "PerpNeg", model, texts["empty"], 0.7)
    model = studio.apply(identity, model) if first else model
    guider = node("custom_sampler", "CFGGuider", model, texts["positive"], texts["negative"], 3.0)
    close(sampled(studio, guider), perpendicular(predictions, 3.0, 0.7))


@pytest.mark.parametrize("bare", [True, False], ids=["bare model", "the same model"])
def test_dual_model_guider(studio, identity, texts, predictions, bare):
    if not hasattr(extras("custom_sampler"), "DualModelGuider"):
        pytest.skip("ComfyUI 0.3.64 has no DualModelGuider")
    model = studio.apply(identity)
    guider = node(
        "custom_sampler",
        "DualModelGuider",
        model=model,
        positive=texts["positive"],
        cfg=3.0,
        model_negative=studio.base.model if bare else model,
        negative=texts["negative"],
    )
    close(sampled(studio, guider), predictions["negative"] + 3.0 * (predictions["positive"] - predictions["negative"]))


def test_several_positives_and_negatives_in_one_call(studio, identity, texts, predictions):
    """Combine on both sides: four conditionings, listed by ComfyUI from the last to the first."""
    guider = node(
        "custom_sampler",
        "CFGGuider",
        studio.apply(identity),
        texts["positive"] + texts["positive"],
        texts["negative"] + texts["middle"],
        3.0,
    )
    negative = (predictions["negative"] + predictions["middle"]) / 2
    close(sampled(studio, guider), negative + 3.0 * (predictions["positive"] - negative))


def test_a_guider_that_lists_its_conditionings_the_other_way_round(studio, identity, texts, predictions):
    import comfy.samplers

    class Backwards(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options=None, seed=None):
            conds = [self.conds["positive"], self.conds["negative"]]
            positive, negative = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
            return negative + self.cfg * (positive - negative)

    guider = Backwards(studio.apply(identity))
    guider.set_conds(texts["positive"], texts["negative"])
    guider.set_cfg(3.0)
    close(sampled(studio, guider), predictions["negative"] + 3.0 * (predictions["positive"] - predictions["negative"]))


@pytest.fixture
def groups(pack, monkeypatch):
    """How often an identity acted, by the guider's name of the conditioning."""
    kind = pack.module("nodes.host_comfy.sdxl.attach").IdentityPatch
    counted, add = Counter(), kind._add_image

    def counting(self, out, query, key, heads, options, rows):
        conds = options["relate_run"].conditionings._guider.conds
        names = [name for name, group in conds.items() if any(cond["uuid"] == rows.uuid for cond in group)]
        counted.update(names[:1] or ["unknown"])  # a copy on the other side has the same
        return add(self, out, query, key, heads, options, rows)

    monkeypatch.setattr(kind, "_add_image", counting)
    return counted


GUIDANCE = {
    "SelfAttentionGuidance": ("sag", (0.5, 2.0), 1),
    "PerturbedAttentionGuidance": ("pag", (3.0,), 2),
    "NAGuidance": ("nag", (5.0, 0.5, 1.5), 1),
    "CFGZeroStar": ("cfg", (), 1),
    "CFGNorm": ("cfg", (1.0,), 1),
    "TCFG": ("tcfg", (), 1),
    "FreeU_V2": ("freelunch", (1.3, 1.4, 0.9, 0.2), 1),
    "Mahiro": ("mahiro", (), 1),
    "APG": ("apg", (1.0, 5.0, 0.0), 1),
    "RescaleCFG": ("model_advanced", (0.7,), 1),
    "TomePatchModel": ("tomesd", (0.3,), 1),
}


@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
@pytest.mark.parametrize("kind", GUIDANCE)
def test_guidance_that_patches_the_model(studio, identity, texts, groups, kind, first):
    """Before and behind Apply Identity; PAG asks for the positive prediction twice a step."""
    name, settings, calls = GUIDANCE[kind]
    try:
        getattr(extras(name), kind)
    except (ImportError, AttributeError):
        pytest.skip(f"this ComfyUI has no {kind}")
    model = studio.base.model if first else studio.apply(identity)
    model = node(name, kind, model, *settings)
    model = studio.apply(identity, model) if first else model
    latent = sampled(
        studio,
        node("custom_sampler", "CFGGuider", model, texts["positive"], texts["negative"], 3.0),
        steps=2,
        size=(32, 32),
    )
    assert torch.isfinite(latent).all()
    assert groups == {"positive": 2 * SITES * calls}


def limited(text, kind, left=True):
    """A conditioning limited to one half, by an area or by a mask."""
    import node_helpers

    if kind == "area":
        return node_helpers.conditioning_set_values(text, {"area": (32, 16, 0, 0 if left else 16), "strength": 1.0})
    mask = torch.zeros(1, 32, 32)
    mask[..., :16] = 1.0
    return node_helpers.conditioning_set_values(
        text, {"mask": mask if left else 1 - mask, "mask_strength": 1.0, "set_area_to_bounds": kind == "mask bounds"}
    )


SIDES = {
    "positive": lambda text, kind: (limited(text, kind) + limited(text, kind, left=False), text),
    "one positive": lambda text, kind: (limited(text, kind), text),
    "both": lambda text, kind: (limited(text, kind), limited(text, kind, left=False)),
    "both, the same": lambda text, kind: (limited(text, kind), limited(text, kind)),
    "negative": lambda text, kind: (text, limited(text, kind)),
}


@pytest.mark.parametrize("kind", ["area", "mask", "mask bounds"])
@pytest.mark.parametrize("sides", SIDES)
def test_regional_prompts(studio, identity, texts, kind, sides):
    """ComfyUI copies a conditioning with an area to the other side, its ``uuid`` with it; the copy is not positive.

    Where both prompts are one text, guidance multiplies exactly what the identity adds.
    """
    positive, negative = SIDES[sides](texts["negative"], kind)
    models = (studio.base.model, studio.apply(identity))

    def predictions(cfg):
        guiders = [node("custom_sampler", "CFGGuider", model, positive, negative, cfg) for model in models]
        return [sampled(studio, guider, size=(32, 32)) for guider in guiders]

    (bare, acting), (bare_guided, guided) = predictions(1.0), predictions(3.0)
    assert (acting - bare).abs().mean() > 1e-3
    torch.testing.assert_close(guided - bare_guided, 3 * (acting - bare), atol=2e-2, rtol=1e-3)


def test_a_default_prompt_for_the_rest(studio, identity, texts, groups):
    import comfy.hooks

    rest = comfy.hooks.set_default_conds_and_combine([limited(texts["positive"], "area")], [texts["empty"]])[0]
    guider = node("custom_sampler", "CFGGuider", studio.apply(identity), rest, texts["negative"], 3.0)
    assert torch.isfinite(sampled(studio, guider, steps=2, size=(32, 32))).all()
    assert set(groups) == {"positive"} and groups["positive"] >= 2 * 2 * SITES
