"""Laws of references on ComfyUI's own sampler: absence, cleanness, order, company, any shape."""

import inspect

import pytest
import torch

from tests.host import flux_studio
from tests.host.pictures import photograph
from tests.host.test_identity_laws import patches_of


@pytest.fixture(scope="module")
def flux(pack, comfy, tiny):
    return flux_studio.make(pack, comfy, tiny)


@pytest.fixture(scope="module")
def pair(flux):
    return flux.references({"image": photograph(60, 40, seed=1)}, {"image": photograph(30, 50, seed=2)})


def halves(width=24, height=16):
    left = torch.zeros(1, height, width)
    left[..., : width // 2] = 1.0
    return left, 1 - left


@pytest.fixture(scope="module")
def placed(flux):
    left, right = halves()
    return flux.references(
        {"image": photograph(60, 40, seed=1), "region": left}, {"image": photograph(30, 50, seed=2), "region": right}
    )


@pytest.fixture(scope="module")
def plain(flux):
    return flux.ksample()


@pytest.fixture(scope="module")
def dreamo(flux, pair):
    return flux.ksample(*flux.apply(pair))


def test_references_change_the_picture(plain, dreamo):
    assert torch.isfinite(dreamo).all() and (plain - dreamo).abs().mean() > 1e-2


def test_no_references_and_weight_0_are_plain_flux_bit_for_bit(flux, plain):
    assert torch.equal(flux.ksample(*flux.apply(())), plain)
    none = flux.references({"image": photograph(60, 40, seed=1), "weight": 0.0})
    assert torch.equal(flux.ksample(*flux.apply(none)), plain)
    assert torch.equal(flux.route(none)[0], plain) and torch.equal(flux.route((), record="maps")[0], plain)


def test_one_of_weight_0_is_as_if_it_were_not_there(flux):
    first = {"image": photograph(60, 40, seed=1)}
    both = flux.references(first, {"image": photograph(30, 50, seed=2), "weight": 0.0})
    assert torch.equal(flux.ksample(*flux.apply(both)), flux.ksample(*flux.apply(flux.references(first))))


def test_routing_0_is_plain_dreamo_bit_for_bit(flux, placed, dreamo):
    assert torch.equal(flux.route(placed, routing_strength=0.0)[0], dreamo)


@pytest.mark.parametrize("absent", [
    {"start_at": 0.5, "end_at": 0.5}, {"start_at": 0.7, "end_at": 0.2}, {"start_at": 1.0},
])  # fmt: skip
def test_an_empty_window_is_plain_dreamo_bit_for_bit(flux, placed, dreamo, absent):
    assert torch.equal(flux.route(placed, routing_strength=3.0, **absent)[0], dreamo)


def test_regions_of_everything_are_plain_dreamo_bit_for_bit(flux, dreamo):
    white = torch.ones(1, 9, 9)
    everywhere = flux.references(
        {"image": photograph(60, 40, seed=1), "region": white}, {"image": photograph(30, 50, seed=2), "region": white}
    )
    assert torch.equal(flux.route(everywhere, routing_strength=3.0)[0], dreamo)


def test_recording_changes_nothing_bit_for_bit(flux, placed, dreamo):
    latent, routing_map, heat, masks = flux.route(placed, record="maps")
    assert torch.equal(latent, dreamo)
    assert routing_map.blocks.shape == (4, 1, 2, 8, 12) and routing_map.steps == 2 and routing_map.slots == (1, 2)
    assert heat.shape == (2, 128, 192, 3) and masks.shape == (2, 128, 192)
    assert 0 <= heat.min() and heat.max() <= 1 and set(masks.unique().tolist()) == {0.0, 1.0}
    steered = flux.route(placed, routing_strength=3.0)[0]
    assert torch.equal(flux.route(placed, routing_strength=3.0, record="maps")[0], steered)


def test_swapping_references_with_slots_and_regions_changes_nothing(flux):
    left, right = halves()
    one = {"image": photograph(60, 40, seed=1), "region": left, "slot": 1}
    two = {"image": photograph(30, 50, seed=2), "region": right, "slot": 2, "weight": 0.7}
    forth, back = flux.references(one, two), flux.references(two, one)
    assert torch.equal(flux.route(forth, routing_strength=2.0)[0], flux.route(back, routing_strength=2.0)[0])
    assert torch.equal(flux.ksample(*flux.apply(forth)), flux.ksample(*flux.apply(back)))


def test_the_slot_matters_and_an_empty_slot_is_allowed(flux):
    latents = [
        flux.ksample(*flux.apply(flux.references({"image": photograph(60, 40, seed=1), "slot": slot})))
        for slot in (1, 2, 9)
    ]
    assert not torch.equal(latents[0], latents[1]) and not torch.equal(latents[1], latents[2])


@pytest.mark.parametrize("strength", [2.0, 20.0], ids=["soft", "hard"])
def test_steering_changes_the_picture(flux, placed, dreamo, strength):
    latent = flux.route(placed, routing_strength=strength)[0]
    assert torch.isfinite(latent).all() and not torch.equal(latent, dreamo)


def test_isolation_and_weight_change_the_picture(flux, pair, dreamo):
    assert not torch.equal(flux.route(pair, isolation=20.0)[0], dreamo)
    light = flux.references({"image": photograph(60, 40, seed=1), "weight": 0.5}, {"image": photograph(30, 50, seed=2)})
    latent = flux.ksample(*flux.apply(light))
    assert not torch.equal(latent, dreamo) and torch.equal(latent, flux.route(light)[0])


def test_windows_that_meet_share_no_step(flux, placed):
    """Four steps: those of one half of the schedule are not those of the other."""
    whole = flux.route(placed, routing_strength=3.0, steps=4)[0]
    first = flux.route(placed, routing_strength=3.0, steps=4, end_at=0.5)[0]
    assert not torch.equal(first, whole)


def test_the_inputs_are_never_changed(flux, pair, plain):
    model, positive = flux.loaded.model, flux.text()
    before, kept = patches_of(model), [[cond, dict(entry)] for cond, entry in positive]
    flux.ksample(*flux.apply(pair, positive=positive))
    flux.route(pair, positive=positive, record="maps", isolation=1.0)
    assert patches_of(model) == before
    assert all(entry == old for (_, entry), (_, old) in zip(positive, kept))
    assert torch.equal(flux.ksample(), plain)


def test_the_model_object_after_the_run_is_what_it_was(flux, placed, dreamo):
    network = flux.loaded.model.model.diffusion_model
    before = {name: dict(vars(module)) for name, module in network.named_modules()}
    model, positive = flux.apply(placed)
    patched = patches_of(model)
    flux.ksample(model, positive)
    flux.route(placed, routing_strength=2.0, record="maps")
    assert {name: dict(vars(module)) for name, module in network.named_modules()} == before
    assert patches_of(model) == patched
    assert torch.equal(flux.ksample(model, positive), dreamo)


def test_the_negative_never_sees_the_references(flux, pair):
    """Where the prompts are one, guidance multiplies what the references add; and batched calls are the same."""
    text = flux.text("a corgi")
    model, positive = flux.apply(pair, positive=text)
    one = [flux.ksample(model, each, text, steps=1) for each in (text, positive)]
    three = flux.ksample(model, positive, text, steps=1, cfg=3.0)
    torch.testing.assert_close(three - one[0], 3 * (one[1] - one[0]), atol=1e-3, rtol=1e-3)


def test_the_wrapped_model_without_our_conditioning_is_plain(flux, pair, plain):
    model, _ = flux.apply(pair)
    assert torch.equal(flux.ksample(model), plain)


def test_each_picture_of_a_batch_is_the_one_made_alone(flux, placed):
    latent, routing_map, heat, _ = flux.route(placed, batch=2, routing_strength=2.0, record="maps")
    torch.testing.assert_close(latent[:1], flux.route(placed, routing_strength=2.0)[0], atol=1e-4, rtol=1e-4)
    assert routing_map.blocks.shape[1] == 2 and heat.shape[0] == 4 and not torch.allclose(latent[0], latent[1])


@pytest.mark.parametrize("size", [(40, 8), (9, 7), (13, 31), (2, 2)], ids=str)
def test_any_latent_size(flux, placed, size):
    latent, routing_map, heat, _ = flux.route(placed, size=size, steps=1, routing_strength=2.0, record="maps")
    assert latent.shape == (1, 16, *size) and torch.isfinite(latent).all()
    assert heat.shape == (2, 8 * size[0], 8 * size[1], 3)


def test_nine_references(flux):
    nine, shown = flux.reference(photograph(20, 20, batch=9))
    assert [each.slot for each in nine] == list(range(1, 10)) and shown.shape == (9, 256, 256, 3)
    assert torch.isfinite(flux.route(nine, steps=1)[0]).all()


def test_two_positives_with_other_references_are_two_calls(flux):
    """Combined conditionings of equal shapes are not batched with one another's references."""
    first, second = (flux.references({"image": photograph(40, 40, seed=seed)}) for seed in (1, 2))
    text = flux.text("a corgi")
    model, one = flux.apply(first, positive=text)
    model, two = flux.apply(second, model=model, positive=text)
    apart = [flux.ksample(model, each, steps=1) for each in (one, two)]
    torch.testing.assert_close(flux.ksample(model, one + two, steps=1), (apart[0] + apart[1]) / 2, atol=1e-4, rtol=1e-4)


def test_applying_again_replaces_what_was_applied(flux, pair, dreamo):
    other = flux.references({"image": photograph(50, 50, seed=7)})
    model, positive = flux.apply(other)
    assert torch.equal(flux.ksample(*flux.apply(pair, model, positive)), dreamo)
    assert torch.equal(flux.route(pair, model=model, positive=positive)[0], dreamo)


def test_kontext_references_keep_their_own_rule(flux, pair, comfy):
    """A Kontext reference stays first, with its offset and without DreamO's embedding."""
    import node_helpers

    latent = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    kontext = node_helpers.conditioning_set_values(flux.text(), {"reference_latents": [latent]}, append=True)
    seen = []

    def spy(inputs):
        seen.append(inputs["img_ids"])
        return inputs

    model, positive = flux.apply(pair, positive=kontext)
    model = model.clone()
    model.set_model_post_input_patch(spy)
    latent = flux.ksample(model, positive, steps=1)
    ids = seen[0][0]
    assert torch.isfinite(latent).all() and ids.dtype == torch.float32
    assert ids[96].tolist() == [1, 0, 0] and ids[96 + 16].tolist() == [0, 8, 12]
    assert "reference_latents_method" not in positive[0][1]


def kontext_latent(*size):
    return {"samples": torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(5))}


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("size", [(8, 12), (12, 8)], ids=str)
def test_references_of_another_node_make_one_picture_before_and_after_ours(flux, pack, weight, size):
    """Core ReferenceLatent on either side of Apply References, once plain and once with a weight that steers."""
    from comfy_extras.nodes_edit_model import ReferenceLatent

    ours = flux.references(
        {"image": photograph(60, 40, seed=1), "weight": weight}, {"image": photograph(30, 50, seed=2)}
    )

    def with_kontext(positive):
        return ReferenceLatent.execute(positive, kontext_latent(*size)).result[0]

    before = flux.ksample(*flux.apply(ours, positive=with_kontext(flux.text())))
    model, positive = flux.apply(ours)
    after = with_kontext(positive)
    assert torch.equal(flux.ksample(model, after), before)
    assert not torch.equal(flux.ksample(model, positive), before)
    assert torch.equal(flux.ksample(*flux.apply(ours, model, after)), before)  # ours are replaced, Kontext's are kept
    between = with_kontext(flux.apply(ours, positive=with_kontext(flux.text()))[1])
    assert torch.equal(
        flux.ksample(model, between), flux.ksample(*flux.apply(ours, positive=with_kontext(with_kontext(flux.text()))))
    )


def test_a_method_chosen_for_other_references_stays(flux, pair):
    """Diagonal Kontext latents are laid out as their own node says, whether ours are applied before or after."""
    import node_helpers

    def with_kontext(positive):
        added = {"reference_latents": [kontext_latent(8, 8)["samples"]]}
        positive = node_helpers.conditioning_set_values(positive, added, append=True)
        return node_helpers.conditioning_set_values(positive, {"reference_latents_method": "uxo"})

    model, positive = flux.apply(pair)
    before = flux.ksample(*flux.apply(pair, positive=with_kontext(flux.text())))
    assert torch.equal(flux.ksample(model, with_kontext(positive)), before)


def test_references_that_another_node_took_away_are_named(flux, pair):
    import node_helpers

    model, positive = flux.apply(pair)
    other = node_helpers.conditioning_set_values(positive, {"reference_latents": [kontext_latent(8, 8)["samples"]]})
    with pytest.raises(ValueError, match="latent of reference 1.*Put Apply References behind that node"):
        flux.ksample(model, other)


def test_an_attention_mask_of_another_node_is_padded_for_the_references(flux, pair, dreamo):
    """Redux's strength is such a mask; with references ComfyUI alone stops at its size."""
    import node_helpers

    text = flux.text()
    tokens = text[0][0].shape[1]
    mask = torch.zeros(1, tokens + 96, tokens + 96)
    masked = node_helpers.conditioning_set_values(text, {"attention_mask": mask, "attention_mask_img_shape": (8, 12)})
    latent = flux.ksample(*flux.apply(pair, positive=masked))
    torch.testing.assert_close(latent, dreamo, atol=1e-3, rtol=1e-3)
    assert torch.isfinite(flux.route(pair, positive=masked, isolation=2.0)[0]).all()


def test_a_controlnets_residuals_reach_the_picture_only(flux, pair):
    """Residuals as long as the picture's tokens, as every Flux ControlNet gives them."""
    model, positive = flux.apply(pair)

    def with_control(apply_model, arguments):
        control = {"input": [torch.full((1, 96, 64), 0.1)], "output": [torch.full((1, 96, 64), 0.1)]}
        return apply_model(arguments["input"], arguments["timestep"], **{**arguments["c"], "control": control})

    controlled = model.clone()
    controlled.set_model_unet_function_wrapper(with_control)
    latent = flux.ksample(controlled, positive)
    assert torch.isfinite(latent).all() and not torch.equal(latent, flux.ksample(model, positive))


def test_another_attention_override_is_still_called(flux, pair, placed, dreamo):
    calls = []

    def counted(plain, *args, **kwargs):
        calls.append(1)
        return plain(*args, **kwargs)

    model = flux.loaded.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = counted
    assert torch.equal(flux.route(pair, model=model, record="maps")[0], dreamo) and len(calls) == 8


def test_first_step_guidance(flux, pair, dreamo):
    assert torch.equal(flux.route(pair, first_step_guidance=3.5)[0], dreamo)  # 3.5 is ComfyUI's own default
    other = flux.route(pair, first_step_guidance=7.0)[0]
    assert not torch.equal(other, dreamo)
    model, positive = flux.apply(pair)
    one = flux.route(pair, first_step_guidance=7.0, steps=1)[0]
    import node_helpers

    seven = node_helpers.conditioning_set_values(positive, {"guidance": 7.0})
    assert torch.equal(one, flux.ksample(model, seven, steps=1))


def test_a_model_call_that_skips_a_block_is_left_out_of_the_maps(flux, pair, caplog):
    model = flux.loaded.model.clone()
    model.set_model_patch_replace(lambda args, extra: {"img": args["img"]}, "dit", "single_block", 1)
    _, routing_map, heat, _ = flux.route(pair, model=model, record="maps")
    assert routing_map is None and heat.max() == 0 and "2 model calls were not recorded" in caplog.text


def test_a_run_of_no_step_leaves_no_call_out(flux, placed, caplog):
    assert flux.route(placed, record="maps", denoise=0.0)[1] is None
    assert "not recorded" not in caplog.text


@pytest.mark.parametrize("steered", [False, True])
def test_a_copy_of_flux_without_patches_is_reported(flux, placed, monkeypatch, caplog, steered):
    """TeaCache puts one in the place of ComfyUI's: neither post_input nor overrides are called in it."""
    network = flux.loaded.model.model.diffusion_model
    forward = type(network).forward_orig

    def copied(*args, **kwargs):
        call = inspect.signature(forward).bind(network, *args, **kwargs)
        call.arguments["transformer_options"] = {}
        return forward(*call.args, **call.kwargs)

    monkeypatch.setattr(network, "forward_orig", copied)
    model, positive = flux.apply(placed)
    for _ in range(2):
        caplog.clear()
        flux.route(placed, routing_strength=3.0) if steered else flux.ksample(model, positive)
        assert caplog.text.count("a copy of Flux by another node (TeaCache)") == 1
        assert caplog.text.count("are not kept in place") == steered


def test_the_references_are_in_comfyuis_memory_estimate(flux, pair):

    _, positive = flux.apply(pair)
    shapes = [tuple(latent.shape) for latent in positive[0][1]["reference_latents"]]
    model = flux.loaded.model.model
    conds = model.extra_conds(noise=torch.zeros(1, 16, 16, 24), device="cpu", **positive[0][1])
    assert (
        model.memory_required([1, 16, 16, 24], {"ref_latents": [conds["ref_latents"].size()]})
        > model.memory_required([1, 16, 16, 24])
        and len(shapes) == 2
    )


def test_preview_routing(flux, pack, placed):
    routing_map = flux.route(placed, record="maps")[1]
    image, mask = pack.run("RelateRoutingPreview", routing_map=routing_map, reference=2)
    assert image.shape == (1, 128, 192, 3) and mask.shape == (1, 128, 192)
    over, _ = pack.run("RelateRoutingPreview", routing_map=routing_map, reference=1, image=photograph(70, 90))
    assert over.shape == (1, 70, 90, 3) and 0 <= over.min() and over.max() <= 1
    with pytest.raises(ValueError, match="reference: expected one of 1, 2, got 5"):
        pack.run("RelateRoutingPreview", routing_map=routing_map, reference=5)
    with pytest.raises(ValueError, match="routing_map: expected recorded maps, got none"):
        pack.run("RelateRoutingPreview", routing_map=None, reference=1)


def test_the_colours_of_maps_are_even_to_the_eye(pack):
    """Equal steps of OKLab's lightness from the colours themselves, back through sRGB."""
    colours = pack.module("nodes.drawing.heat_map").heat_colours(torch.linspace(0, 1, 33))
    assert 0 < colours.min() and colours.max() < 1  # nothing was clipped
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    cones = linear @ torch.tensor(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lightness = cones ** (1 / 3) @ torch.tensor([0.2104542553, 0.7936177850, -0.0040720468])
    steps = lightness[1:] - lightness[:-1]
    torch.testing.assert_close(steps, steps.mean().expand(32), atol=1e-3, rtol=0)


def test_the_live_preview_shows_the_maps_beside_the_picture(flux, pack, placed, monkeypatch):
    import comfy.utils

    shown = []
    monkeypatch.setattr(
        comfy.utils.ProgressBar,
        "update_absolute",
        lambda self, value, total=None, preview=None: shown.append((value, total, preview)),
    )
    flux.route(placed, record="maps")
    assert [(value, total) for value, total, _ in shown] == [(1, 2), (2, 2)]
    assert all(kind == "JPEG" and picture.width > picture.height > 0 for _, _, (kind, picture, _) in shown)
