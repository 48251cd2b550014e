"""python -m training.subject on tiny random bases: whole runs, what they leave, and what stops them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open

import training.subject as subject
from core.subject.files import SubjectAdapter, load_subject_adapter
from tests.recipe.tiny_recipe import write_all
from tests.recipe.tiny_subject import write_coco, write_sd, write_subject_config
from tests.surface import ROOT, content_of, digest_of, lost, pinned
from training.config.subject import load_subject_config
from training.engine.subject_objective import Dropped, SubjectObjective
from training.host_diffusers.subject import put_on

QUICK = ("--set", "samples.every=0")


class Crash(Exception):
    """Stands for whatever ends a process between two steps."""


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    root = write_all(tmp_path_factory.mktemp("tiny"))
    write_sd(root / "sd")
    write_coco(root / "coco")
    return root


@pytest.fixture
def world(tiny_root, tmp_path):
    """Its own output, the shared models, data and cache."""
    for name in ("base", "models", "data", "sd", "coco"):
        (tmp_path / name).symlink_to(tiny_root / name)
    (tiny_root / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache").symlink_to(tiny_root / "cache")
    return tmp_path


def config_of(world, name="c.toml", out="out", **tables):
    return str(write_subject_config(world / name, world, out=out, **tables))


def interrupt_at(monkeypatch, at, error):
    """The step number `at` ends in `error`."""
    honest = subject.one_step

    def one_step(model, optimizer, parameters, data, step, *rest):
        if step == at:
            raise error
        return honest(model, optimizer, parameters, data, step, *rest)

    monkeypatch.setattr(subject, "one_step", one_step)
    return lambda: monkeypatch.setattr(subject, "one_step", honest)


def test_the_whole_recipe_on_two_text_encoders(world, capsys):
    assert subject.main([config_of(world)]) == 0
    (said, progress), out = capsys.readouterr(), world / "out"
    assert "pictures: 100%" in progress
    assert "step 4/4  loss" in said and "read back: " in said
    state, config = load_subject_adapter(out / "pair.safetensors")
    assert (config.word, config.word_2, config.input_channels) == ((20, 24), (20, 40), 5)
    assert (config.base, config.placeholder, config.max_subjects, len(config.blocks)) == ("miniworld", "q", 2, 8)
    assert all(tensor.dtype == torch.float16 for tensor in state.values())
    assert any(bool(tensor.any()) for key, tensor in state.items() if key.endswith("alpha_attn"))  # gates have moved
    with safe_open(out / "pair.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["kind"], metadata["steps"], metadata["fused_words"]) == ("subject_adapter", "4", "true")
    assert json.loads(metadata["losses"]) == {"denoise": 1.0, "attention": 0.01}
    assert (out / "history.csv").read_text().splitlines()[0] == "step,loss,denoise,attention,lr"
    for name in ("samples.png", "loss.png", "settings.json", "samples/without-1.png", "samples/step-000004-1.png"):
        assert (out / name).is_file()
    assert not list(world.rglob("*.part*"))
    assert lost(pinned("files")["subject adapter"], digest_of(content_of(out / "pair.safetensors"))) == []
    assert subject.main([config_of(world)]) == 2
    assert "finished runs are not overwritten" in capsys.readouterr().err


def test_one_text_encoder_trained_on_a_coco_set(world, capsys):
    config = config_of(
        world, base="sd", coco=(world / "coco/instances.json").as_posix(),
        data=f'captions = "{(world / "coco/captions.json").as_posix()}"\nviews = 2\ncrops = 2',
        adapter='text_encoder = "layers"', output='precision = "float32"',
    )  # fmt: skip
    assert subject.main([config, *QUICK, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 pictures of " in said and "6 crops of 64 px" in said and "text encoder: layers" in said
    assert subject.main([config, *QUICK]) == 0
    state, sizes = load_subject_adapter(world / "out/pair.safetensors")
    assert sizes.word == (20, 24) and sizes.word_2 is None
    trained = [key for key in state if key.startswith("text_encoder.text_model.")]
    assert any("self_attn.q_proj" in key for key in trained) and not any("token_embedding" in key for key in trained)


def test_the_file_draws_what_was_trained(world, monkeypatch):
    """Put on a fresh base, the file's weights give the prediction of the objective that wrote them; off, the base's."""
    seen = {}
    honest = subject.export_adapter

    def export(objective, *rest):
        batch, noise = seen["batch"], torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            objective.eval()
            context = objective.encode(batch, torch.zeros(2, dtype=torch.bool))
            nothing = Dropped.nothing(2, noise.device)
            seen["out"] = objective.predict(noise, torch.tensor([5, 500]), batch, context, nothing)
        seen.update(noise=noise, context=context, objective=objective)
        return honest(objective, *rest)

    def pictures(recipe, objective, data, device):
        seen["batch"] = data.take(torch.arange(2), torch.zeros(2, dtype=torch.long))
        return None

    class Silent:
        draw = draw_without = lambda *_: None

    monkeypatch.setattr(subject, "export_adapter", export)
    monkeypatch.setattr(subject, "pictures_of", lambda *args: pictures(*args) or Silent())
    config = config_of(world, output='precision = "float32"')
    assert subject.main([config]) == 0
    unet = subject.load_subject_run(
        load_subject_config(config, ["output.name=other"]), torch.device("cpu"), 1, True
    ).models.base.unet(torch.float32)
    batch, (context, pooled) = seen["batch"], seen["context"]
    conditions = {"text_embeds": pooled, "time_ids": batch.time_ids}
    times = torch.tensor([5, 500])
    with torch.no_grad():
        before = unet(seen["noise"], times, context, added_cond_kwargs=conditions).sample
        adapter, _, take_off = put_on(unet, world / "out/pair.safetensors")
        again = SubjectObjective(
            unet,
            adapter,
            seen["objective"].text,
            seen["objective"].schedule,
            load_subject_config(config),
            torch.float32,
        )
        nothing = Dropped.nothing(2, times.device)
        torch.testing.assert_close(again.predict(seen["noise"], times, batch, (context, pooled), nothing), seen["out"])
        everything = Dropped(*(torch.ones(2, dtype=torch.bool) for _ in range(3)))
        assert not torch.equal(again.predict(seen["noise"], times, batch, (context, pooled), everything), seen["out"])
        take_off()
        assert torch.equal(unet(seen["noise"], times, context, added_cond_kwargs=conditions).sample, before)


@pytest.mark.parametrize(
    ("lines", "absent"),
    [
        ("location = false\ncoordinates = false", "unet.conv_in.weight"),
        ("adapter = false\nfused_words = false", "text_encoder.text_model.final_layer_norm.weight"),
        ('blocks = "first"', "unet.mid_block.attentions.0.transformer_blocks.1.fuser.alpha_attn"),
        ('blocks = "up"', "unet.mid_block.attentions.0.transformer_blocks.0.fuser.alpha_attn"),
    ],
)
def test_parts_may_be_left_out(world, lines, absent):
    assert subject.main([config_of(world, adapter=lines), *QUICK, "--set", "train.steps=2"]) == 0
    state, config = load_subject_adapter(world / "out/pair.safetensors")
    assert absent not in state
    gates = [bool(tensor.any()) for key, tensor in state.items() if ".fuser.alpha" in key]
    assert any(gates) == (not lines.startswith("adapter")) and len(gates) == 2 * len(config.blocks)
    assert config.fused_words == config_has(lines, "fused_words") and config.coordinates == config_has(lines, "coord")


def config_has(lines, part):
    """Whether a part is not among those that lines leave out."""
    return part not in lines


def test_shares_of_what_is_dropped_are_those_of_the_config(world):
    config = load_subject_config(config_of(world, drop="text = 0.1\ntext_and_location = 0.2\nlocation = 0.3"))
    dropped = Dropped.of_chances(torch.tensor([0.05, 0.2, 0.5, 0.62, 0.7]), config)
    assert dropped.text.tolist() == [True, True, False, True, False]
    assert dropped.location.tolist() == [False, True, True, True, False]
    assert dropped.adapters.tolist() == [False, False, False, True, False]


def test_micro_batches_add_up(world):
    rows = []
    for name, size in (("a", 4), ("b", 1)):
        config = config_of(world, f"{name}.toml", name, train=f"micro_batch = {size}")
        assert subject.main([config, *QUICK, "--set", "train.steps=2", "--set", "loss.attention_weight=0"]) == 0
        rows.append(
            [[float(cell) for cell in row] for row in list(csv.reader((world / name / "history.csv").open()))[1:]]
        )
    torch.testing.assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_changes_no_gradient(world):
    """With attention control, as the presets train: its maps come from the first pass alone."""
    files = []
    for name, flag in (("a", "false"), ("b", "true")):
        config = config_of(world, f"{name}.toml", name, train=f"gradient_checkpointing = {flag}")
        settings = ("loss.attention_weight=1.0", "train.steps=1", 'output.precision="float32"')
        assert subject.main([config, *QUICK, *(part for one in settings for part in ("--set", one))]) == 0
        files.append(load_subject_adapter(world / name / "pair.safetensors")[0])
    torch.testing.assert_close(*files)


def test_bfloat16_keeps_what_is_trained_in_float32(world):
    config = config_of(world, train='precision = "bfloat16"', output='precision = "float32"')
    assert subject.main([config, *QUICK, "--set", "train.steps=2"]) == 0
    state, _ = load_subject_adapter(world / "out/pair.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in state.values())


def test_a_resumed_run_ends_with_the_same_bytes(world, monkeypatch, capsys):
    whole, broken = config_of(world, "a.toml", "a"), config_of(world, "b.toml", "b")
    assert subject.main([whole]) == 0
    mend = interrupt_at(monkeypatch, 3, KeyboardInterrupt())
    assert subject.main([broken]) == 130
    assert "The checkpoint of step 2 is whole; go on with: " in capsys.readouterr().err
    mend()
    assert subject.main([broken]) == 2  # not without being asked
    assert subject.main([broken, "--resume", "--set", "train.lr=0.5"]) == 2
    assert "and is 0.5) changed since" in capsys.readouterr().err
    assert subject.main([broken, "--resume"]) == 0
    for name in ("pair.safetensors", "checkpoint.safetensors", "history.csv", "samples.png", "loss.png"):
        assert (world / "a" / name).read_bytes() == (world / "b" / name).read_bytes(), name


def test_a_killed_run_ends_with_the_same_bytes(world):
    """kill -9 leaves the lock of a process that is gone, and whole files only."""
    steps = (*QUICK, "--set", "output.checkpoint_every=1", "--set", "train.steps=30", "--set", "train.batch_size=1")
    whole, killed = config_of(world, "a.toml", "a"), config_of(world, "b.toml", "b")
    process = subprocess.Popen(
        [sys.executable, "-m", "training.subject", killed, *steps],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (world / "b/checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()
    assert not (world / "b/pair.safetensors").exists()
    assert subject.main([killed, *steps, "--resume"]) == 0 == subject.main([whole, *steps])
    assert (world / "a/pair.safetensors").read_bytes() == (world / "b/pair.safetensors").read_bytes()


def test_the_preview_shows_what_was_understood(world, capsys):
    assert subject.main([config_of(world), "--preview-data", str(world / "sheet.png")]) == 0
    assert (world / "sheet.png").is_file() and not (world / "out").exists()


@pytest.mark.parametrize(("gate", "adapter"), [(0.0, "true"), (0.5, "true"), (0.5, "false")])
def test_before_the_first_step_an_adapter_draws_what_the_base_draws(world, monkeypatch, gate, adapter):
    """Gates at zero, or silent output layers behind open ones; and a mask that nothing reads yet.

    Gates that are not trained stay shut.
    """
    opened = gate if adapter == "true" else 0.0
    seen = []
    honest = subject.attach_subjects

    def attach(unet, text, models, config, dtype):
        noise, times, states = torch.randn(1, 4, 8, 8), torch.tensor([300]), torch.randn(1, 77, 24)
        with torch.no_grad():
            before = unet.eval()(noise, times, states).sample
            objective = honest(unet, text, models, config, dtype)
            objective.eval()
            data = monkey_batch(objective)
            seen.append(
                (before, objective.predict(noise, times, data, (states, None), Dropped.nothing(1, noise.device)))
            )
        fusers = objective.adapter.fusers
        assert {round(float(fuser.alpha_attn.tanh()), 6) for fuser in fusers} == {opened}
        assert all(bool(fuser.attn.to_out[0].weight.any()) == (not opened) for fuser in fusers)
        raise Crash

    def monkey_batch(objective):
        sizes = objective.adapter.config
        from training.data.subject_cache import SubjectBatch

        return SubjectBatch(
            torch.zeros(1, 4, 8, 8), torch.zeros(1, 6), torch.randn(1, 2, sizes.tokens, sizes.image_width),
            torch.randn(1, 2, sizes.embedding_width), torch.rand(1, 2, 4).sort().values,
            torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, 64, 64), (), torch.zeros(1, 2), torch.zeros(1, 2),
        )  # fmt: skip

    monkeypatch.setattr(subject, "attach_subjects", attach)
    with pytest.raises(Crash):
        subject.main(
            [
                config_of(world, base="sd"),
                *QUICK,
                "--set",
                f"adapter.gate={gate}",
                "--set",
                f"adapter.adapter={adapter}",
            ]
        )
    torch.testing.assert_close(seen[0][1], seen[0][0], atol=1e-6, rtol=0)


def test_an_adapter_of_another_base_is_refused_by_the_unet(world):
    assert subject.main([config_of(world), *QUICK, "--set", "train.steps=1"]) == 0
    from diffusers import UNet2DConditionModel

    other = UNet2DConditionModel.from_pretrained(world / "sd", subfolder="unet")
    with pytest.raises(ValueError, match="made for 8 blocks, the UNet has"):
        put_on(other, world / "out/pair.safetensors")
    state, config = load_subject_adapter(world / "out/pair.safetensors")
    assert SubjectAdapter(config).file_keys().items() >= {"mlp.fc1.bias": "mlp.fc1.bias"}.items() and state
