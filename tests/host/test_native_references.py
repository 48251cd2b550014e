"""References of every family are kept in place, on ComfyUI's own classes and its own sampler."""

import importlib

import pytest
import torch

from tests.host import native_families
from tests.host.native_families import FAMILIES, Studio
from tests.host.test_identity_laws import patches_of

LEFT = torch.zeros(16, 24)
LEFT[:, :12] = 1.0
HARD = 20.0


@pytest.fixture(scope="module", params=FAMILIES)
def studio(request, pack, tiny, comfy):
    if request.param not in native_families.available():
        pytest.skip(f"this ComfyUI has no {request.param}")
    return Studio(request.param, tiny, comfy)


@pytest.fixture(scope="module")
def seam(pack):
    return pack.module("nodes.host_comfy.references.attach")


@pytest.fixture(scope="module")
def regions(pack):
    """A factory of ReferenceRegions, maps recorded."""
    core = pack.module("core.routing.reference_regions")

    def make(areas=(LEFT, 1 - LEFT), weights=(1.0, 1.0), record=True, **fields):
        recorder = pack.module("core.routing.routing_map").Recorder() if record else None
        return core.ReferenceRegions(areas, weights, recorder=recorder, **fields)

    return make


def sides(studio, scale=1.0, negative_scale=None):
    """Positive and negative, with references of two sizes; the second one scaled."""

    def pair(factor):
        return studio.latent(8, 8, 2), factor * studio.latent(6, 10, 3)

    negative = pair(scale if negative_scale is None else negative_scale) if studio.family.negative else ()
    return studio.text(11, *pair(scale)), studio.text(12, *negative)


def steered(studio, seam, fields, scale=1.0, negative_scale=None, **settings):
    model, positive, negative = seam.attach_regions(studio.model, *sides(studio, scale, negative_scale), fields)
    return studio.sample(model, positive, negative, **settings)


@pytest.fixture(scope="module")
def plain(studio):
    return studio.sample(studio.model, *sides(studio))


def test_recording_alone_changes_nothing_bit_for_bit(studio, seam, regions, plain, caplog):
    assert not torch.equal(plain, studio.sample(studio.model, *sides(studio, 3.0)))  # references act at all
    fields = regions((None, None))
    assert torch.equal(steered(studio, seam, fields), plain)
    found = fields.recorder.result((1, 2))
    assert found.kind == "logit" and found.steps == 2 and found.blocks.shape[1:3] == (1, 2)
    assert torch.isfinite(found.blocks).all() and found.blocks.std() > 0
    assert "not kept in place" not in caplog.text


def test_an_empty_window_and_strength_0_are_the_models_own_picture(studio, seam, regions, plain):
    for fields in (
        regions(strength=0.0),
        regions(strength=3.0, window=(0.5, 0.5)),
        regions((None, None), strength=9.0),
        regions(strength=0.0, record=False),
    ):
        assert torch.equal(steered(studio, seam, fields), plain)


def test_nobody_reads_reference_2(studio, seam, regions, plain, caplog):
    """Exactly 0.0: refiners of references are closed as well."""
    one, other = (steered(studio, seam, regions((None, None), (1.0, 0.0)), scale) for scale in (1.0, 3.0))
    assert torch.equal(one, other) and not torch.equal(one, plain)
    assert "not kept in place" not in caplog.text


def test_a_closed_border_is_exact_and_soft_is_between(studio, seam, regions, plain):
    hard, soft, same = regions(strength=HARD), regions(strength=2.0), regions(strength=2.0, record=False)
    closed, between = steered(studio, seam, hard), steered(studio, seam, soft)
    mass = hard.recorder.result((1, 2)).blocks[:, 0]  # (K, R, h, w)
    half = mass.shape[-1] // 2
    assert (mass[:, 0, :, half:] == 0).all() and (mass[:, 1, :, :half] == 0).all()
    assert (mass[:, 0, :, :half] > 0).all() and (mass[:, 1, :, half:] > 0).all()
    open_mass = soft.recorder.result((1, 2)).blocks[:, 0]
    assert (open_mass > 0).all() and (open_mass.sum(dim=1) < 1).all()
    assert not torch.equal(closed, plain) and not torch.equal(between, plain) and not torch.equal(closed, between)
    assert torch.equal(steered(studio, seam, same), between)  # recording changes nothing


def test_the_negative_is_steered_too(studio, seam, regions):
    """With guidance, what only the negative's reference 2 holds does not reach the picture either."""
    if not studio.family.negative:
        pytest.skip("this family's negative has no references")
    fields = {"weights": (1.0, 0.0), "record": False}
    one, other = (steered(studio, seam, regions((None, None), **fields), 1.0, scale, cfg=3.0) for scale in (1.0, 3.0))
    assert torch.equal(one, other)
    free = [studio.sample(studio.model, *sides(studio, 1.0, scale), cfg=3.0) for scale in (1.0, 3.0)]
    assert not torch.equal(*free)


def test_only_the_positive_is_recorded(studio, seam, regions):
    with_guidance, without = regions(strength=2.0), regions(strength=2.0)
    steered(studio, seam, with_guidance, cfg=3.0, steps=1)
    steered(studio, seam, without, steps=1)
    one, other = (each.recorder.result((1, 2)) for each in (with_guidance, without))
    assert one.steps == other.steps == 1
    torch.testing.assert_close(one.blocks, other.blocks, atol=1e-4, rtol=1e-4)


def test_each_picture_of_a_batch_is_the_one_made_alone(studio, seam, regions):
    fields = regions(strength=2.0)
    both = steered(studio, seam, fields, batch=2, steps=1)
    assert fields.recorder.result((1, 2)).blocks.shape[1] == 2
    alone = steered(studio, seam, regions(strength=2.0), steps=1)
    torch.testing.assert_close(both[:1], alone, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("size", [(9, 7), (4, 22)], ids=str)
def test_odd_and_narrow_pictures(studio, seam, regions, size, caplog):
    fields = regions(strength=2.0)
    found = steered(studio, seam, fields, size=size, steps=1)
    assert found.shape[-2:] == size and torch.isfinite(found).all()
    rows, columns = (-(-side // studio.family.patch) for side in size)
    assert fields.recorder.result((1, 2)).blocks.shape[-2:] == (rows, columns)
    assert "not kept in place" not in caplog.text


def test_a_reference_latent_added_later_is_left_alone(studio, seam, regions, caplog):
    """Ours are the first ones; a later Reference Latent is everybody's."""
    import node_helpers

    model, positive, negative = seam.attach_regions(studio.model, *sides(studio), regions((None, None), (1.0, 0.0)))
    later = {studio.family.key: [studio.latent(4, 4, 9)]}
    found = [
        studio.sample(model, node_helpers.conditioning_set_values(each, later, append=True), negative, steps=1)
        for each in (
            positive,
            seam.attach_regions(studio.model, *sides(studio, 3.0), regions((None, None), (1.0, 0.0)))[1],
        )
    ]
    without = studio.sample(model, positive, negative, steps=1)
    assert torch.equal(*found) and not torch.equal(found[0], without)
    assert "not kept in place" not in caplog.text


def test_references_taken_away_later_are_reported_and_nothing_is_steered(studio, seam, regions, caplog):
    import node_helpers

    model, positive, negative = seam.attach_regions(studio.model, *sides(studio), regions(strength=HARD))
    fewer = node_helpers.conditioning_set_values(positive, {studio.family.key: [studio.latent(8, 8, 2)]})
    found = studio.sample(model, fewer, negative, steps=2)
    assert torch.equal(found, studio.sample(studio.model, fewer, negative, steps=2))
    assert caplog.text.count("expected at least 2 reference latents, the conditioning has 1") == 1


@pytest.mark.parametrize("node", ["EasyCache", "SkipLayerGuidance"])
def test_calls_that_skip_blocks_or_all_of_the_network_are_no_mismatch(studio, seam, regions, node, caplog):
    fields = regions(strength=2.0)
    model, positive, negative = seam.attach_regions(studio.model, *sides(studio), fields)
    if node == "EasyCache":
        cache = importlib.import_module("comfy_extras.nodes_easycache").EasyCacheNode
        model = cache.execute(model, 3.0, 0.0, 1.0, False).args[0]
    else:
        guidance = importlib.import_module("comfy_extras.nodes_slg").SkipLayerGuidanceDiT
        model = guidance.execute(model, 3.0, 0.0, 1.0, "0", "0", 0.0).args[0]
    studio.sample(model, positive, negative, steps=6, cfg=3.0)
    assert "not kept in place" not in caplog.text
    if node == "EasyCache" and studio.name not in ("omnigen2", "boogu"):  # it finds nothing to leave out of these
        assert fields.recorder.result((1, 2)).steps < 6


def test_regions_of_another_branch_than_the_models_begin_with_the_run(studio, comfy, seam, regions):
    first, second = regions(strength=2.0), regions(strength=2.0)
    _, one, _ = seam.attach_regions(studio.model, *sides(studio), first)
    model, other, negative = seam.attach_regions(studio.model, *sides(studio), second)
    (both,) = comfy.ConditioningCombine().combine(one, other)
    for size in ((8, 12), (12, 8)):
        studio.sample(model, both, negative, size=size, steps=1)
        maps = [each.recorder.result((1, 2)).blocks for each in (first, second)]
        assert torch.equal(*maps) and maps[0].shape[-2:] == tuple(-(-side // studio.family.patch) for side in size)


def test_the_inputs_are_never_changed(studio, seam, regions, plain):
    positive, negative = sides(studio)
    before = patches_of(studio.model), [dict(entry) for _, entry in positive + negative]
    seam.attach_regions(studio.model, positive, negative, regions(strength=2.0))
    assert (patches_of(studio.model), [dict(entry) for _, entry in positive + negative]) == before
    assert torch.equal(studio.sample(studio.model, positive, negative), plain)


def test_copies_in_the_text_are_kept_in_place_too(studio, pack, seam, regions):
    """Vision tokens of reference 2 at text places 2 to 4: closed with it."""
    positions = pack.module("core.prompt.text_positions").TextPositions("", (), ((0, 2), (2, 5)), 7)

    def with_copies(scale):
        positive, negative = sides(studio)
        context = positive[0][0].clone()
        context[:, 2:5] *= scale
        entry = {**positive[0][1], "relate_text": positions}
        return seam.attach_regions(studio.model, [[context, entry]], negative, regions((None, None), (1.0, 0.0)))

    placed = with_copies(1.0)[1][0][1]["model_conds"][pack.module("nodes.host_comfy.references.steer").KEY].cond[0]
    assert placed.copies == (((0, 2),), ((2, 5),))
    if not studio.family.refined:
        one, other = (studio.sample(*with_copies(scale), steps=1) for scale in (1.0, 3.0))
        assert torch.equal(one, other)


def test_a_text_that_grows_behind_the_node_keeps_its_places(studio, pack, comfy, seam, regions):
    """Concat and Redux put tokens behind the text; Flux.2 pads in front of all of it, up to 512."""
    if studio.family.refined:
        pytest.skip("text has an attention of its own, or none with the references")
    positions = pack.module("core.prompt.text_positions").TextPositions("", (), ((0, 2), (2, 5)), 7)

    def concatenated(scale, more):
        positive, negative = sides(studio)
        context = positive[0][0].clone()
        context[:, 2:5] *= scale
        entry = {**positive[0][1], "relate_text": positions}
        entry.pop("attention_mask", None)  # Concat leaves it as long as the first text
        model, positive, negative = seam.attach_regions(
            studio.model, [[context, entry]], negative, regions((None, None), (1.0, 0.0))
        )
        later = [[native_families.draw(1, more, studio.family.width, seed=5), {}]]
        return model, comfy.ConditioningConcat().concat(positive, later)[0], negative

    for more in (7, 600):
        one, other = (studio.sample(*concatenated(scale, more), steps=1) for scale in (1.0, 3.0))
        assert torch.equal(one, other)


def test_a_seventh_reference_and_odd_latents_are_refused_in_our_words(studio, seam, regions):
    six = studio.text(11, *(studio.latent(4, 4, seed) for seed in range(6)))
    fields = regions((None,) * 6, (1.0,) * 6, strength=2.0)
    if studio.name in ("omnigen2", "boogu"):
        with pytest.raises(ValueError, match="takes at most 5 reference latents, got 6"):
            seam.attach_regions(studio.model, six, six, fields)
        model, positive, negative = seam.attach_regions(studio.model, *sides(studio), regions(strength=2.0))
        import node_helpers

        more = node_helpers.conditioning_set_values(
            positive, {"reference_latents": [studio.latent(4, 4, seed) for seed in range(4)]}, append=True
        )
        with pytest.raises(ValueError, match="takes at most 5 reference latents, got 6"):  # not an IndexError
            studio.sample(model, more, negative)
    else:
        model, positive, negative = seam.attach_regions(studio.model, six, six, fields)
        assert torch.isfinite(studio.sample(model, positive, negative, steps=1)).all()
    if studio.family.step > 1:
        odd = studio.text(11, studio.latent(5, 8, 1), studio.latent(8, 8, 2))
        with pytest.raises(ValueError, match="multiples of 2, got 5 x 8 for reference 1"):
            seam.attach_regions(studio.model, odd, odd, regions())


def test_a_caption_behind_the_references_is_counted(pack, tiny, comfy, seam, regions, caplog):
    """Core's own node makes one more caption than references; with a batch of two ComfyUI itself fails on it."""
    if "zomni" not in native_families.available():
        pytest.skip("this ComfyUI has no Z-Image Omni")
    omni = Studio("zomni", tiny, comfy)

    def picture(scale):
        ((context, entry),) = omni.text(11, omni.latent(8, 8, 2), scale * omni.latent(6, 10, 3))
        captions = [*entry["reference_latents_text_embeds"], torch.ones(1, 9, 32)]
        side = [[context, {**entry, "reference_latents_text_embeds": captions}]]
        return omni.sample(*seam.attach_regions(omni.model, side, omni.text(12), regions((None, None), (1.0, 0.0))))

    assert torch.equal(picture(1.0), picture(3.0)) and "not kept in place" not in caplog.text


def test_the_routing_aware_sampler_is_ksampler_with_regions(studio, pack, seam, regions):
    """References of Reference Image nodes, on a model that takes them natively."""
    made = pack.module("core.routing.token_layout").Reference
    latents = studio.latent(8, 8, 2), studio.latent(6, 10, 3)
    references = tuple(
        made(latent, "subject", slot, area, weight)
        for latent, slot, area, weight in zip(latents, (1, 2), (LEFT, 1 - LEFT), (1.0, 0.5))
    )
    without = studio.text(11), studio.text(12)
    more = studio.family.more(2)  # Z-Image Omni: the captions around references come with the prompt
    if studio.name == "longcat":  # Krea 2's method is set for its users, LongCat's is a node of theirs
        more["reference_latents_method"] = "index"
    without = tuple([[context, {**entry, **more}] for context, entry in side] for side in without)

    def route(**inputs):
        settings = {"seed": 1, "steps": 2, "cfg": 3.0, "positive": without[0], "negative": without[1], **inputs}
        latent = {"samples": studio.empty(8, 12)}
        return pack.run(
            "RelateRoutingSampler", model=studio.model, latent_image=latent, references=references, **settings
        )

    fields = regions(weights=(1.0, 0.5), strength=3.0)
    positive, negative = studio.text(11, *latents), studio.text(12, *(latents if studio.family.negative else ()))
    wanted = studio.sample(*seam.attach_regions(studio.model, positive, negative, fields), cfg=3.0)
    latent, routing_map, heat, masks = route(routing_strength=3.0, record="maps")
    assert torch.equal(latent["samples"], wanted)
    torch.testing.assert_close(routing_map.blocks, fields.recorder.result((1, 2)).blocks)
    factor = 16 if studio.family.channels == 128 else 8
    assert heat.shape == (2, 8 * factor, 12 * factor, 3) and masks.shape == heat.shape[:3]


def test_the_routing_aware_sampler_says_whose_regions_it_replaces(studio, pack, seam, regions, caplog):
    if studio.name in ("omnigen2", "zomni"):
        pytest.skip("its sides have no references, or captions around them")
    made = pack.module("core.routing.token_layout").Reference
    one = (made(studio.latent(8, 8, 4), "subject", 1, LEFT, 1.0),)
    model, positive, negative = seam.attach_regions(studio.model, *sides(studio), regions(strength=3.0))
    settings = {"model": model, "positive": positive, "negative": negative, "references": one, "seed": 1, "steps": 1}
    settings["latent_image"] = {"samples": studio.empty(8, 12)}
    pack.run("RelateRoutingSampler", **settings, routing_strength=0.0)
    assert "one call holds the regions of one node" not in caplog.text  # nothing of its own: the others stay
    pack.run("RelateRoutingSampler", **settings, routing_strength=3.0)
    assert caplog.text.count("one call holds the regions of one node") == 1


def test_the_routing_aware_sampler_takes_an_empty_latent_of_other_cells(studio, pack, comfy):
    """As KSampler does: Empty Latent Image counts 8 pixels a cell, FLUX.2 has 16."""
    (latent,) = comfy.EmptyLatentImage().generate(192, 128)
    settings = {"seed": 1, "steps": 1, "cfg": 1.0, "positive": studio.text(11), "negative": studio.text(12)}
    (wanted,) = comfy.common_ksampler(
        studio.model, *(1, 1, 1.0, "euler", "simple"), studio.text(11), studio.text(12), latent
    )
    routed, *_ = pack.run(
        "RelateRoutingSampler", model=studio.model, latent_image=latent, references=(), scheduler="simple", **settings
    )
    assert routed.keys() == wanted.keys() and torch.equal(routed["samples"], wanted["samples"])


def test_a_regional_conditioning_sees_its_part_of_a_region(studio, seam, regions):
    """Computed on the right half, it has nothing of the left one: reference 1 is closed in all of it."""
    fields = regions(strength=HARD)
    positive, negative = sides(studio)
    right = [[context, {**entry, "area": (8, 6, 0, 6), "strength": 1.0}] for context, entry in positive]
    found = studio.sample(*seam.attach_regions(studio.model, right, negative, fields), steps=1)
    mass = fields.recorder.result((1, 2)).blocks[:, 0]
    assert torch.isfinite(found).all() and mass.shape[-1] == 12 // studio.family.patch
    half = mass.shape[-1] // 2  # the maps stand where the part does
    assert (mass[:, 0] == 0).all() and (mass[:, 1, :, :half] == 0).all() and (mass[:, 1, :, half:] > 0).all()
