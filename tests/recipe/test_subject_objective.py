"""What a subject adapter's objective reads, drops, weighs and writes, part by part on a tiny base of one encoder."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from core.subject.location import location_mask
from tests.recipe.tiny_recipe import LETTERS, write_all
from tests.recipe.tiny_subject import write_sd, write_subject_config
from training.common.errors import UserErrors
from training.config.subject import load_subject_config
from training.data import subject_cache
from training.data.subject_prompts import prompt_rows
from training.data.subject_samples import augmented
from training.engine import subject_adapter
from training.engine.subject_objective import Dropped
from training.engine.subject_pictures import draw_subjects
from training.engine.subject_spec import load_subject_run
from training.host_diffusers.fused_text import FusedText
from training.host_diffusers.word_probe import sites_of

CPU, ROWS = torch.device("cpu"), 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = write_all(tmp_path_factory.mktemp("tiny"))
    write_sd(root / "sd")
    path = write_subject_config(root / "c.toml", root, base="sd", data="views = 2")
    return load_subject_run(load_subject_config(path), CPU, 1, False)


@pytest.fixture(scope="module")
def data(run):
    return subject_cache.encode_subjects(
        run.rows, run.prompts, run.config, run.models, CPU, torch.float32, lambda text: None
    )


@pytest.fixture
def objective(run):
    """With open gates and a mask that is read."""
    text = FusedText(run.models.base.text(torch.float32), run.tokens)
    made = subject_adapter.attach_subjects(
        run.models.base.unet(torch.float32), text, run.models, run.config, torch.float32
    )
    with torch.no_grad():
        made.unet.conv_in.weight[:, 4:] = 0.1
        for fuser in made.adapter.fusers:
            fuser.alpha_attn.fill_(0.5)
            fuser.alpha_dense.fill_(0.5)
    return made.eval()


@pytest.fixture
def batch(data):
    return data.take(torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.long))


def only(**rows):
    """Go without what is named in those rows."""
    return replace(Dropped.nothing(ROWS, CPU), **{name: torch.tensor(which) for name, which in rows.items()})


@torch.no_grad()
def test_pictures_are_drawn_by_the_published_guidance(objective, batch, run, monkeypatch):
    """eps_U + g (eps_T - eps_I) + g_I (eps_I - eps_U); T has everything, I no text, U nothing."""
    settings = run.config.samples.model_copy(
        update={"steps": 1, "guidance": 3.0, "subject_guidance": 0.5, "negative": "a fox"}
    )
    asked = {}

    def predict(noisy, timesteps, whole, context, dropped):
        asked.update(noisy=noisy, dropped=dropped, context=context[0])
        return torch.cat([torch.full((ROWS, *noisy.shape[1:]), value) for value in (1.0, 2.0, 4.0)])

    monkeypatch.setattr(objective, "predict", predict)
    drawn = draw_subjects(objective, batch, settings)
    guided = torch.full_like(drawn, 4.0 + 3.0 * (1 - 2) + 0.5 * (2 - 4))
    expected = objective.schedule.clean(asked["noisy"][:ROWS], guided, torch.full((ROWS,), 999))
    torch.testing.assert_close(drawn, expected)
    third = torch.arange(3).repeat_interleave(ROWS)
    assert torch.equal(asked["dropped"].location, third == 2) and torch.equal(asked["dropped"].adapters, third == 2)
    fused, *plain = asked["context"].chunk(3)
    nobody, negative = torch.zeros(ROWS, dtype=torch.bool), objective.text([run.tokens.ids(["a fox"])[0]], [])[0]
    torch.testing.assert_close(fused, objective.encode(batch, nobody)[0])
    for context in plain:
        torch.testing.assert_close(context, negative.expand(ROWS, -1, -1))


@torch.no_grad()
def test_rows_go_without_the_mask_or_the_adapters(objective, batch):
    masks = []
    objective.unet.conv_in.register_forward_pre_hook(lambda module, inputs: masks.append(inputs[0][:, 4]))
    noisy, times = torch.randn(ROWS, 4, 8, 8), torch.tensor([5, 500])
    context = objective.encode(batch, torch.zeros(ROWS, dtype=torch.bool))
    whole = objective.predict(noisy, times, batch, context, only())
    less = objective.predict(noisy, times, batch, context, only(location=[True, False], adapters=[False, True]))
    drawn = location_mask(batch.boxes, batch.present, 64, 64, (8, 8))[:, 0]
    assert torch.equal(masks[0], drawn) and set(drawn.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks[1][1], drawn[1]) and not masks[1][0].any()
    bare = objective.unet(torch.cat((noisy, drawn[:, None]), 1), times, context[0]).sample
    torch.testing.assert_close(less[1], bare[1])
    assert not torch.allclose(whole[1], bare[1], atol=1e-5) and not torch.allclose(whole[0], less[0], atol=1e-5)


@torch.no_grad()
def test_each_subject_stands_at_its_own_word_and_none_in_a_dropped_prompt(objective, batch, run):
    nobody = torch.zeros(ROWS, dtype=torch.bool)
    before = objective.encode(batch, nobody)[0]
    for subject in range(2):
        other = batch.embeddings.clone()
        other[:, subject] += 5 * torch.randn_like(other[:, subject])
        after = objective.encode(replace(batch, embeddings=other), nobody)[0]
        changed = (after != before).any(dim=-1)  # the encoder is causal: from its own word on
        for row in range(ROWS):
            assert changed[row].nonzero()[0, 0] == batch.placeholders[row, subject]
    without = objective.encode(batch, torch.tensor([True, False]))[0]
    torch.testing.assert_close(without[1], before[1])
    torch.testing.assert_close(without[0], objective.text([run.tokens.ids([""])[0]], [])[0][0])


def test_words_are_read_where_they_stand(batch, run):
    (ids,) = batch.ids
    assert (ids.gather(1, batch.placeholders) == run.tokens.placeholder).all()
    for (scene, _), ends in zip(run.rows, ids.gather(1, batch.labels).tolist()):
        last = [len(LETTERS) + 1 + LETTERS.index(name[-1]) for name in scene.names]  # of "fox": "x</w>"
        assert ends == last


def test_attention_control_pairs_every_word_with_its_own_subject(objective, batch):
    halves = torch.zeros(ROWS, 2, 64, 64)
    halves[:, 0, :, :32], halves[:, 1, :, 32:] = 1, 1
    cells = torch.zeros(2, 8, 8)
    cells[0, :, :4], cells[1, :, 4:] = 1, 1
    seen = (
        cells.flatten(1).T[:, [0, 1, 0, 1]].expand(ROWS, 1, -1, -1)
    )  # placeholders, then labels; resizing blurs the edge
    probe, pictures = SimpleNamespace(maps=[seen]), replace(batch, segmentations=halves)
    assert objective._localisation(probe, pictures, only()) == pytest.approx(-1, abs=0.1)
    assert objective._localisation(probe, pictures, only(text=[True, False])) == pytest.approx(-0.5, abs=0.05)
    alone = replace(pictures, present=torch.tensor([[True, False]] * ROWS), segmentations=halves.flip(1))
    assert objective._localisation(probe, alone, only()) == pytest.approx(1, abs=0.1)


@torch.no_grad()
def test_attention_is_read_in_small_maps_of_blocks_with_an_adapter_and_min_snr_weighs(objective, batch, monkeypatch):
    names = objective.adapter.config.blocks
    small = sites_of(objective.unet, names, (8, 8), 16)
    assert 0 < len(small) < len(sites_of(objective.unet, names, (8, 8), 64)) == len(names)
    assert len(sites_of(objective.unet, [*names][:1], (8, 8), 64)) == 1
    times, noise = torch.tensor([1, 1]), torch.randn(ROWS, 4, 8, 8)
    plain = objective(batch, times, noise, torch.ones(ROWS) * 0.99)
    assert plain["loss"] == pytest.approx(float(plain["denoise"] + 0.01 * plain["attention"])) and plain["attention"]
    config = objective.config
    loss = config.loss.model_copy(update={"min_snr_gamma": 5.0})
    monkeypatch.setattr(objective, "config", config.model_copy(update={"loss": loss}))
    weighed = objective(batch, times, noise, torch.ones(ROWS) * 0.99)["denoise"]
    share = objective.schedule.min_snr_weight(times, 5.0)[0]
    assert share < 0.1 and weighed == pytest.approx(float(share * plain["denoise"]), rel=1e-4)


def test_what_is_trained_is_float32_and_nothing_else_asks_for_gradients(run, objective):
    trained = objective.trained()
    ids = {id(parameter) for parameter in trained.values()}
    assert {id(parameter) for parameter in objective.parameters() if parameter.requires_grad} == ids
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    ends = ("proj.linears_image.fc1.weight", "mlp.fc2.bias", ".fuser.alpha_dense", ".attn2.to_k.weight",
            ".attn2.to_v.weight", "unet.conv_in.weight", "unet.conv_in.bias")  # fmt: skip
    assert all(any(key.endswith(end) for key in trained) for end in ends)
    own = objective.text.encoders[0].get_input_embeddings().weight.std()
    words = objective.adapter.words(torch.randn(64, objective.adapter.config.embedding_width))[0].std()
    assert 0.3 < words / own < 3  # as large as the encoder's own


def test_views_are_chosen_by_number_and_kept_apart_in_the_cache(run, data, batch):
    takes = [data.take(torch.arange(ROWS), torch.full((ROWS,), view)) for view in (1, 2)]
    assert not torch.equal(takes[0].embeddings, batch.embeddings) and torch.equal(takes[1].embeddings, batch.embeddings)
    scene, place = run.rows[0]
    keys = set()
    for changes in ({}, {"views": 1}, {"image_px": 128}):
        config = run.config.model_copy(update={"data": run.config.data.model_copy(update=changes)})
        keys.add(subject_cache._key(scene, place, config, "models", torch.float32))
    assert len(keys) == 3


def test_augmented_views_are_white_around():
    white = Image.new("RGB", (24, 24), "white")
    spot = white.copy()
    spot.paste("black", (2, 8, 9, 20))
    for seed in range(6):
        assert np.asarray(augmented(white, np.random.default_rng(seed))).min() == 255
        assert np.asarray(augmented(spot, np.random.default_rng(seed))).min() < 60
        assert augmented(spot, np.random.default_rng(seed)).tobytes() != spot.tobytes()


def test_a_long_caption_loses_its_last_words_and_keeps_its_clauses(run):
    scene = run.rows[0][0]
    long = replace(scene, prompt=scene.prompt + " z" * 90)
    (row,) = prompt_rows([long], run.tokens, run.config.adapter)
    clauses = "".join(f", the {name} is q" for name in scene.names)
    assert row.prompt.startswith(scene.prompt) and row.prompt.endswith(" z" + clauses)
    assert run.tokens.count_tokens(row.prompt) == 75 and len(row.placeholders) == len(scene.names)


def test_a_file_that_is_not_what_was_trained_never_appears(objective, tmp_path, monkeypatch):
    honest = subject_adapter.load_subject_adapter

    def other(path):
        state, config = honest(path)
        return {**state, "mlp.fc1.bias": state["mlp.fc1.bias"] + 1}, config

    monkeypatch.setattr(subject_adapter, "load_subject_adapter", other)
    with pytest.raises(UserErrors, match="what was read back is not what was trained"):
        subject_adapter.export_adapter(objective, tmp_path / "a.safetensors", 1, "")
    monkeypatch.undo()
    with torch.no_grad():
        objective.adapter.mlp.fc1.bias[0] = 1e6
    with pytest.raises(UserErrors, match="1 tensors do not fit into float16 .mlp.fc1.bias."):
        subject_adapter.export_adapter(objective, tmp_path / "a.safetensors", 1, "")
    assert list(tmp_path.iterdir()) == []
