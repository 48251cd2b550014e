"""The memory estimate of Flux-class models: the traced tables of the facts, and what a real pass keeps."""

import re
from pathlib import Path

import pytest
import torch

from tests.bench.finetune import table
from tests.bench.finetune_flux import Sizes, measure, settings
from tests.recipe.tiny_flux import FLUX1, FLUX2, inputs, network
from training.config import load_config
from training.engine.flux.memory import CONTEXT, StepShape, estimate_flux, what_fits
from training.host_diffusers.flux.architectures import PUBLISHED, empty_transformer
from training.host_diffusers.flux.lora import attach_lora

# GB at rank 4: kept for 1024 px with two references of 512, for 512 px with two of 512, the first without checkpoints
KEPT = {
    ("flux1-dev", "T"): (2.98, 1.62, 31.5),
    ("flux1-dev", "DS"): (3.57, 1.92, 62.3),
    ("klein-4b", "T"): (1.90, 1.02, 20.3),
    ("klein-4b", "DS"): (2.31, 1.24, 30.1),
    ("klein-9b", "T"): (2.91, 1.57, 34.6),
    ("klein-9b", "DS"): (3.45, 1.86, 51.1),
    ("flux2-dev", "T"): (6.32, 3.41, 91.3),
    ("flux2-dev", "DS"): (7.13, 3.84, 135.7),
}
TOTAL = {  # DS, 1024 px; 8 bits without the block that computes
    "flux1-dev": {"precision": 28.9, "fp8": 17.0, "nf4": 11.2},
    "klein-4b": {"precision": 11.6, "fp8": 7.7, "nf4": 5.8},
    "klein-9b": {"precision": 23.2, "fp8": 14.1, "nf4": 9.7},
    "flux2-dev": {"precision": 73.0, "fp8": 40.8, "nf4": 25.2},
}


def shape(name, pixels=1024, **more):
    def latents(px):
        return (16, px // 8, px // 8) if name == "flux1-dev" else (128, px // 16, px // 16)

    return StepShape(latents(pixels), latents(512), 2, 512, **{"rank": 4, **more})


def told(name, **more):
    return estimate_flux(empty_transformer(PUBLISHED[name]), torch.bfloat16, shape(name, **more))


@pytest.mark.parametrize(("name", "sites"), KEPT)
def test_what_is_kept_is_within_a_tenth_of_the_traced_table(name, sites):
    large, small, plain = KEPT[name, sites]
    assert told(name, sites=sites).activations / 1e9 == pytest.approx(large, rel=0.1)
    if sites == "DS":
        return  # the two others follow; a trace without checkpoints takes a second
    assert told(name, sites=sites, pixels=512).activations / 1e9 == pytest.approx(small, rel=0.1)
    assert told(name, sites=sites, checkpointing=False).activations / 1e9 == pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize("name", TOTAL)
def test_totals_are_within_a_tenth_of_the_table(name):
    for storage, total in TOTAL[name].items():
        memory = told(name, sites="DS", storage=storage)
        assert (memory.total - memory.passing) / 1e9 == pytest.approx(total, rel=0.1)
        assert (memory.passing > 0) == (storage == "fp8") and memory.context == CONTEXT


def test_streaming_moves_weights_to_the_computers_memory():
    plain, half = told("klein-4b"), told("klein-4b", streamed=12)
    assert half.host + half.weights == plain.weights and half.total < plain.total
    assert "GB of the computer's memory" in half.sentence() and "frozen transformer" in plain.sentence()


@pytest.mark.parametrize("generation", [1, 2])
def test_the_estimate_is_what_a_real_pass_keeps(generation):
    config = {"_class_name": f"Flux{'2' if generation == 2 else ''}Transformer2DModel"}
    given = inputs(generation)
    sizes = StepShape(
        tuple(given["noisy"].shape[1:]), tuple(given["references"][0].shape[1:]), 2, 5, 2, "DS", 2, checkpointing=False
    )
    empty = empty_transformer({**config, **(FLUX1 if generation == 1 else FLUX2)})
    expected = estimate_flux(empty, torch.float32, sizes, on_card=False)
    net = network(generation)
    attach_lora(net.transformer, "DS", 2, 2.0, torch.Generator())
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    seen, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    references = [given["references"][0]] * 2
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(**{**given, "references": references})
    assert expected.activations == pytest.approx(sum(seen.values()), rel=0.1)
    assert expected.trained == 16 * sum(p.numel() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("room", "batch", "said"),
    [
        (12e9, 1, "it fits"),
        (9e9, 1, 'memory.storage = "fp8" would make it fit'),
        (12e9, 8, "train.micro_batch = 1 would make it fit"),
        (6e9, 4, 'train.micro_batch = 1, memory.storage = "fp8", memory.stream_blocks = '),
        (3e9, 1, "it does not fit; take a smaller data.image_px"),
    ],
)
def test_what_would_make_it_fit_is_said(room, batch, said):
    sizes = shape("klein-4b", batch=batch)
    memory = told("klein-4b", batch=batch)
    assert said in what_fits(memory, sizes, int(room), 2)
    assert "set train.gradient_checkpointing" in what_fits(memory, shape("klein-4b", checkpointing=False), 1, 2)


def test_what_is_advised_does_fit():
    sizes, room = shape("klein-9b", batch=2), 12_000_000_000
    said = what_fits(told("klein-9b", batch=2), sizes, room, 2)
    streamed = int(said.partition("memory.stream_blocks = ")[2].split()[0])
    assert told("klein-9b", storage="fp8", streamed=streamed).total <= room


@pytest.mark.parametrize("base", ["klein4b", "flux1-dev"])
def test_the_benchmark_runs_at_its_smallest(base):
    sizes, cpu = Sizes(base, small=True), torch.device("cpu")
    rows = [measure(setting, sizes, cpu, torch.float32, steps=1) for setting in settings([1])[-3:]]
    streamed = "ours, half streamed"
    assert [row["setting"] for row in rows] == [streamed, f"{streamed}, no prefetch", "encoders in every step"]
    assert all(row["pictures_a_second"] > 0 and row["setting"] in table(rows) for row in rows)


def test_the_benchmark_compares_at_the_same_batch():
    rest = {"at_once": 1, "seconds_an_update": 1.0, "peak_gib": None, "estimated_gib": 1.0}
    rows = [
        {"setting": name, "batch": batch, "pictures_a_second": speed, **rest}
        for name, batch, speed in (
            ("ours", 1, 6.0), ("ours", 4, 9.0), ("encoders in every step", 1, 2.0), ("encoders in every step", 4, 6.0)
        )
    ]  # fmt: skip

    def ratios(rows):
        return [line.split()[-4] for line in table(rows).splitlines()[1:]]

    assert ratios(rows) == ["3.00", "1.50", "1.00", "1.00"]
    assert ratios(rows[:2]) == ["-", "-"]  # both loops ran out of memory


def preset(name, base, **changes):
    """Estimate a step of a preset for two subjects, as its comments round it."""
    config = load_config(f"training/configs/{name}.toml")
    given = {"sites": config.lora.sites, "rank": config.lora.rank, "storage": config.memory.storage, **changes}
    return told(base, pixels=config.data.image_px, **given)


def test_the_presets_comments_are_the_estimates():
    """Their places and ranks decide these numbers, so that neither changes alone."""
    klein, dreamo, kontext = (
        Path(f"training/configs/relation_{name}.toml").read_text(encoding="utf-8")
        for name in ("klein4b", "flux_dreamo", "kontext")
    )
    plain = preset("relation_klein4b", "klein-4b")
    small = preset("relation_klein4b", "klein-4b", storage="fp8")
    assert f"about {plain.total / 1e9:.0f} GB as it stands, {small.total / 1e9:.0f} GB with" in klein
    assert f"{plain.activations / 1e9:.1f} GB of activations" in klein
    without = preset("relation_klein4b", "klein-4b", checkpointing=False)
    assert f"without it a picture keeps {without.activations / 1e9:.0f} GB" in klein
    large = preset("relation_flux_dreamo", "flux1-dev")
    assert f"{large.total / 1e9:.0f} GB with the settings below" in dreamo
    assert f'"fp8"                     # {large.total / 1e9:.0f} GB' in kontext
    streamed = int(re.search(r"on 12 GB try (\d+)", dreamo)[1])
    assert preset("relation_flux_dreamo", "flux1-dev", streamed=streamed).total < 12e9
