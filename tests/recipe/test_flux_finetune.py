"""python -m training.finetune on Flux-class bases, tiny and random: whole runs, what they leave, where they stop."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors import safe_open

import training.finetune as finetune
from core.checkpoint import read
from core.relation.flux_lora import load_flux_pairs
from core.relation.keypoint_loss import KeypointPairs, keypoint_loss
from tests.recipe.tiny_flux import write_flux, write_flux_config, write_tables
from tests.recipe.tiny_runs import Crash, interrupt_at
from tests.surface import ROOT
from tests.unit.synthetic_triplets import write_authors
from training.common.cli import say
from training.config import load_config
from training.data.flux_encoding import encode_flux, neighbours
from training.diffusion.flow import add_noise
from training.engine.flux.setup import load_objective
from training.engine.flux.spec import describe_flux_run, load_flux_spec
from training.prepare import convert

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("flux")
    for kind in ("flux1", "kontext", "klein"):
        write_flux(root / kind, kind)
    write_tables(root / "embedding.safetensors")
    write_authors(root / "data")
    write_authors(root / "more")
    convert(root / "data", root / "ours")
    lines = [json.loads(line) for line in (root / "ours" / "triplets.jsonl").read_text().splitlines()]
    for line, licence in zip(lines, ("CC0-1.0", "MIT", "CC0-1.0")):
        line["origin"] = {"licence": licence}
    (root / "ours" / "triplets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture
def config_of(bases, tmp_path):
    """Write a config whose output is the test's own; of FLUX.1 with DreamO's tables unless another base is named."""

    def write(name="out", base="flux1", triplets="data", **tables):
        if base == "flux1":
            tables["models"] = f'embeddings = "{(bases / "embedding.safetensors").as_posix()}"\n' + tables.get(
                "models", ""
            )
        return str(
            write_flux_config(tmp_path / f"{name}.toml", bases / base, bases / triplets, tmp_path / name, **tables)
        )

    return write


@pytest.mark.parametrize(
    ("base", "method", "sites", "modules"),
    [("flux1", "uxo", "DS", 28), ("kontext", "offset", "T", 8), ("klein", "index", "DS", 22)],
)
def test_the_whole_recipe(config_of, tmp_path, capsys, base, method, sites, modules):
    """All attention of a base unless the config says otherwise."""
    lora = "" if sites == "DS" else f'sites = "{sites}"'
    config = config_of(base=base, triplets="ours", samples="every = 2", train="micro_batch = 1", lora=lora)
    assert finetune.main([config, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()
    assert finetune.main([config, "--also", "kohya"]) == 0
    said = capsys.readouterr().out
    assert "2 + 3 blocks" in said and f"references {method}" in said and f"sites {sites}, rank 2" in said
    assert "encoding 3 of 3 pictures" in said and "step 4/4  loss" in said
    assert f"read back: {modules} of {modules} pairs; diffusers reads {modules} of {modules} pairs" in said
    out = tmp_path / "out"
    pairs, metadata = load_flux_pairs(out / "hugging.safetensors")
    assert len(pairs) == modules
    assert any(name.startswith("single_transformer_blocks.") for name in pairs) == (sites == "DS")
    assert (metadata["kind"], metadata["sites"], metadata["reference_method"]) == ("relation", sites, method)
    assert metadata["data_licences"] == "CC0-1.0, MIT"
    assert metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert json.loads(metadata["losses"]) == {"denoise": 1.0, "keypoint": 0.004}
    with safe_open(out / "hugging_kohya.safetensors", "pt") as file:
        assert any(key.startswith("lora_unet_double_blocks_0_txt_attn_qkv") for key in file.keys())
    assert (out / "history.csv").read_text().splitlines()[0] == "step,loss,denoise,keypoint,lr"
    for name in ("samples.png", "loss.png", "samples/without-0.png", "samples/step-000004-0.png"):
        assert (out / name).is_file()
    assert finetune.main([config]) == 2  # finished runs are not overwritten


def test_a_resumed_run_ends_with_the_same_bytes(config_of, tmp_path, monkeypatch):
    more = {"samples": "every = 2", "loss": "routing_weight = 1.0", "train": "gradient_checkpointing = true"}
    whole, broken = config_of("a", **more), config_of("b", **more)
    assert finetune.main([whole]) == 0
    mend = interrupt_at(monkeypatch, 3, Crash())
    with pytest.raises(Crash):
        finetune.main([broken])
    mend()
    assert finetune.main([broken]) == 2  # not without being asked
    assert finetune.main([broken, "--resume", "--set", "train.lr=1"]) == 2  # nor with other settings
    assert finetune.main([broken, "--resume", "--set", "memory.stream_blocks=2"]) == 0  # streaming changes nothing
    for name in ("hugging.safetensors", "checkpoint.safetensors", "history.csv", "samples.png", "loss.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_killed_at_a_random_moment_it_resumes_to_the_same_bytes(config_of, tmp_path):
    whole, killed = config_of("whole"), config_of("killed")
    steps = ["--set", "train.steps=12", "--set", "output.checkpoint_every=1"]
    assert finetune.main([whole, *steps]) == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "training.finetune", killed, *steps]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with safe_open(checkpoint, "pt") as file:
        assert 1 <= int(file.metadata()["step"]) < 12
    assert finetune.main([killed, *steps, "--resume"]) == 0
    for name in ("hugging.safetensors", "checkpoint.safetensors", "history.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


def losses_of(config, device=CPU, step=0):
    """One step's losses and gradients of a run's own objective."""
    settings = load_config(config)
    spec = load_flux_spec(settings, CPU, 1, False)
    crops = encode_flux(spec.folders, settings, spec.base, CPU, spec.dtype, lambda text: None)
    objective, parameters = load_objective(spec, CPU)
    with torch.no_grad():
        for index, parameter in enumerate(parameters.values()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    draw = spec.draw(step, crops)
    losses = objective(crops.take(draw.rows), None, draw)
    losses["loss"].backward()
    return losses, {name: parameter.grad for name, parameter in parameters.items()}, (spec, crops, objective)


def test_every_loss_is_the_same_however_blocks_are_kept(config_of):
    every = "routing_weight = 1.0\nplaceholder_weight = 0.1\nattention_weight = 0.01"
    alike = []
    for name, checkpointing, memory in (("p", "false", ""), ("c", "true", ""), ("s", "true", "stream_blocks = 3")):
        config = config_of(
            name, loss=every, train=f"gradient_checkpointing = {checkpointing}", memory=memory, references="named = 1.0"
        )
        alike.append(losses_of(config)[:2])
    assert set(alike[0][0]) == {"loss", "denoise", "keypoint", "attention", "routing", "placeholder"}
    assert all(float(alike[0][0][name]) != 0 for name in ("denoise", "routing", "placeholder", "attention"))
    for losses, gradients in alike[1:]:
        assert all(torch.equal(losses[name], alike[0][0][name]) for name in losses)
        assert all(torch.equal(gradients[name], alike[0][1][name]) for name in gradients)


def test_the_noise_is_of_the_time_that_the_network_embeds(config_of):
    """In bfloat16 the network makes thousands of a time and rounds them, to a multiple of 4 above 512."""
    *_, (spec, crops, objective) = losses_of(config_of(train='precision = "bfloat16"'))
    draw, seen = spec.draw(1, crops), {}
    network = objective.network
    hooks = [
        network.register_forward_pre_hook(lambda module, inputs: seen.update(noisy=inputs[0])),
        network.transformer.time_text_embed.register_forward_pre_hook(
            lambda module, inputs: seen.update(thousands=inputs[0])
        ),
    ]
    objective(crops.take(draw.rows), None, draw.part(0, 2))
    for hook in hooks:
        hook.remove()
    batch = crops.take(draw.rows)
    assert (seen["thousands"].float() / 1000 - draw.times).abs().max() > 1e-5
    told = add_noise(batch.latents, draw.noise, seen["thousands"].float() / 1000)
    torch.testing.assert_close(seen["noisy"], told, atol=1e-6, rtol=0)


def test_the_denoising_loss_is_zero_for_noise_minus_picture(config_of):
    """The target's sign, and the keypoint loss's clean picture and gate, with a network that knows the answer."""
    settings = ["references.drop=0", "references.text_drop=0", "loss.keypoint_max_time=0.4825"]
    config = load_config(config_of(), settings)
    spec = load_flux_spec(config, CPU, 1, False)
    crops = encode_flux(spec.folders, config, spec.base, CPU, spec.dtype, say)
    objective, _ = load_objective(spec, CPU)

    def answer(velocity, *inputs):
        return velocity

    for times in ((0.4, 0.48), (0.49, 0.7)):
        draw = replace(spec.draw(0, crops), times=torch.tensor(times))
        batch = crops.take(draw.rows)
        objective.network.forward = partial(answer, draw.noise - batch.latents)
        losses = objective(batch, None, draw)
        pairs = KeypointPairs(batch.keypoints_target, batch.keypoints_concepts, batch.visible > 0.5)
        gate = torch.tensor(times) <= 0.4825
        wanted = keypoint_loss(batch.latents, batch.concept_latents, pairs, gate).mean() / batch.latents.shape[1]
        assert losses["denoise"] == 0
        assert (float(losses["keypoint"]) > 0) == bool(gate.all())
        torch.testing.assert_close(losses["keypoint"], wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(losses["loss"], 0.004 * losses["keypoint"])


def test_pictures_with_and_without_references_are_those_alone(config_of):
    """A batch is computed in groups; each picture's loss is what it has by itself."""
    config = config_of(references="named = 0.5", train="", loss="routing_weight = 1.0")
    _, _, (spec, crops, objective) = losses_of(config)
    settings = spec.config.model_copy(
        update={"train": spec.config.train.model_copy(update={"batch_size": 6}),
                "references": spec.config.references.model_copy(update={"drop": 0.5})}
    )  # fmt: skip
    from training.engine.flux.batch import sample_flux_batch

    draw = sample_flux_batch(settings, 1, crops, spec.patch)
    assert 0 < int(draw.alone.sum()) < 6
    with torch.no_grad():
        together = objective(crops.take(draw.rows), None, draw)
        alone = [objective(crops.take(draw.rows[at : at + 1]), None, draw.part(at, at + 1)) for at in range(6)]
    for name, value in together.items():
        torch.testing.assert_close(torch.stack([each[name] for each in alone]).mean(), value, atol=1e-5, rtol=1e-4)


def test_stages_change_data_losses_rate_and_tokens(config_of, bases, tmp_path, capsys):
    config = config_of(lora='sites = "DS"\ntables = true', loss="keypoint_weight = 0.0")
    text = (tmp_path / "out.toml").read_text().replace("steps = 4\nbatch", "steps = 6\nbatch", 1)
    folders = [(bases / name).as_posix() for name in ("data", "more")]
    lines = (
        "lr = 1e-2\ncolumns = 1.0\nrouting_weight = 1.0",
        f"folders = {json.dumps(folders)}\nshares = [1.0, 3.0]\nrouting_weight = 0.5",
        "lr = 1e-3\nkept = 0.05",
    )
    stages = "".join(f"\n[[stages]]\nsteps = 2\n{each}\n" for each in lines)
    (tmp_path / "out.toml").write_text(text + stages)
    assert finetune.main([config]) == 0
    said = capsys.readouterr().out
    assert "denoise x 1/1/1, routing x 1/0.5/0" in said and "3 stages" in said
    rows = [line.split(",") for line in (tmp_path / "out" / "history.csv").read_text().splitlines()]
    assert rows[0] == ["step", "loss", "denoise", "routing", "lr"]
    assert [float(row[-1]) for row in rows[1:]] == pytest.approx([1e-2] * 4 + [1e-3] * 2)
    assert [float(row[3]) > 0 for row in rows[1:]] == [True] * 4 + [False] * 2
    spec = load_flux_spec(load_config(config, [f"output.folder={tmp_path / 'x'}"]), CPU, 1, False)
    crops = encode_flux(spec.folders, spec.config, spec.base, CPU, spec.dtype, say)
    assert len(crops) == 12 and crops.columns.sum() == 6  # three triplets of two folders, and neighbours side by side
    side = spec.draw(0, crops)
    assert crops.columns[side.rows].all() and side.token_mask.shape[-1] == 0
    assert not any(crops.columns[spec.draw(step, crops).rows].any() for step in (2, 3, 4))
    last = spec.draw(4, crops)
    assert last.token_mask.any(dim=-1).all() and float(last.token_mask.float().mean()) < 0.6
    tables, _ = read(tmp_path / "out" / "hugging_embedding.safetensors")
    before, _ = read(bases / "embedding.safetensors")
    moved = {name: not torch.equal(tables[name], before[name]) for name in before}
    assert moved == {
        "dreamo_task_embedding.weight": True,
        "dreamo_idx_embedding.weight": True,
        "dreamo_t5_embedding.weight": False,
    }


def test_columns_are_of_two_triplets_of_one_folder(config_of):
    """Two subjects that never met: the crop beside is another triplet's, however many crops each has."""
    spec = load_flux_spec(load_config(config_of(), ["data.crops=2", "data.columns=0.5"]), CPU, 1, False)
    (folder,) = spec.folders
    more = [replace(triplet, name=f"other {triplet.name}") for triplet in folder]
    beside = neighbours([folder, more], 2)
    own = [(triplet, crop) for triplet in (*folder, *more) for crop in range(2)]
    assert len(beside) == len(own) == 12
    for (left, one), (right, other) in zip(own, beside):
        assert left.name != right.name and one == other
        assert left.name.startswith("other") == right.name.startswith("other")


def test_a_file_that_does_not_read_back_leaves_nothing(config_of, tmp_path, monkeypatch, capsys):
    """Neither the LoRA nor what is written beside it."""
    monkeypatch.setattr("training.engine.flux.setup.read_with_diffusers", lambda *inputs: 7)
    assert finetune.main([config_of(lora="tables = true"), "--also", "kohya"]) == 2
    assert "diffusers reads 7 of 28 pairs). Nothing was written" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == {"checkpoint.safetensors"}


def test_what_is_encoded_is_kept_by_content(config_of, capsys):
    config = load_config(config_of("k"))

    def again(*overrides):
        changed = load_config(config_of("k"), overrides)
        spec = load_flux_spec(changed, CPU, 1, False)
        crops = encode_flux(spec.folders, changed, spec.base, CPU, torch.float32, say)
        return crops, capsys.readouterr().out

    first, said = again()
    assert "encoding 3 of 3 pictures" in said and config.data.reference_px == 32
    assert first.references.shape[-1] == 4 and first.concept_latents.shape[-1] == 8
    second, said = again("train.lr=1", "lora.sites=DS")
    assert said == "" and all(torch.equal(each, vars(second)[name]) for name, each in vars(first).items())
    same, said = again("data.reference_px=64")
    assert "encoding 3 of 3" in said and torch.equal(same.references, same.concept_latents)
    assert "encoding 3 of 3" in again("models.text_tokens=20")[1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.precision=float16"], "Flux overflows in float16"),
        (["memory.storage=fp8"], "saves nothing unless blocks are computed twice"),
        (["memory.storage=nf4"], 'memory.storage: "nf4" needs'),
        (["memory.storage=nf4", "memory.stream_blocks=2", "train.gradient_checkpointing=true"], "cannot be changed"),
        (["data.image_px=72"], "expected a multiple of 16"),
        (["data.image_px=80", "data.columns=0.5"], "expected a multiple of 32 with columns"),
        (["lora.sites=X"], "lora.sites: expected one of T, Tkv"),
        (["loss.keypoint_min_time=0.95"], "is above keypoint_max_time"),
        (["models.embeddings=", "lora.tables=true"], "needs models.embeddings"),
        (["models.embeddings=", "loss.placeholder_weight=1"], "no placeholders without DreamO's table"),
        (["references.named=0", "loss.placeholder_weight=1"], "no prompt names its references"),
        (["models.base=nowhere", "data.folder=nothing"], "neither a folder nor a file"),
        (["models.dreamo=['a']", "models.dreamo_strengths=[1.0, 2.0]"], "1 files are named in models.dreamo"),
        (["identity.strength=1"], "identity: unknown key"),
        (["train.stepz=4"], "Did you mean train.steps?"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(config_of, tmp_path, capsys, overrides, said):
    config = config_of()
    given = [part for override in overrides for part in ("--set", override)]
    assert finetune.main([config, *given]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert (
        len(overrides) < 2
        or "2 faults" in error
        or "1 files" in error
        or "needs" in error
        or "cannot" in error
        or "columns" in error
        or ("no p" in error)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.toml"]


def test_a_second_file_for_kohya_is_of_flux_alone(tmp_path, capsys):
    path = tmp_path / "c.toml"
    path.write_text('relation = "hugging"\n[data]\nfolder = "d"\n[models]\nbase = "b"\n[output]\nfolder = "o"\n')
    assert finetune.main([str(path), "--also", "kohya"]) == 2
    assert "spelled as kohya's tools have it already" in capsys.readouterr().err


def test_a_name_that_its_prompt_lacks_has_no_placeholder(tmp_path, monkeypatch, capsys):
    """The miniworld's Flux reads [ref#1] behind a name; other bases add a sentence instead."""
    write_authors(tmp_path / "data")
    prompts = tmp_path / "data" / "prompts.json"
    prompts.write_text(prompts.read_text(encoding="utf-8").replace('["fox", "bear"]', '["fox", "wolf"]'))
    settings = {"data.folder": tmp_path / "data", "output.folder": tmp_path / "out", "output.cache": tmp_path / "cache"}
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    monkeypatch.chdir(ROOT)
    assert finetune.main(["training/configs/relation_flux_miniworld.toml", *overrides]) == 2
    assert "triplet 0: prompt: expected the name 'wolf' as a word of its own" in capsys.readouterr().err


def test_a_plan_speaks_of_the_card_that_trains(config_of, monkeypatch):
    path = config_of()
    spec = load_flux_spec(load_config(path), CPU, 1, False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 10**12))
    plans = {
        device: describe_flux_run(replace(spec, config=load_config(path, [f"train.device={device}"])), 1)
        for device in ("auto", "cpu")
    }
    assert "this card has 1000.0 GB" in plans["auto"] and "this card" not in plans["cpu"]
