"""The authors' numbers through ComfyUI's own Flux: reference latents, one input patch, and nothing replaced."""

import math

import pytest
import torch

from tests.bench.published_flux import published_step
from tests.host.golden_flux import call, formula_flux, golden_flux


@pytest.fixture(scope="module")
def golden(tiny):
    with torch.inference_mode():
        return golden_flux(tiny)


@pytest.fixture(scope="module")
def formula(tiny):
    with torch.inference_mode():
        return formula_flux(tiny)


def routing_of(pack, flux, order=(0, 1), slots=None, regions=(None, None), weights=(1.0, 1.0), **fields):
    condition, routing = pack.module("core.routing.token_layout"), pack.module("core.routing.routing")
    slots = slots or [i + 1 for i in range(len(order))]
    references = tuple(
        condition.Reference(flux.references[i], "subject", slot, region, weight)
        for i, slot, region, weight in zip(order, slots, regions, weights)
    )
    return routing.Routing(references, condition.DreamOEmbeddings(flux.task, flux.index), **fields)


def latents_of(routing):
    return [reference.latent for reference in routing.references]


def run(pack, flux, routing, **options):
    return call(pack, flux, routing, latents_of(routing) if routing else [], **options)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_references_are_the_published_step_to_the_bit(pack, golden, count):
    """Against the published forward, written out on the same layers: float32, no difference at all."""
    routing = routing_of(pack, golden, order=range(count))
    with torch.inference_mode():
        wanted = published_step(
            golden.model.model.diffusion_model,
            golden.x,
            golden.time,
            golden.context,
            golden.y,
            golden.guidance,
            golden.references[:count],
            golden.task,
            golden.index,
        )
    assert torch.equal(run(pack, golden, routing), wanted)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_references_are_the_published_numbers(pack, golden, count):
    """The recorded numbers come from another machine's arithmetic: plain Flux differs from them as much."""
    plain = (call(pack, golden, None, []) - golden.answers["plain"]).abs().max()
    assert plain < 1e-4
    # without references the published system is plain Flux: not even the image's task embedding is added
    found = run(pack, golden, routing_of(pack, golden, order=range(count)) if count else None)
    assert (found - golden.answers[f"out_{count}_refs"]).abs().max() <= max(2 * plain, 1e-6)


def test_half_precision_is_the_published_step_to_the_bit(pack, tiny):
    with torch.inference_mode():
        half = golden_flux(tiny, torch.bfloat16)
        wanted = published_step(
            half.model.model.diffusion_model,
            half.x,
            half.time,
            half.context,
            half.y,
            half.guidance,
            half.references,
            half.task,
            half.index,
        )
    assert torch.equal(run(pack, half, routing_of(pack, half)), wanted)


def test_no_method_of_the_model_is_replaced_while_it_runs(pack, golden):
    network = golden.model.model.diffusion_model
    modules = {name: set(vars(module)) for name, module in network.named_modules()}
    seen = []

    def probe(arguments):
        seen.append({name: set(vars(module)) for name, module in network.named_modules()} == modules)
        return arguments

    routing = routing_of(pack, golden)
    run(pack, golden, routing, patches={"post_input": [probe]})
    assert seen == [True]


# case: sum, mean absolute value, first three, last three
WRITTEN = {
    "plain": (3.123164, 0.4475344, (-0.476316, -0.04617, -0.462385), (-0.016129, -1.13306, 0.093521)),
    "no reference": (37.142879, 0.4408066, (-0.438016, -0.228436, -0.412118), (-0.420454, -1.286091, -0.369366)),
    "one": (32.662334, 0.4407096, (-0.434418, -0.237374, -0.408382), (-0.423932, -1.261444, -0.374296)),
    "two": (28.469448, 0.4405489, (-0.418244, -0.21561, -0.38727), (-0.425709, -1.252966, -0.373044)),
    "swapped": (28.707973, 0.4404397, (-0.418431, -0.214304, -0.388672), (-0.42281, -1.261539, -0.361377)),
    "hard": (31.358294, 0.4406539, (-0.434339, -0.237057, -0.408492), (-0.424207, -1.266506, -0.367894)),
    "half": (30.093388, 0.4406445, (-0.425029, -0.224873, -0.394842), (-0.42553, -1.256039, -0.373917)),
}  # fmt: skip


def check(out, case):
    total, size, first, last = WRITTEN[case]
    flat = out.flatten().double()
    assert flat.sum().item() == pytest.approx(total, abs=2e-4)
    assert flat.abs().mean().item() == pytest.approx(size, abs=2e-7)
    torch.testing.assert_close(flat[:3], torch.tensor(first, dtype=torch.float64), atol=2e-6, rtol=0)
    torch.testing.assert_close(flat[-3:], torch.tensor(last, dtype=torch.float64), atol=2e-6, rtol=0)


def columns(*wanted):
    region = torch.zeros(4, 6)
    region[:, list(wanted)] = 1.0
    return region


def test_plain_flux_of_formulas(pack, formula):
    check(call(pack, formula, None, []), "plain")


@pytest.mark.parametrize(("case", "order"), [("no reference", ()), ("one", (0,)), ("two", (0, 1)), ("swapped", (1, 0))])
def test_references_of_formulas(pack, formula, case, order):
    check(run(pack, formula, routing_of(pack, formula, order)), case)


def test_hard_regions_of_formulas(pack, formula):
    hard = pack.module("core.routing.reference_bias").HARD
    check(
        run(pack, formula, routing_of(pack, formula, regions=(columns(0, 1, 2), columns(3, 4, 5)), strength=hard)),
        "hard",
    )


def test_half_a_weight_of_formulas(pack, formula):
    check(run(pack, formula, routing_of(pack, formula, weights=(1.0, 0.5))), "half")


def test_soft_regions_one_way_of_formulas(pack, formula):
    """Written down for image to reference only; ours steers both ways."""
    form = pack.module("core.routing.steered_attention")
    bias, regions = pack.module("core.routing.reference_bias"), (columns(0, 1, 2), columns(3, 4, 5))
    layout = pack.module("core.routing.token_layout").TokenLayout(5, (4, 6), ((4, 4), (3, 5))).layout()
    one_way = bias.Steering(2.0, 0.0, (1.0, 1.0), regions, to_image=False)
    attention = form.steered_attention(one_way, layout, (0, 60), torch.device("cpu"))
    stage = pack.module("core.routing.call_layout").Stage("attention", 5, 60, layout)
    override = pack.module("nodes.host_comfy.references.override").Override([stage], [{60: attention}])
    out = run(pack, formula, routing_of(pack, formula), optimized_attention_override=override)
    assert out.double().sum().item() == pytest.approx(30.786219, abs=2e-4)
    torch.testing.assert_close(out.flatten()[:3], torch.tensor([-0.431409, -0.233433, -0.403761]), atol=2e-6, rtol=0)


MAPS = {  # call: logits of both references on the first four image tokens, then the mass of the first
    0: ((.238008, -.242098, -.972724, .213174), (.630924, .338224, -.162222, .592293),
        (.231016, .218033, .188075, .354776)),
    1: ((-.341677, .085339, .518405, -.481783), (-.350807, .536915, .552791, -.314295),
        (.319377, .22457, .201335, .264246)),
    2: ((-.470704, -.456082, -.439438, -.048414), (-.024266, .898126, .317137, .175894),
        (.337018, .24223, .26555, .266939)),
    4: ((-.290326, .030068, .209765, -.105403), (-.991631, -.708187, -.282063, .142574),
        (.221383, .297077, .356418, .204601)),
}  # fmt: skip


def test_maps_of_formulas(pack, formula):
    maps = pack.module("core.routing.routing_map")
    sequence = pack.module("core.routing.token_layout").TokenLayout(5, (4, 6), ((4, 4), (3, 5))).layout()
    seen = []

    def spy(plain, query, key, *args, **kwargs):
        seen.append((maps.logit_map(query, key, sequence), maps.mass_map(query, key, sequence)))
        return plain(query, key, *args, **kwargs)

    recorder = maps.Recorder()
    run(pack, formula, routing_of(pack, formula, recorder=recorder), optimized_attention_override=spy)
    for block, (first, second, mass) in MAPS.items():
        logits, shares = seen[block]
        for found, wanted in ((logits[0, 0], first), (logits[0, 1], second), (shares[0, 0], mass)):
            # 0.33 takes torch's own RMS norm, 0.3.64 its own: the last bits of a logit near 1 differ by 3e-6
            torch.testing.assert_close(found.flatten()[:4], torch.tensor(wanted), atol=5e-6, rtol=0)
    torch.testing.assert_close(recorder.result((1, 2)).blocks, torch.stack([logits for logits, _ in seen]))


def test_recording_changes_no_bit(pack, formula):
    plain = run(pack, formula, routing_of(pack, formula))
    recorder = pack.module("core.routing.routing_map").Recorder()
    assert torch.equal(run(pack, formula, routing_of(pack, formula, recorder=recorder)), plain)
    assert recorder.calls["logit"] == 1


def test_hardly_any_weight_is_hidden_from_text_and_image(pack, formula):
    """A weight that no number sees: as written down for -infinity. Weight 0 hides it from other references too."""
    routing = routing_of(pack, formula, weights=(1.0, 1e-30))
    assert run(pack, formula, routing).double().sum().item() == pytest.approx(32.653694, abs=2e-4)
    one = run(pack, formula, routing_of(pack, formula, order=(0,)))
    torch.testing.assert_close(
        run(pack, formula, routing_of(pack, formula, weights=(1.0, 0.0))), one, atol=2e-6, rtol=0
    )


def test_hard_steering_leaves_no_attention_outside_in_any_block(pack, formula):
    hard = pack.module("core.routing.reference_bias").HARD
    recorder = pack.module("core.routing.routing_map").Recorder()
    run(
        pack,
        formula,
        routing_of(pack, formula, regions=(columns(0, 1, 2), columns(3, 4, 5)), strength=hard, recorder=recorder),
    )
    found = recorder.result((1, 2))
    assert found.kind == "mass" and found.blocks.shape == (5, 1, 2, 4, 6)
    for mass in found.blocks:
        assert mass[0, 0][:, 3:].max() == 0 and mass[0, 1][:, :3].max() == 0
        assert mass[0, 0][:, :3].min() > 0 and math.isfinite(mass.sum())


def test_the_recorded_mass_is_the_softmax_over_everything(pack, formula):
    """What merging gives, against the map by its definition with the bias written out."""
    maps = pack.module("core.routing.routing_map")
    layout = pack.module("core.routing.token_layout").TokenLayout(5, (4, 6), ((4, 4), (3, 5))).layout()
    regions, recorder, wanted = (columns(0, 1, 2), columns(3, 4, 5)), maps.Recorder(), []
    bias = torch.zeros(60, 60)
    for region, place in zip(regions, (slice(29, 45), slice(45, 60))):
        bias[5:29, place] = -2 * (1 - region.flatten()[:, None])

    def spy(plain, query, key, *args, **kwargs):
        if query.shape == key.shape:  # the others are parts of a steered attention
            wanted.append(maps.mass_map(query, key, layout, bias=bias))
        return plain(query, key, *args, **kwargs)

    plain = run(pack, formula, routing_of(pack, formula), optimized_attention_override=spy)
    run(pack, formula, routing_of(pack, formula, regions=regions, strength=2.0, recorder=recorder))
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(recorder.result((1, 2)).blocks[0], wanted[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("strength", [2.0, 1e4])
def test_the_forms_of_steering_are_one_picture(pack, formula, strength):
    fields = {"regions": (columns(0, 1, 2), columns(3, 4, 5)), "strength": strength, "isolation": strength}
    quick = run(pack, formula, routing_of(pack, formula, **fields))
    routing = routing_of(pack, formula, **fields)
    none = torch.zeros(1, 1, 60, 60)  # beside another pack's mask the bias is written out as a matrix
    latents = latents_of(routing)
    padded = pack.module("nodes.host_comfy.references.flux").padded
    assert padded({"attention_mask": none[..., :29, :29]}, 60)["attention_mask"].shape == none.shape
    formula_with_mask = call_with_mask(pack, formula, routing, latents, none)
    torch.testing.assert_close(quick, formula_with_mask, atol=2e-6, rtol=0)


def call_with_mask(pack, flux, routing, latents, mask):
    seam = pack.module("nodes.host_comfy.flux.wrapper")
    from comfy.patcher_extension import WrapperExecutor

    def apply_model(x, t, c_concat, context, control, transformer_options, **conds):
        return flux.model.model.diffusion_model(x, t, context=context, transformer_options=transformer_options, **conds)

    executor = WrapperExecutor.new_class_executor(apply_model, flux.model.model, [seam.apply_references])
    with torch.inference_mode():
        return executor.execute(
            flux.x,
            flux.time,
            None,
            flux.context,
            None,
            {},
            y=flux.y,
            guidance=flux.guidance,
            ref_latents=latents,
            ref_latents_method="uxo",
            attention_mask=mask,
            **{seam.KEY: (routing, None, (True,))},
        )
