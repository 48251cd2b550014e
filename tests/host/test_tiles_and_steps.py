"""Tiles, context windows, sizes inside the UNet, several model calls a step, and schedules changed by other nodes.

The pack cannot be run beside other packs here, so their wrappers are written out as they call the model.
"""

import importlib
import inspect

import pytest
import torch

from tests.host.pictures import photograph
from tests.host.studio import RIGHT
from tests.host.test_positive_rows import node, sampled

SITES = 8
SIZE = (16, 32)


@pytest.fixture(scope="module")
def identity(studio):
    """A subject whose box is the right half."""
    return studio.identity(studio.scene({"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT}))


@pytest.fixture(scope="module")
def two(studio):
    return studio.identity(
        studio.scene(
            {"name": "corgi", "image": photograph(60, 40, seed=1), "box": (0.0, 0.0, 0.5, 1.0)},
            {"name": "fox", "image": photograph(30, 50, seed=2), "box": RIGHT},
        )
    )


def parts(c, rows, tile):
    """A wrapper's conditions for a tile: what is as wide as the picture is cut, all else is given as it is."""
    return {
        name: value[..., tile] if torch.is_tensor(value) and value.shape[-2:] == SIZE else value
        for name, value in c.items()
    }


def one_after_the_other(*columns):
    """Calls the model once for each tile (vertical strips), and averages where they overlap."""

    def wrapper(apply_model, arguments):
        x, c = arguments["input"], arguments["c"]
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for first, last in columns:
            tile = (..., slice(first, last))
            total[tile] += apply_model(x[tile], arguments["timestep"], **c)
            count[tile] += 1
        return total / count

    return wrapper


def batched(*columns):
    """Tiles of one size in one batch, [tile 1 of all conditionings, tile 2 of all conditionings, ...]."""

    def wrapper(apply_model, arguments):
        x, c, times = arguments["input"], dict(arguments["c"]), len(columns)
        rows = torch.cat([x[..., first:last] for first, last in columns])
        for name, value in c.items():
            if torch.is_tensor(value) and value.shape[0] == x.shape[0]:
                c[name] = torch.cat([value] * times)
        out = apply_model(rows, torch.cat([arguments["timestep"]] * times), **c)
        return torch.cat(out.chunk(times), dim=-1)

    return wrapper


def batched_by_conditioning(*columns):
    """The other order: [all tiles of conditioning 1, all tiles of conditioning 2]."""

    def wrapper(apply_model, arguments):
        x, c, times = arguments["input"], dict(arguments["c"]), len(columns)
        chunks = x.chunk(len(arguments["cond_or_uncond"]))
        rows = torch.cat([chunk[..., first:last] for chunk in chunks for first, last in columns])
        size = chunks[0].shape[0]
        for name, value in c.items():
            if torch.is_tensor(value) and value.shape[0] == x.shape[0]:
                c[name] = torch.cat([part for part in value.split(size) for _ in columns])
        times_each = torch.cat([part for part in arguments["timestep"].split(size) for _ in columns])
        out = apply_model(rows, times_each, **c).split(size)
        return torch.cat([torch.cat(out[index : index + times], dim=-1) for index in range(0, len(out), times)])

    return wrapper


def tiled(model, wrapper):
    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


HALVES = ((0, 16), (16, 32))
WRAPPERS = {
    "two tiles": one_after_the_other(*HALVES),
    "unequal tiles": one_after_the_other((0, 12), (12, 32)),
    "one batch": batched(*HALVES),
    "one batch, by conditioning": batched_by_conditioning(*HALVES),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_a_tile_sees_its_own_part_of_the_boxes(studio, identity, wrapper, cfg, batch, caplog):
    """The left tile has no subject: it is the bare model's. The right tile is one box."""
    settings = {"size": SIZE, "steps": 1, "cfg": cfg, "batch": batch}
    bare = studio.sample(tiled(studio.base.model, wrapper), **settings)
    latent = studio.sample(tiled(studio.apply(identity), wrapper), **settings)
    border = 12 if wrapper is WRAPPERS["unequal tiles"] else 16
    if border == 16:
        torch.testing.assert_close(latent[..., :border], bare[..., :border], atol=1e-3, rtol=1e-4)
    assert (latent - bare)[..., 16:].abs().mean() > 0.1
    assert "cannot find" not in caplog.text


def test_tiles_that_overlap(studio, identity, caplog):
    wrapper = one_after_the_other((0, 20), (12, 32))
    settings = {"size": SIZE, "steps": 1, "cfg": 1.0}
    bare = studio.sample(tiled(studio.base.model, wrapper), **settings)
    latent = studio.sample(tiled(studio.apply(identity), wrapper), **settings)
    assert torch.isfinite(latent).all() and not torch.equal(latent, bare) and "cannot find" not in caplog.text


def test_the_negative_row_of_a_tile_is_not_touched(studio, identity):
    """Guidance multiplies what the identity adds, in a batch of tiles as well."""
    text = studio.text("blurry")
    wrapper = batched(*HALVES)
    models = [tiled(model, wrapper) for model in (studio.base.model, studio.apply(identity))]
    one = [studio.sample(model, text, size=SIZE, steps=1, cfg=1.0) for model in models]
    three = [studio.sample(model, text, size=SIZE, steps=1, cfg=3.0) for model in models]
    torch.testing.assert_close(three[1] - three[0], 3 * (one[1] - one[0]), atol=2e-2, rtol=1e-3)


def test_tiles_that_cannot_be_found_are_said_once(studio, identity, caplog):
    """A wrapper that changes what it cuts out, here its size."""

    def shrunk(apply_model, arguments):
        x = torch.nn.functional.interpolate(arguments["input"], scale_factor=0.5)
        out = apply_model(x, arguments["timestep"], **arguments["c"])
        return torch.nn.functional.interpolate(out, scale_factor=2)

    latent = studio.sample(tiled(studio.apply(identity), shrunk), size=SIZE, steps=3)
    assert torch.isfinite(latent).all()
    assert caplog.text.count("parts of 8 x 16 of a picture of 16 x 32 that Apply Identity cannot find") == 1


@pytest.mark.parametrize("dimension", [3, 0], ids=["of the picture", "of the batch"])
@pytest.mark.parametrize("layout", ["boxes", "attention"])
def test_context_windows(studio, identity, dimension, layout, caplog):
    """ComfyUI's own, on the picture's width and on the batch."""
    windows = importlib.import_module("comfy_extras.nodes_context_windows").ContextWindowsManualNode

    def choice(name):
        kind, options = windows.INPUT_TYPES()["required"][name]
        return (kind if isinstance(kind, list) else options["options"])[0]

    def windowed(model):
        return windows.execute(
            model,
            context_length=16 if dimension else 2,
            context_overlap=0,
            context_stride=1,
            context_schedule=choice("context_schedule"),
            closed_loop=False,
            dim=dimension,
            fuse_method=choice("fuse_method"),
            **newer,
        ).result[0]

    parameters = inspect.signature(windows.execute).parameters
    newer = {"freenoise": False} if "freenoise" in parameters else {}
    settings = {"size": SIZE, "steps": 6 if layout == "attention" else 1, "cfg": 4.0, "batch": 1 if dimension else 4}
    if not dimension and not newer:
        pytest.skip("the windows of ComfyUI 0.3.64 fail on batches by themselves")
    bare = studio.sample(windowed(studio.base.model), **settings)
    latent = studio.sample(windowed(studio.apply(identity, layout=layout)), **settings)
    assert torch.isfinite(latent).all() and (latent - bare)[..., 16:].abs().mean() > 0.1
    assert "cannot find" not in caplog.text
    if dimension and layout == "boxes":
        assert (latent - bare)[..., :12].abs().mean() < 0.1 * (latent - bare)[..., 20:].abs().mean()


@pytest.fixture
def layouts(pack, monkeypatch):
    """For each attention map that is observed: its site, step, size, and whether the layout was used."""
    kind = pack.module("core.identity.auto_layout").AttentionRecord
    seen, observe = [], kind.observe

    def spy(self, where, step, maps, *window):
        coverage = observe(self, where, step, maps, *window)
        seen.append((where[0], step, tuple(maps.shape[-2:]), coverage is not None))
        return coverage

    monkeypatch.setattr(kind, "observe", spy)
    return seen


@pytest.fixture
def known_places(pack, monkeypatch):
    """The prompt is 'a corgi hugging a fox', whatever runs."""
    module = pack.module("nodes.host_comfy.sdxl.prompt_lookup")
    monkeypatch.setattr(module, "find_names", lambda positive, *_: {cond["uuid"]: ((2,), (5,)) for cond in positive})


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
def test_deep_shrink_beside_the_attention_layout(studio, two, layouts, known_places, block, first):
    """Kohya's Deep Shrink: sizes inside the UNet change in the run; eight steps, the first two shrunk."""

    def shrink(model):
        return node(
            "model_downscale", "PatchModelAddDownscale", model, block, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
        )

    model = (
        studio.apply(two, shrink(studio.base.model), layout="attention")
        if first
        else shrink(studio.apply(two, layout="attention"))
    )
    assert torch.isfinite(studio.sample(model, size=SIZE, steps=8)).all()
    for site in range(SITES):
        steps = [(step, used) for index, step, _, used in layouts if index == site]
        assert steps == [(step, step >= 4) for step in range(8)]
    if block < 3:
        assert len({size for site, _, size, _ in layouts if site == 0}) == 2


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_2m", "dpmpp_sde"])
def test_the_attention_layout_begins_with_the_fifth_step(studio, two, layouts, known_places, sampler):
    studio.sample(studio.apply(two, layout="attention"), steps=7, sampler_name=sampler)
    first = next(step for _, step, _, used in layouts if used)
    assert first == 4 and {step for _, step, _, used in layouts if used} == {4, 5, 6}
    assert not any(used for _, step, _, used in layouts if step < 4)


@pytest.mark.parametrize(
    "guidance",
    [
        ("pag", "PerturbedAttentionGuidance", (3.0,)),
        ("sag", "SelfAttentionGuidance", (0.5, 2.0)),
        ("perpneg", "PerpNeg", (1.0,)),
    ],
    ids=lambda each: each[1],
)
def test_further_calls_in_a_step_are_no_steps(studio, two, layouts, known_places, guidance):
    module, kind, settings = guidance
    settings = (studio.text(""), *settings) if kind == "PerpNeg" else settings
    model = node(module, kind, studio.apply(two, layout="attention"), *settings)
    studio.sample(model, steps=6, size=SIZE)
    assert [step for site, step, _, used in layouts if site == 0 and used][0] == 4
    assert {step for _, step, _, _ in layouts} == set(range(6))


@pytest.mark.parametrize("columns", [HALVES, ((0, 12), (12, 32)), ((0, 20), (12, 32))], ids=str)
def test_tiles_make_one_attention_layout(studio, two, layouts, known_places, columns, caplog):
    """Of one size, of two sizes, and overlapping: six steps each tile, none of them counted twice."""
    model = tiled(studio.apply(two, layout="attention"), one_after_the_other(*columns))
    assert torch.isfinite(studio.sample(model, size=SIZE, steps=6)).all()
    assert [(step, used) for site, step, _, used in layouts if site == 0] == [
        (step, step >= 4) for step in range(6) for _ in columns
    ]


def zero_snr(model):
    return node("model_advanced", "ModelSamplingDiscrete", model, "v_prediction", True)


def edm(model):
    return node("model_advanced", "ModelSamplingContinuousEDM", model, "v_prediction", 120.0, 0.002)


@pytest.fixture
def acted(pack, monkeypatch):
    """Sigmas of the calls in which an identity acted."""
    kind = pack.module("nodes.host_comfy.sdxl.attach").IdentityPatch
    sigmas, add = [], kind._add_image

    def spy(self, out, query, key, heads, options, rows):
        sigmas.append(float(options["sigmas"].max()))
        return add(self, out, query, key, heads, options, rows)

    monkeypatch.setattr(kind, "_add_image", spy)
    return sigmas


@pytest.mark.parametrize("window", [(0.02, 1.0), (0.1, 0.35), (0.0, 0.5), (0.0, 1.0)], ids=str)
@pytest.mark.parametrize("schedule", [zero_snr, edm], ids=["zero SNR", "EDM"])
def test_a_window_is_of_the_schedule_that_samples(studio, identity, acted, schedule, window):
    """Whether the node that changes it stands before or behind Apply Identity."""
    start, end = window
    settings = {"steps": 30, "cfg": 1.0, "size": (8, 8)}
    before = studio.sample(studio.apply(identity, schedule(studio.base.model), start_at=start, end_at=end), **settings)
    first = list(acted)
    acted.clear()
    behind = studio.sample(schedule(studio.apply(identity, start_at=start, end_at=end)), **settings)
    assert torch.equal(before, behind) and first == acted
    sampling = schedule(studio.base.model).get_model_object("model_sampling")
    high, low = (float(sampling.percent_to_sigma(share)) for share in window)
    assert first and all(low <= sigma <= high for sigma in first)


def test_a_run_leaves_nothing_on_the_device(studio, pack, two, known_places):
    """Masks of each size and keys and values as the model's dtype are let go of at the end of a run."""
    model = studio.apply(two, layout="attention")
    patches = model.model_options["transformer_options"]["patches_replace"]["attn2"].values()
    shared = next(iter(patches)).identity
    for size in ((8, 8), (16, 24), (9, 7)):
        studio.sample(model, size=size, steps=6)
        assert not shared._masks and not shared._cast
    assert sampled(studio, node("custom_sampler", "BasicGuider", model, studio.text("a fox"))).isfinite().all()
