"""The small Flux's recipe on a tiny corpus: data, both variants, resuming, the files, drawing and counting."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

pytest.importorskip("resvg_py")

from core.routing.reference_bias import HARD
from training.engine.muon import Muon
from training.engine.timed_loop import load_ema_weights
from training.host_diffusers.miniworld.architectures import Words, build_text_g
from training.host_diffusers.miniworld.flux import FLUX, RoutedFlux, attend_plain, sequence_of
from training.host_diffusers.miniworld.flux_files import CONFIG, EMBEDDING, WEIGHTS, load_flux
from training.host_diffusers.miniworld.flux_text import PlaceholderWords, encode_ids, with_placeholders
from training.miniworld.experiments import generate_flux as flux_sampling
from training.miniworld.experiments import measure_flux as flux_measure
from training.miniworld.experiments.generate import request_of
from training.miniworld.recipes import classifiers as judges
from training.miniworld.recipes import clip, flux, flux_data, vae
from training.miniworld.recipes import encoded_corpus as encoded
from training.miniworld.recipes.corpus import Corpus, CorpusSize, render_corpus
from training.miniworld.recipes.labelled_scenes import TRAITS, trait_row
from training.miniworld.world.triplets import evaluation_plans

CPU = torch.device("cpu")


def short(settings, steps=2, batch=2):
    return replace(settings, steps=steps, batch_size=batch, warmup_steps=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the recipe begins from: corpus, text encoder, latents."""
    out = tmp_path_factory.mktemp("miniworld")
    list(render_corpus(out / "corpus", CorpusSize(scenes=20, identities=8, portraits=2), 1))
    vae.train(out, CPU, 1, short(vae.SETTINGS, 1))
    clip.train(out, CPU, 1, short(clip.SETTINGS, 1))
    list(encoded.encode(out, CPU, ("latents",)))
    list(flux_data.prepare(out, CPU, 1))
    flux.train_base(out, CPU, 1, short(flux.BASE))
    return out


@pytest.fixture(scope="module")
def data(out):
    return flux_data.FluxData.open(out)


@pytest.fixture(scope="module")
def runs(out):
    """Both variants after two steps."""
    for routing in (True, False):
        flux.train(out, CPU, 1, short(flux.SETTINGS), routing)
    return out


def drawn(data, wanted, batch=4):
    """The first batch with that many references."""
    for step in range(200):
        found = data.draw(batch, torch.Generator().manual_seed(step))
        if (0 if found.references is None else len(found.references)) == wanted:
            return found
    raise AssertionError(f"no batch with {wanted} references in 200")


def model_of(seed=0):
    torch.manual_seed(seed)
    return RoutedFlux()


def text_encoder():
    torch.manual_seed(1)
    return build_text_g(len(Words())).eval().requires_grad_(False)


def test_all_weights_fit_the_budget():
    size = 2 * sum(parameter.numel() for parameter in RoutedFlux().parameters())
    assert size < 12e6


def test_masks_are_the_renderers_and_references_of_the_creature_asked_for(out, data):
    corpus = Corpus.open(out / "corpus")
    pair = int(np.flatnonzero(data.who[:, 1] >= 0)[0])
    scene = np.load(out / "encoded" / "scenes.npy").tolist()
    facts = [corpus.scene_facts[row] for row in scene if len(corpus.scene_facts[row]["who"]) <= 2][pair]
    cover = data.cover[pair] / 255
    for mask, box in zip(cover, facts["boxes"]):
        ys, xs = np.nonzero(mask)
        assert xs.min() == int(box[0] * 8) and ys.min() == int(box[1] * 8)
        assert xs.max() == int(np.ceil(box[2] * 8)) - 1 and ys.max() == int(np.ceil(box[3] * 8)) - 1
    assert data.portraits.shape == (16, 4, 16, 16) and cover.sum() > 2


def test_turned_references_carry_their_masks_and_nouns_along(out, data):
    species = [code.split("-")[0] for code in json.loads((out / "corpus" / "corpus.json").read_text())["bank"]]
    batch = drawn(data, 2, batch=32)
    said = batch.worded.nonzero()[:, 0].tolist()
    first, second = batch.places[said].T
    assert (first > 0).all() and (second > 0).all() and (first < second).any() and (first > second).any()
    assert bool((batch.places[~batch.worded] == 0).all())
    for row, slot in [(row, slot) for row in said for slot in range(2)]:
        scene = next(i for i, latent in enumerate(data.latents) if np.allclose(latent, batch.latents[row]))
        view = next(i for i, latent in enumerate(data.portraits) if np.allclose(latent, batch.references[slot][row]))
        who = view // data.views
        subject = data.who[scene].tolist().index(who)
        np.testing.assert_allclose(batch.targets[row, slot], data.cover[scene, subject] / 255, atol=1e-6)
        noun = data.words.ids([species[who]])[0, 1]
        assert batch.ids[row, batch.places[row, slot] - 1] == noun


def test_a_batch_is_a_function_of_its_generator(data):
    one, two = (data.draw(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.latents, two.latents) and torch.equal(one.ids, two.ids)


def test_plain_steps_are_mostly_silent(data):
    batch = drawn(data, 0, batch=64)
    silent = (batch.ids == data.words.ids([""])).all(dim=1).float().mean()
    assert 0.5 < silent < 1


def test_latents_of_unit_variance_keep_their_scale_to_the_bit(out):
    """Weights begun from shipped ones must encode as those do."""
    model = encoded.frozen_vae(out)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vae.absorb_scale(model, Corpus.open(out / "corpus"), count=64)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_vae_is_noticed(out, tmp_path):
    for name in ("corpus", "clip", "flux_data"):
        (tmp_path / name).symlink_to(out / name)
    (tmp_path / "encoded").mkdir()
    for file in (out / "encoded").iterdir():
        content = file.read_bytes()
        (tmp_path / "encoded" / file.name).write_bytes(content + b"x" if file.name == "vae.safetensors" else content)
    with pytest.raises(FileNotFoundError, match="prepare them first"):
        flux_data.FluxData.open(tmp_path)


def test_without_an_encoded_corpus_it_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="training.miniworld encode"):
        flux.train_base(tmp_path, CPU, 1)


def test_without_a_base_it_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="flux_base: expected a checkpoint"):
        flux.train(tmp_path, CPU, 1)


def test_the_base_learns_from_words_alone(data):
    batch = data.draw_plain(64, torch.Generator().manual_seed(0))
    silent = (batch.ids == data.words.ids([""])).all(dim=1).float().mean()
    assert batch.references is None and 0 < silent < 0.5
    assert len({tuple(latent.flatten()[:4].tolist()) for latent in batch.latents}) > 8, "scenes drawn by chance"


@pytest.mark.parametrize("routing", [True, False])
def test_the_losses_fall_on_a_fixed_batch(data, routing):
    torch.manual_seed(0)
    model = RoutedFlux({**FLUX, "num_layers": 1, "num_single_layers": 1})
    batch, text_g = drawn(data, 2), text_encoder()
    optimiser = Muon(model, 3e-3, adamw_params=flux.SETTINGS.adamw_params)
    time, noise = torch.rand(4, generator=torch.Generator().manual_seed(0)), torch.randn_like(batch.latents)
    history = []
    for _ in range(20):
        told = flux.losses(model, text_g, batch, time, noise, routing)
        optimiser.zero_grad()
        told["loss"].backward()
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in told.items()})
    assert history[-1]["flow"] < 0.9 * history[0]["flow"]
    assert (history[-1]["route"] < 0.5 * history[0]["route"]) == routing
    if not routing:
        assert all(step["loss"] == step["flow"] for step in history)


def test_routing_and_holder_losses_reach_the_words_and_the_index_rows(data):
    batch, model, text_g = drawn(data, 2, batch=16), model_of(), text_encoder()
    told = flux.losses(model, text_g, batch, torch.full((16,), 0.5), torch.randn_like(batch.latents), True)
    gradients = torch.autograd.grad(told["holder"], [model.tables["words"], model.tables["index"]])
    assert all(bool((gradient[rows] != 0).any()) for gradient, rows in zip(gradients, ([0, 1], [1, 2])))
    assert bool((gradients[0][2:] == 0).all()) and bool((gradients[1][3:] == 0).all())


def test_both_variants_begin_at_the_base_and_only_the_losses_differ(out, runs, tmp_path):
    base = load_ema_weights(out / flux.BASE.name)[0]
    assert any(not torch.equal(value, model_of(flux.BASE.seed).state_dict()[name]) for name, value in base.items())
    for name in ("corpus", "clip", "encoded", "flux_data", "flux_base"):
        (tmp_path / name).symlink_to(out / name)
    for routing in (True, False):
        flux.train(tmp_path, CPU, 0, short(flux.SETTINGS, 0), routing)
        begun = load_ema_weights(tmp_path / flux.run_name(routing))[0]
        assert all(torch.equal(value, base[name]) for name, value in begun.items())
    with_routing, without = (load_ema_weights(runs / flux.run_name(routing))[0] for routing in (True, False))
    moved = [name for name, value in with_routing.items() if not torch.equal(value, without[name])]
    assert moved, "two steps with other losses end elsewhere"


def test_a_run_stopped_and_resumed_is_the_run_never_stopped(out, tmp_path):
    found = []
    for run, stops in (("whole", (3,)), ("parts", (1, 3))):
        (tmp_path / run).mkdir()
        for name in ("corpus", "clip", "encoded", "flux_data", "flux_base"):
            (tmp_path / run / name).symlink_to(out / name)
        for stop in stops:
            state = flux.train(tmp_path / run, CPU, 1, short(flux.SETTINGS, stop))
        assert state.step == 3 and state.samples == 6
        found.append(load_ema_weights(tmp_path / run / "flux")[0])
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert max(file.stat().st_size for file in (tmp_path / "whole" / "flux").iterdir()) <= 16 * 2**20


def test_an_exported_model_is_the_trained_one_in_half_precision(runs, tmp_path):
    trained = flux.load_trained(runs)
    assert flux.export(runs, tmp_path) < 12e6
    read = load_flux(tmp_path)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {CONFIG, WEIGHTS, EMBEDDING, "training.json"}
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["base"]["samples"] == told["references"]["samples"] == 4
    theirs = FluxTransformer2DModel.from_pretrained(tmp_path, subfolder="transformer")
    assert tuple(theirs.config.axes_dims_rope) == (4, 14, 14)


def test_without_an_export_it_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="flux-export"):
        load_flux(tmp_path)


def test_placeholders_go_behind_the_names():
    prompt = "the cat and the bear are dancing"
    assert with_placeholders(prompt, ("cat", "bear"), (2, 1)) == ("the cat [ref#2] and the bear [ref#1] are dancing")
    with pytest.raises(ValueError, match="'dog'"):
        with_placeholders(prompt, ("dog",), (1,))


def test_a_prompt_without_placeholders_is_read_as_the_text_encoder_reads_it():
    text_g, words = text_encoder(), PlaceholderWords()
    ids = words.ids(["a fox is hugging a bear", "a fox [ref#1]"])
    rows = torch.randn(10, 128)
    context, pooled = encode_ids(text_g, ids, rows)
    plain = text_g(input_ids=ids[:1], output_hidden_states=True)
    torch.testing.assert_close(context[:1], plain.hidden_states[-2])
    torch.testing.assert_close(pooled[:1], plain.text_embeds)
    again, _ = encode_ids(text_g, ids, 2 * rows)
    assert torch.equal(context[0], again[0]) and not torch.equal(context[1], again[1])


def test_the_open_attention_is_diffusers_own(data):
    batch, model = drawn(data, 2), model_of()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    text, pooled, time = torch.randn(4, 24, 128), torch.randn(4, 128), torch.rand(4)
    with torch.no_grad():
        ours = model(batch.latents, time, text, pooled, batch.references, attend_plain)
        model.transformer.set_attn_processor(FluxAttnProcessor())
        torch.testing.assert_close(ours, model(batch.latents, time, text, pooled, batch.references))


def test_steering_acts_and_strength_zero_is_plain(runs):
    world = flux_sampling.FluxWorld.open(runs, True)
    request = request_of(evaluation_plans("facing", 1, 0)[0], np.random.default_rng(0))
    for parameter in world.flux.parameters():  # after two steps gates are nearly shut, and attention does not show
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    off, again, soft, hard = (
        flux_sampling.generate(world, request, 0, strength, steps=2) for strength in (0.0, 0.0, 3.0, HARD)
    )
    assert off.shape == (3, 128, 128) and 0 <= off.min() and off.max() <= 1
    assert torch.equal(off, again)
    assert not torch.equal(off, soft) and not torch.equal(soft, hard)
    references = list(world.latents(request.references).split(1))
    noisy = torch.zeros(1, 4, 16, 16)
    attend = flux_sampling.steered(world.flux, references, request.boxes, [3, 8], 0.0, noisy, 24)
    assert attend is attend_plain and sequence_of(24, noisy, references).size == 24 + 3 * 64


def test_measuring_writes_every_row_a_table_and_a_sheet(runs, monkeypatch, tmp_path):
    short_runs = partial(flux_sampling.generate, steps=1)
    monkeypatch.setattr(flux_measure, "generate", short_runs)
    (tmp_path / "README.md").write_text("before\n<!-- flux -->\n<!-- /flux -->\nafter\n")
    lines = list(flux_measure.measure_flux(runs, 2, tmp_path))
    facts = json.loads((tmp_path / "flux" / "measurements.json").read_text())
    rows = [f"{name}, steering {steering}" for name in flux_measure.TRAINED for steering in flux_sampling.STEERING]
    assert len(lines) == len(rows) == 6 and set(rows) <= set(facts)
    assert facts["renders"]["traits"]["value"] > 0.8, "the shipped judges know true renders"
    assert facts["trained"]["with routing"]["references"]["steps"] == 2
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("before") and card.endswith("after\n") and all(f"| {row} |" in card for row in rows)
    assert (runs / "sheets" / "flux.png").exists()
    monkeypatch.setattr(flux_measure, "generate", None)
    assert list(flux_measure.measure_flux(runs, 2, tmp_path)) == lines, "counted again from the pictures drawn before"
    kept = flux.load_trained

    def trained_on(out, routing):
        model = kept(out, routing)
        model.tables["index"].data[1] += 1e-3
        return model

    monkeypatch.setattr(flux, "load_trained", trained_on)
    with pytest.raises(TypeError, match="not callable"):  # as many steps, other weights: drawn anew
        list(flux_measure.measure_flux(runs, 2, tmp_path))


def test_a_row_counts_where_asked_and_wherever():
    """A true picture in which the two have changed places: wrong where asked, right where they are."""
    (plan,) = evaluation_plans("facing", 1, 0)
    assert plan.identities[0].fur != plan.identities[1].fur
    changed = replace(plan, identities=plan.identities[::-1])
    row = flux_measure.scores(judges.load_shipped(), flux_measure.renders([changed]), [plan], [changed])
    assert row["fur"]["value"] == 0 and row["other"]["value"] == row["fur_found"]["value"] == 1
    assert row["relation"]["value"] == 1


def test_creatures_are_looked_for_by_all_their_traits():
    (plan,) = evaluation_plans("facing", 1, 0)
    options = flux_measure.Layouts.of(plan, np.random.default_rng(0))
    assert options.plans[0] is plan and options.boxes.shape == (flux_measure.LAYOUTS, 2, 4)

    class Sharp(judges.Classifiers):
        """Is sure of a creature's traits, all but its species, in a crop that is exactly the true one."""

        def identity(self, crops):
            distance = (crops[:, None] - self.known).square().mean(dim=(2, 3, 4))  # (2 K, 2)
            logits = {name: torch.zeros(len(crops), count) for name, count in TRAITS.items()}
            for row in range(2):
                for column, name in enumerate(TRAITS):
                    if name != "species":
                        logits[name][:, self.asked[row][column]] -= 100 * distance[:, row]
            return logits, None

    judge = Sharp()
    judge.asked = [trait_row(who) for who in plan.identities]
    for drawn in (0, 5, 11):
        image = flux_measure.renders([options.plans[drawn]])
        judge.known = judges.crop_boxes(image, options.boxes[drawn, None])[0]
        assert flux_measure.located(judge, image, [options]) == [options.plans[drawn]]


def test_measuring_without_a_run_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="training.miniworld flux"):
        list(flux_measure.measure_flux(tmp_path, 2, tmp_path))
