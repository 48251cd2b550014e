"""Keep References in Place beside ComfyUI's own nodes: what it takes, refuses, records, and whom it gets along with."""

import importlib

import pytest
import torch

from tests.host import flux_studio, native_families
from tests.host.native_families import Studio
from tests.host.pictures import photograph

LEFT = torch.zeros(8, 12)
LEFT[:, :6] = 1.0
MASKS = torch.stack((LEFT, 1 - LEFT))


def of(name, tiny, comfy):
    if name not in native_families.available():
        pytest.skip(f"this ComfyUI has no {name}")
    return Studio(name, tiny, comfy)


@pytest.fixture(scope="module")
def kontext(pack, tiny, comfy):
    return of("kontext", tiny, comfy)


@pytest.fixture(scope="module")
def flux2(pack, tiny, comfy):
    return of("flux2", tiny, comfy)


def chained(studio, count=2, scale=1.0, seed=11):
    """CONDITIONING by core's own Reference Latent."""
    reference_latent = importlib.import_module("comfy_extras.nodes_edit_model").ReferenceLatent
    side = studio.text(seed)
    for index in range(count):
        latent = (scale if index == 1 else 1.0) * studio.latent(8 - 2 * index, 8, 2 + index)
        side = reference_latent.execute(side, {"samples": latent}).args[0]
    return side


def keep(pack, model, positive, **inputs):
    settings = {"strength": 3.0, "isolation": 0.0, "start_at": 0.0, "end_at": 1.0, "record": "off", **inputs}
    return pack.run("RelateReferenceRegions", model=model, positive=positive, **settings)


def scene_of(pack, *boxes, weights=(1.0, 1.0, 1.0)):
    scene = None
    for number, (box, weight) in enumerate(zip(boxes, weights)):
        more = {} if scene is None else {"scene": scene}
        edges = dict(zip(("x0", "y0", "x1", "y1"), box))
        scene = pack.run(
            "RelateSubject", image=photograph(32, 32, seed=number), name=f"fox {number}", weight=weight, **edges, **more
        )
    return scene


HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


def test_boxes_of_a_scene_and_masks_say_the_same(pack, kontext):
    positive = chained(kontext)
    by_boxes = keep(pack, kontext.model, positive, scene=scene_of(pack, *HALVES))
    by_masks = keep(pack, kontext.model, positive, regions=MASKS)
    one, other = (kontext.sample(model, side, negative) for model, side, negative, _ in (by_boxes, by_masks))
    assert torch.equal(one, other)
    assert not torch.equal(one, kontext.sample(kontext.model, positive, by_masks[2]))
    both = keep(pack, kontext.model, positive, scene=scene_of(pack, HALVES[1], HALVES[0]), regions=MASKS)
    assert torch.equal(kontext.sample(*both[:3]), one)  # masks take the place of boxes


def test_off_is_the_untouched_model_and_conditioning(pack, kontext):
    positive, negative = chained(kontext), kontext.text(12)
    for off in (
        {"strength": 0.0, "regions": MASKS},
        {"start_at": 0.5, "end_at": 0.5, "regions": MASKS},
        {"scene": scene_of(pack, (0, 0, 1, 1), (0, 0, 1, 1))},
    ):
        model, found, other, routing_map = keep(pack, kontext.model, positive, negative=negative, **off)
        assert found is positive and other is negative and routing_map is None and model is not kontext.model
        assert not model.wrappers


def test_a_weight_of_0_in_the_scene_closes_a_reference(pack, kontext):
    scene = scene_of(pack, *HALVES, weights=(1.0, 0.0))
    one, other = (
        kontext.sample(*keep(pack, kontext.model, chained(kontext, scale=scale), scene=scene)[:3])
        for scale in (1.0, 3.0)
    )
    assert torch.equal(one, other)


def test_subjects_of_weight_0_may_have_no_reference(pack, kontext):
    """As Apply Scene takes them: three subjects, two references."""
    scene = scene_of(pack, HALVES[0], (0, 0, 1, 1), HALVES[1], weights=(1.0, 0.0, 1.0))
    two = scene_of(pack, *HALVES)
    one, other = (kontext.sample(*keep(pack, kontext.model, chained(kontext), scene=each)[:3]) for each in (scene, two))
    assert torch.equal(one, other)


def test_without_a_negative_it_is_core_s_zero(pack, kontext, comfy):
    positive = chained(kontext)
    _, _, negative, _ = keep(pack, kontext.model, positive, regions=MASKS)
    (zero,) = comfy.ConditioningZeroOut().zero_out(positive)
    assert torch.equal(negative[0][0], zero[0][0])
    assert torch.equal(negative[0][1]["pooled_output"], zero[0][1]["pooled_output"])
    assert set(negative[0][1]) == {*zero[0][1], "model_conds"}  # its references are kept in place as well


def test_maps_of_any_sampler_and_their_preview(pack, flux2):
    model, positive, negative, recording = keep(
        pack, flux2.model, chained(flux2), regions=MASKS, strength=20.0, record="maps"
    )
    with pytest.raises(ValueError, match="no sampler has run yet. Connect the picture to image"):
        pack.run("RelateRoutingPreview", routing_map=recording, reference=1)
    one = flux2.sample(model, positive, negative)
    picture = photograph(96, 64)
    image, mask = pack.run("RelateRoutingPreview", routing_map=recording, reference=1, image=picture)
    assert image.shape == picture.shape and set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[..., mask.shape[-1] * 3 // 4 :].sum() == 0  # reference 1 acts on the left only
    first = recording.read()
    assert first.steps == 2 and first.kind == "mass" and (first.maps[0, 0][:, 6:] == 0).all()
    flux2.sample(model, positive, negative, seed=2)
    assert recording.read().steps == 2  # of the last run, not of both
    off = keep(pack, flux2.model, chained(flux2), regions=MASKS, strength=20.0)
    assert torch.equal(flux2.sample(*off[:3]), one)


def test_preview_lists_what_there_is(pack, flux2):
    model, positive, negative, recording = keep(pack, flux2.model, chained(flux2), regions=MASKS, record="maps")
    flux2.sample(model, positive, negative, steps=1)
    with pytest.raises(ValueError, match="reference: expected one of 1, 2, got 3"):
        pack.run("RelateRoutingPreview", routing_map=recording, reference=3)


def test_preview_says_that_another_node_skips_blocks(pack, kontext):
    model, positive, negative, recording = keep(pack, kontext.model, chained(kontext), regions=MASKS, record="maps")
    model.set_model_patch_replace(lambda args, extra: {"img": args["img"]}, "dit", "single_block", 1)
    kontext.sample(model, positive, negative)
    with pytest.raises(ValueError, match="in all 2 model calls another node skipped or repeated blocks"):
        pack.run("RelateRoutingPreview", routing_map=recording, reference=1)


@pytest.mark.parametrize(("inputs", "message"), [
    ({"regions": MASKS[:1]}, "regions: expected 2 masks, one for each reference latent of positive, got 1"),
    ({"regions": torch.zeros(2, 4, 4)}, r"regions: mask 1 is empty \(black\)"),
    ({"regions": torch.full((2, 4, 4), float("nan"))}, "regions: expected numbers in"),
])  # fmt: skip
def test_bad_masks(pack, kontext, inputs, message):
    with pytest.raises(ValueError, match=message):
        keep(pack, kontext.model, chained(kontext), **inputs)


def test_the_node_that_batches_masks_is_called_as_comfyui_calls_it(pack, kontext):
    nodes = importlib.import_module("comfy_extras.nodes_post_processing")
    if not hasattr(nodes, "BatchMasksNode"):
        pytest.skip("this ComfyUI has no such node")
    with pytest.raises(ValueError, match=nodes.BatchMasksNode.define_schema().display_name):
        keep(pack, kontext.model, chained(kontext), regions=MASKS[:1])


def test_other_bad_input(pack, kontext, tiny, tiny_sdxl):
    with pytest.raises(ValueError, match="positive: expected a conditioning with reference latents, got none"):
        keep(pack, kontext.model, kontext.text(11), regions=MASKS)
    with pytest.raises(ValueError, match="parts with 1 and 2"):
        keep(pack, kontext.model, chained(kontext, 1) + chained(kontext, 2), regions=MASKS)
    with pytest.raises(ValueError, match="scene: expected 2 subjects.*got 3"):
        keep(pack, kontext.model, chained(kontext), scene=scene_of(pack, *HALVES, HALVES[0]))
    with pytest.raises(ValueError, match="model: SDXL has no references that could be kept in place. Expected Flux.2"):
        keep(pack, tiny_sdxl.model, chained(kontext), regions=MASKS)
    with pytest.raises(ValueError, match="negative: expected 2 reference latents, one for each region, got 1"):
        keep(pack, kontext.model, chained(kontext), negative=chained(kontext, 1, seed=12), regions=MASKS)


def test_a_network_of_another_pack_is_named(pack, kontext):
    class Nunchaku(torch.nn.Module):
        pass

    model = kontext.model.clone()
    model.model = type(model.model).__new__(type(model.model))
    torch.nn.Module.__init__(model.model)
    model.model.diffusion_model, model.model.model_config = Nunchaku(), kontext.model.model.model_config
    with pytest.raises(ValueError, match="its network is .*Nunchaku, not ComfyUI's. Load the model with"):
        keep(pack, model, chained(kontext), regions=MASKS)


@pytest.mark.parametrize(("path", "reason"), [
    ("comfy.ldm.hidream_o1.model.HiDreamO1Transformer", "HiDream-O1's prompt reads the references in an attention"),
    ("comfy.ldm.minimax.model.MiniMaxH3Model", "MiniMax H3 packs references, sound and video into one sequence"),
])  # fmt: skip
def test_families_that_cannot_be_kept_in_place_say_why(pack, kontext, path, reason):
    module, name = path.rsplit(".", 1)
    kind = getattr(pytest.importorskip(module, reason=f"this ComfyUI has no {name}"), name)
    network = kind.__new__(kind)  # by its class alone, without weights
    torch.nn.Module.__init__(network)
    model = kontext.model.clone()
    model.model = type(model.model).__new__(type(model.model))
    torch.nn.Module.__init__(model.model)
    model.model.diffusion_model, model.model.model_config = network, kontext.model.model.model_config
    with pytest.raises(ValueError, match=f"model: {reason}.*Expected Flux.2"):
        keep(pack, model, chained(kontext), regions=MASKS)


def test_strength_without_regions_is_reported(pack, kontext, caplog):
    keep(pack, kontext.model, chained(kontext))
    assert "strength is 3, but no reference has a region" in caplog.text


def test_reference_latent_before_and_after(pack, kontext):
    """Before: one of ours. After: it may act everywhere, and ours stay where they are."""
    reference_latent = importlib.import_module("comfy_extras.nodes_edit_model").ReferenceLatent
    more = {"samples": kontext.latent(4, 4, 9)}
    model, positive, negative, _ = keep(
        pack, kontext.model, chained(kontext), regions=MASKS, strength=20.0, isolation=20.0
    )
    after = kontext.sample(model, reference_latent.execute(positive, more).args[0], negative)
    three = torch.cat((MASKS, torch.ones(1, 8, 12)))
    before = keep(
        pack,
        kontext.model,
        reference_latent.execute(chained(kontext), more).args[0],
        regions=three,
        strength=20.0,
        isolation=20.0,
    )
    assert torch.isfinite(after).all() and torch.isfinite(kontext.sample(*before[:3])).all()
    assert not torch.equal(after, kontext.sample(model, positive, negative))


def test_a_second_time_replaces_the_first(pack, kontext):
    once = keep(pack, kontext.model, chained(kontext), regions=MASKS)
    model, positive, negative, _ = keep(pack, kontext.model, chained(kontext), regions=1 - MASKS, strength=20.0)
    again = keep(pack, model, positive, negative=negative, regions=MASKS)
    assert torch.equal(kontext.sample(*again[:3]), kontext.sample(*once[:3]))


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_a_second_time_without_regions_records_the_first(pack, kontext, strength):
    """As behind Apply Scene, to look at where its references act."""
    reference_latent = importlib.import_module("comfy_extras.nodes_edit_model").ReferenceLatent
    for count in (2, 3):
        first = keep(pack, kontext.model, chained(kontext), negative=chained(kontext, seed=12), regions=MASKS)
        model, *both = first[:3]
        if count == 3:
            both = [reference_latent.execute(side, {"samples": kontext.latent(4, 4, 9)}).args[0] for side in both]
        wanted = kontext.sample(model, *both, cfg=3.0)
        *again, recording = keep(pack, model, both[0], negative=both[1], strength=strength, record="maps")
        picture, found = kontext.sample(*again, cfg=3.0), recording.read()
        if count == 2:
            assert torch.equal(picture, wanted)
        torch.testing.assert_close(picture, wanted, atol=1e-3, rtol=1e-3)  # a third one's share is measured by itself
        assert found.kind == "mass" and found.slots == tuple(range(1, count + 1)) and found.steps == 2


@pytest.mark.parametrize("first", [True, False], ids=["cache first", "cache last"])
def test_flux_kv_cache(pack, flux2, first):
    """After the first step text and picture alone have queries; recording and steering go on."""
    cache = importlib.import_module("comfy_extras.nodes_flux").FluxKVCache

    def sampled(scale=1.0, **inputs):
        """References of weight 0 are compared, so the timesteps of both are the cache's."""
        source = cache.execute(flux2.model).args[0] if first else flux2.model
        model, positive, negative, recording = keep(pack, source, chained(flux2, scale=scale), record="maps", **inputs)
        model = model if first else cache.execute(model).args[0]
        return flux2.sample(model, positive, negative, steps=4), recording.read()

    found, maps = sampled(regions=MASKS, strength=20.0)
    assert torch.isfinite(found).all() and maps.kind == "mass" and maps.steps == 4
    assert (maps.blocks[:, 0, 0, :, 6:] == 0).all() and (maps.blocks[:, 0, 0, :, :6] > 0).all()
    closed = scene_of(pack, *HALVES, weights=(1.0, 0.0))
    assert torch.equal(sampled(scene=closed)[0], sampled(3.0, scene=closed)[0])
    plain = cache.execute(flux2.model).args[0]
    only_recorded, maps = sampled(regions=MASKS, strength=0.0)
    assert torch.equal(only_recorded, flux2.sample(plain, chained(flux2), flux2.text(12), steps=4))
    assert maps.kind == "logit" and maps.steps == 1  # without queries of references there is no response to record


@pytest.mark.parametrize("first", [True, False], ids=["backend first", "backend last"])
def test_the_users_attention_backend_runs_what_needs_no_log_sum_exp(pack, kontext, first):
    """An override of another node, as Model Attention Backend is: all calls but the picture's part go through it."""
    calls = []

    def backend(plain, query, key, value, heads, *args, **kwargs):
        calls.append((query.shape[2], key.shape[2]))
        return plain(query, key, value, heads, *args, **kwargs)

    def with_backend(model):
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = backend
        return model

    source = with_backend(kontext.model) if first else kontext.model
    model, positive, negative, _ = keep(pack, source, chained(kontext), regions=MASKS, strength=20.0)
    model = model if first else with_backend(model)
    found = kontext.sample(model, positive, negative, steps=1)
    assert torch.isfinite(found).all()
    # text 7, picture 24 tokens, references 16 and 12: half of the picture is closed to each of them
    assert set(calls) == {(7, 59), (16, 47), (12, 47)}
    calls.clear()
    off = keep(pack, source, chained(kontext), regions=MASKS, strength=20.0, start_at=0.9, end_at=1.0)
    kontext.sample(off[0] if first else with_backend(off[0]), off[1], off[2], steps=1)
    assert set(calls) == {(59, 59)}


def test_a_backend_that_drops_masks_gets_none_of_ours(pack, kontext):
    """SageAttention 2 does, by Patch Sage Attention and in ComfyUI 0.3: soft borders would be gone on one side."""

    def without_masks(plain, query, key, value, heads, mask=None, **kwargs):
        return plain(query, key, value, heads, **kwargs)

    scene = scene_of(pack, *HALVES, weights=(1.0, 2.0))
    model, positive, negative, _ = keep(pack, kontext.model, chained(kontext), scene=scene, isolation=1.0)
    wanted = kontext.sample(model, positive, negative)
    model.model_options["transformer_options"]["optimized_attention_override"] = without_masks
    assert torch.equal(kontext.sample(model, positive, negative), wanted)


def test_model_attention_backend_of_core(pack, kontext, comfy):
    name = "ModelAttentionBackend"
    if name not in comfy.NODE_CLASS_MAPPINGS:
        module = pytest.importorskip("comfy_extras.nodes_model_advanced")
        if not hasattr(module, name):
            pytest.skip("this ComfyUI has no Model Attention Backend")
    node = importlib.import_module("comfy_extras.nodes_model_advanced").ModelAttentionBackend()
    (source,) = node.patch(kontext.model, "pytorch attention")
    steered = keep(pack, source, chained(kontext), regions=MASKS)
    plain = keep(pack, kontext.model, chained(kontext), regions=MASKS)
    torch.testing.assert_close(kontext.sample(*steered[:3]), kontext.sample(*plain[:3]), atol=1e-3, rtol=1e-3)


def test_an_override_that_is_put_on_top_in_each_step(pack, kontext, caplog):
    """Sparse attention nodes do that, and decline masks: nothing is steered then, and it is said."""

    def on_top(apply_model, arguments):
        options = dict(arguments["c"]["transformer_options"])

        def sparse(plain, query, key, value, heads, *args, **kwargs):
            return plain(query, key, value, heads, *args, **kwargs)

        options["optimized_attention_override"] = sparse
        return apply_model(
            arguments["input"], arguments["timestep"], **{**arguments["c"], "transformer_options": options}
        )

    model, positive, negative, _ = keep(pack, kontext.model, chained(kontext), regions=MASKS)
    below = model.clone()
    below.set_model_unet_function_wrapper(on_top)  # runs outside of our wrapper: ours is on top of it
    assert torch.equal(kontext.sample(below, positive, negative), kontext.sample(model, positive, negative))

    def inside(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
        options = {
            **transformer_options,
            "optimized_attention_override": lambda plain, *args, **kwargs: plain(*args, **kwargs),
        }
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)

    above = model.clone()
    kinds = importlib.import_module("comfy.patcher_extension").WrappersMP
    above.add_wrapper_with_key(kinds.APPLY_MODEL, "sparse", inside)
    found = kontext.sample(above, positive, negative)
    assert torch.equal(found, kontext.sample(kontext.model, positive, negative))
    assert caplog.text.count("another node's attention override took the place of ours") == 1


def test_a_controlnets_residuals(pack, kontext):
    model, positive, negative, _ = keep(pack, kontext.model, chained(kontext), regions=MASKS)

    def with_control(apply_model, arguments):
        control = {"input": [torch.full((1, 24, 64), 0.1)], "output": [torch.full((1, 24, 64), 0.1)]}
        return apply_model(arguments["input"], arguments["timestep"], **{**arguments["c"], "control": control})

    controlled = model.clone()
    controlled.set_model_unet_function_wrapper(with_control)
    found = kontext.sample(controlled, positive, negative)
    assert torch.isfinite(found).all() and not torch.equal(found, kontext.sample(model, positive, negative))


def test_redux_and_its_mask(pack, kontext):
    """Redux lengthens the text and may add a mask of text and picture, which ComfyUI does not pad for references."""
    import node_helpers

    positive = chained(kontext)
    longer = [[torch.cat((context, torch.randn(1, 9, 32)), dim=1), entry] for context, entry in positive]
    assert torch.isfinite(kontext.sample(*keep(pack, kontext.model, longer, regions=MASKS)[:3])).all()
    mask = torch.zeros(1, 7 + 24, 7 + 24)
    mask[..., :7, 7:] = -1.0
    redux = {"attention_mask": mask, "attention_mask_img_shape": (4, 6)}
    masked = node_helpers.conditioning_set_values(positive, redux)
    model, side, negative, _ = keep(pack, kontext.model, masked, negative=kontext.text(12), regions=MASKS)
    found = kontext.sample(model, side, negative)
    assert torch.isfinite(found).all()
    unmasked = keep(pack, kontext.model, positive, negative=kontext.text(12), regions=MASKS)
    assert not torch.equal(found, kontext.sample(*unmasked[:3]))


def test_after_apply_references_of_dreamo(pack, comfy, tiny):
    """DreamO's references get their regions from here, and any sampler is the routing-aware one."""
    flux = flux_studio.make(pack, comfy, tiny)
    left = torch.zeros(1, 16, 24)
    left[..., :12] = 1.0
    bare = ({"image": photograph(60, 40, seed=1)}, {"image": photograph(30, 50, seed=2)})
    placed = flux.references(*({**each, "region": region} for each, region in zip(bare, (left, 1 - left))))
    wanted, routing_map, *_ = flux.route(placed, routing_strength=3.0, record="maps")
    model, positive = flux.apply(flux.references(*bare))
    masks = torch.cat((left, 1 - left))
    model, positive, negative, recording = keep(
        pack, model, positive, negative=flux.text("blurry"), regions=masks, record="maps"
    )
    assert torch.equal(flux.ksample(model, positive, negative), wanted)
    torch.testing.assert_close(recording.read().blocks, routing_map.blocks)
    again = keep(
        pack, model, positive, negative=negative, strength=0.0, record="maps"
    )  # records the regions that are there
    assert torch.equal(flux.ksample(*again[:3]), wanted) and again[3].read().kind == "mass"
    # without a negative: the text zeroed out, without references; Conditioning Zero Out's is not recorded either
    (zero,) = comfy.ConditioningZeroOut().zero_out(flux.text())
    wanted, *_ = flux.route(placed, negative=zero, routing_strength=3.0, cfg=3.0)
    applied = flux.apply(flux.references(*bare))
    model, positive, negative, _ = keep(pack, *applied, regions=masks)
    assert torch.equal(flux.ksample(model, positive, negative, cfg=3.0), wanted)
    (zero,) = comfy.ConditioningZeroOut().zero_out(applied[1])
    model, positive, negative, recording = keep(pack, *applied, negative=zero, regions=masks, record="maps")
    flux.ksample(model, positive, negative, cfg=3.0)
    assert recording.read().steps == 2


def test_torch_compile(pack, flux2):
    """The network compiled as TorchCompileModel does it: one graph, whatever the step."""
    model, positive, negative, _ = keep(pack, flux2.model, chained(flux2), regions=MASKS, record="maps")
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    eager = flux2.sample(model, positive, negative, steps=3)
    compiled = model.clone()
    compiled.add_object_patch("diffusion_model", torch.compile(flux2.model.model.diffusion_model, backend=count))
    found = flux2.sample(compiled, positive, negative, steps=3)
    torch.testing.assert_close(found, eager, atol=1e-3, rtol=1e-3)
    assert graphs
