"""The small Flux's recipes on a tiny corpus: data, the variants, resuming, the files, drawing and counting."""

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
from training.host_diffusers.miniworld.architectures import CHANNELS, Words, build_text_g
from training.host_diffusers.miniworld.flux import FLUX, IndexedFlux, RoutedFlux, attend_plain, sequence_of
from training.host_diffusers.miniworld.flux_files import CONFIG, EMBEDDING, WEIGHTS, load_flux, stored
from training.host_diffusers.miniworld.flux_text import PlaceholderWords, encode_ids, with_placeholders
from training.miniworld.experiments import generate_flux as flux_sampling
from training.miniworld.experiments import measure_flux as flux_measure
from training.miniworld.experiments.generate import request_of
from training.miniworld.experiments.measure import renders
from training.miniworld.recipes import autoencoder, classifiers, contrastive, encoded_corpus, export, flux
from training.miniworld.recipes.corpus import Corpus, CorpusSize, render_corpus
from training.miniworld.recipes.flux_data import FluxData
from training.miniworld.recipes.flux_losses import losses
from training.miniworld.recipes.labelled_scenes import FUSED, RELATIONS, TRAITS, trait_row
from training.miniworld.world.rng_streams import Stream, generator
from training.miniworld.world.triplets import evaluation_plans

CPU = torch.device("cpu")


def short(settings, steps=2, batch=2):
    return replace(settings, steps=steps, batch_size=batch, warmup_steps=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What the recipes begin from: corpus, text encoder, latents, and the base."""
    out = tmp_path_factory.mktemp("miniworld")
    list(render_corpus(out / "corpus", CorpusSize(scenes=20, identities=8, portraits=2), 1))
    autoencoder.train(out, CPU, 1, short(autoencoder.SETTINGS, 1))
    contrastive.train(out, CPU, 1, short(contrastive.SETTINGS, 1))
    list(encoded_corpus.encode(out, ("latents",)))
    flux.train_base(out, CPU, 1, short(flux.BASE))
    return out


@pytest.fixture(scope="module")
def data(out):
    return FluxData.open(out)


@pytest.fixture(scope="module")
def runs(out):
    """The variants after two steps."""
    for routing in (True, False):
        flux.train_dreamo(out, CPU, 1, short(flux.SETTINGS), routing=routing)
    flux.train_index(out, CPU, 1, short(flux.INDEX))
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


def test_both_variants_fit_the_room_of_one():
    size = sum(stored(parameter).nbytes for parameter in RoutedFlux().transformer.parameters())
    assert 2 * size < 11e6


def test_masks_are_the_renderers_and_references_of_the_creature_asked_for(out, data):
    corpus = Corpus.open(out / "corpus")
    pair = int(np.flatnonzero(data.who[:, 1] >= 0)[0])
    facts = [fact for fact in corpus.scene_facts if len(fact["who"]) <= 2][pair]
    cover = data.cover[pair] / 255
    for mask, box in zip(cover, facts["boxes"]):
        ys, xs = np.nonzero(mask > 0.01)
        assert abs(xs.min() - int(box[0] * 8)) <= 1 and abs(ys.min() - int(box[1] * 8)) <= 1
        assert abs(xs.max() - (int(np.ceil(box[2] * 8)) - 1)) <= 1
        assert abs(ys.max() - (int(np.ceil(box[3] * 8)) - 1)) <= 1
    assert data.portraits.shape == (16, CHANNELS, 16, 16) and cover.sum() > 2


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


def test_without_an_encoded_corpus_it_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="training.miniworld encode"):
        flux.train_base(tmp_path, CPU, 1)


def test_without_a_base_it_says_what_to_run(out, tmp_path):
    for name in ("corpus", "clip", "encoded"):
        (tmp_path / name).symlink_to(out / name)
    with pytest.raises(FileNotFoundError, match="flux_base: expected a checkpoint"):
        flux.train_index(tmp_path, CPU, 1)


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
        told = losses(model, text_g, batch, time, noise, routing)
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
    told = losses(model, text_g, batch, torch.full((16,), 0.5), torch.randn_like(batch.latents), True)
    gradients = torch.autograd.grad(told["holder"], [model.tables["words"], model.tables["index"]])
    assert all(bool((gradient[rows] != 0).any()) for gradient, rows in zip(gradients, ([0, 1], [1, 2])))
    assert bool((gradients[0][2:] == 0).all()) and bool((gradients[1][3:] == 0).all())


def test_every_variant_begins_at_the_base_and_only_the_losses_differ(out, runs, tmp_path):
    base = load_ema_weights(out / flux.BASE.name)[0]
    assert any(not torch.equal(value, model_of(flux.BASE.seed).state_dict()[name]) for name, value in base.items())
    for name in ("corpus", "clip", "encoded", "flux_base"):
        (tmp_path / name).symlink_to(out / name)
    for train, settings in ((flux.train_dreamo, flux.SETTINGS), (flux.train_index, flux.INDEX)):
        train(tmp_path, CPU, 0, short(settings, 0))
        begun = load_ema_weights(tmp_path / settings.name)[0]
        assert all(torch.equal(value, base[name]) for name, value in begun.items())
    with_routing, without = (load_ema_weights(runs / name.name)[0] for name in (flux.SETTINGS, flux.UNROUTED))
    moved = [name for name, value in with_routing.items() if not torch.equal(value, without[name])]
    assert moved, "two steps with other losses end elsewhere"


def test_a_run_stopped_and_resumed_is_the_run_never_stopped(out, tmp_path):
    found = []
    for run, stops in (("whole", (3,)), ("parts", (1, 3))):
        (tmp_path / run).mkdir()
        for name in ("corpus", "clip", "encoded", "flux_base"):
            (tmp_path / run / name).symlink_to(out / name)
        for stop in stops:
            state = flux.train_dreamo(tmp_path / run, CPU, 1, short(flux.SETTINGS, 3), stop)
        assert state.step == 3 and state.samples == 6
        found.append(load_ema_weights(tmp_path / run / flux.SETTINGS.name)[0])
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    files = (tmp_path / "whole" / flux.SETTINGS.name).iterdir()
    assert max(file.stat().st_size for file in files) <= 16 * 2**20


@pytest.mark.parametrize("name", [flux.SETTINGS.name, flux.INDEX.name])
def test_an_exported_model_is_the_trained_one_in_eight_bits(runs, tmp_path, name):
    trained = flux.load_trained(runs, name)
    assert export.export_flux(runs, tmp_path / flux.SETTINGS.name, tmp_path / flux.INDEX.name) < 12e6
    folder = tmp_path / name
    read = load_flux(folder)
    assert type(read) is type(trained)
    for key, value in trained.transformer.state_dict().items():
        torch.testing.assert_close(read.transformer.state_dict()[key], value, atol=2e-3, rtol=0.07)
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {CONFIG, WEIGHTS, "training.json"} | ({EMBEDDING} if name == flux.SETTINGS.name else set())
    facts = json.loads((folder / "training.json").read_text())
    assert facts["base"]["samples"] == facts["references"]["samples"] == 4
    theirs = FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.float32)
    assert tuple(theirs.config.axes_dims_rope) == (4, 14, 14)
    key = "transformer_blocks.0.attn.to_q.weight"
    assert torch.equal(theirs.state_dict()[key], read.transformer.state_dict()[key])


def test_without_an_export_it_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="flux-export"):
        load_flux(tmp_path)
    with pytest.raises(FileNotFoundError, match="training.miniworld flux"):
        export.export_flux(tmp_path, tmp_path)


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


@pytest.mark.parametrize("name", [flux.SETTINGS.name, flux.INDEX.name])
def test_steering_acts_and_strength_zero_is_plain(runs, name):
    world = flux_sampling.FluxWorld.open(runs, name)
    request = request_of(evaluation_plans("facing", 1, 0)[0], 0)
    for parameter in world.flux.parameters():  # after two steps gates are nearly shut, and attention does not show
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    off, again, soft, hard = (
        flux_sampling.generate(world, request, 0, strength, steps=1) for strength in (0.0, 0.0, 3.0, HARD)
    )
    assert off.shape == (3, 128, 128) and 0 <= off.min() and off.max() <= 1
    assert torch.equal(off, again)
    assert not torch.equal(off, soft) and not torch.equal(soft, hard)
    references = list(world.latents(request.references).split(1))
    noisy = torch.zeros(1, CHANNELS, 16, 16)
    attend = flux_sampling.steered(world.flux, references, request.boxes, [3, 8], 0.0, noisy, 24)
    assert attend is attend_plain and sequence_of(24, noisy, references).size == 24 + 3 * 64
    each = flux_sampling.generate_per_subject(world, request, 0, steps=1)
    assert each.shape == off.shape and not torch.equal(each, off)


def test_references_are_named_where_their_nouns_or_placeholders_stand(runs):
    request = request_of(evaluation_plans("facing", 1, 0)[0], 0)
    for name in (flux.SETTINGS.name, flux.INDEX.name):
        world = flux_sampling.FluxWorld.open(runs, name)
        ids, places = world.read(request)
        nouns = world.words.ids(list(request.names))[:, 1].tolist()
        shift = 0 if isinstance(world.flux, IndexedFlux) else 1  # a placeholder stands behind its noun
        assert [int(ids[1, place - shift]) for place in places] == nouns
        assert bool((ids >= world.words.first).any()) == bool(shift)


def test_masks_of_a_pass_each_cover_the_picture():
    masks = flux_sampling.cell_masks(torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.375, 0.25, 1.0, 1.0]]))
    assert masks.shape == (2, 16, 16) and masks.sum(0).min() == 1 and masks.sum(0).max() == 2
    assert masks[0, 8, 0] == masks[1, 8, 15] == 1 and masks[1, 8, 0] == masks[0, 8, 15] == 0
    assert masks[:, 0, 0].tolist() == [1, 0] and masks[:, 8, 7].tolist() == [1, 1]


class Oracle(classifiers.Classifiers):
    """Knows what true renders show, from a list of plans in order."""

    def __init__(self, plans):
        super().__init__()
        self.plans = plans

    def relation(self, images):
        said = torch.tensor([RELATIONS.index(plan.relation) for plan in self.plans])
        return torch.nn.functional.one_hot(said, FUSED + 1).float()[: len(images)]

    def identity(self, crops):
        rows = torch.tensor([trait_row(traits) for plan in self.plans for traits in plan.cast])
        rows = rows.repeat(-(-len(crops) // len(rows)), 1)[: len(crops)]
        logits = {
            name: torch.nn.functional.one_hot(rows[:, at], len(values)).float()
            for at, (name, values) in enumerate(TRAITS.items())
        }
        return logits, torch.zeros(len(crops), 17, 2)


def test_measuring_writes_every_row_a_table_and_a_sheet(runs, monkeypatch, tmp_path):
    for name in ("generate", "generate_per_subject"):
        monkeypatch.setattr(flux_measure, name, partial(getattr(flux_sampling, name), steps=1))
    plans = [evaluation_plans(flux_measure.SEEN[index], 1, index)[0] for index in range(2)]
    monkeypatch.setattr(flux_measure, "load_shipped", lambda folder: Oracle(plans))
    monkeypatch.setattr(flux_measure, "shipped_accuracy", lambda folder: {"relation": 1.0})
    (tmp_path / "README.md").write_text("before\n<!-- flux -->\n<!-- /flux -->\nafter\n")
    lines = list(flux_measure.measure_flux(runs, 2, tmp_path))
    facts = json.loads((tmp_path / "flux" / "measurements.json").read_text())
    rows = [f"{name}, steering {steering}" for name in flux_measure.TRAINED for steering in flux_sampling.STEERING]
    rows.append(f"{flux_measure.NUMBERED}, steering {flux_measure.A_PASS_EACH}")
    assert len(lines) == len(rows) == 10 and set(rows) <= set(facts)
    assert facts["renders"]["traits"]["value"] == 1.0
    assert facts["trained"]["with routing"]["references"]["steps"] == 2
    assert min(facts["stored in 8 bits, PSNR to the pictures of the trained weights"].values()) > 20
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("before") and card.endswith("after\n") and all(f"| {row} |" in card for row in rows)
    assert (runs / "sheets" / "flux.png").exists()
    monkeypatch.setattr(flux_measure, "generate", None)
    assert list(flux_measure.measure_flux(runs, 2, tmp_path)) == lines, "counted again from the pictures drawn before"
    kept = flux.load_trained

    def trained_on(out, name):
        model = kept(out, name)
        model.tables["index"].data[1] += 1e-3
        return model

    monkeypatch.setattr(flux, "load_trained", trained_on)
    with pytest.raises(TypeError, match="not callable"):  # as many steps, other weights: drawn anew
        list(flux_measure.measure_flux(runs, 2, tmp_path))


def test_a_row_counts_where_asked_and_wherever():
    """A true picture in which the two have changed places: wrong where asked, right where they are."""
    (plan,) = evaluation_plans("facing", 1, 3)
    assert plan.cast[0].fur != plan.cast[1].fur
    changed = replace(plan, cast=plan.cast[::-1])
    row = flux_measure.scores(Oracle([changed]), renders([changed]), [plan], [changed])
    assert row["fur"]["value"] == 0 and row["other"]["value"] == row["fur_found"]["value"] == 1
    assert row["relation"]["value"] == 1


def test_creatures_are_looked_for_by_all_their_traits():
    (plan,) = evaluation_plans("facing", 1, 0)
    options = flux_measure.Layouts.of(plan, generator(0, Stream.LAYOUT))
    assert options.plans[0] is plan and options.boxes.shape == (flux_measure.LAYOUTS, 2, 4)

    class Sharp(classifiers.Classifiers):
        """Is sure of a creature's traits, all but its species, in a crop that is exactly the true one."""

        def identity(self, crops):
            distance = (crops[:, None] - self.known).square().mean(dim=(2, 3, 4))  # (2 K, 2)
            logits = {name: torch.zeros(len(crops), len(values)) for name, values in TRAITS.items()}
            for row in range(2):
                for column, name in enumerate(TRAITS):
                    if name != "species":
                        logits[name][:, self.asked[row][column]] -= 100 * distance[:, row]
            return logits, None

    judge = Sharp()
    judge.asked = [trait_row(traits) for traits in plan.cast]
    for drawn in (0, 5, 11):
        image = renders([options.plans[drawn]])
        judge.known = classifiers.crop_boxes(image, options.boxes[drawn, None])[0]
        assert flux_measure.located(judge, image, [options]) == [options.plans[drawn]]


def test_measuring_without_a_run_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="training.miniworld flux"):
        list(flux_measure.measure_flux(tmp_path, 2, tmp_path))
