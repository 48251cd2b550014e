"""The stable surface of the commands: options, exit codes, and the keys of every file they write."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.recipe.tiny_recipe import write_all, write_config
from tests.surface import COMMANDS, ROOT, content_of, files_of, lost, options_of, parser_of, pinned, run_command
from tests.unit.synthetic_triplets import write_authors


@pytest.fixture
def command(monkeypatch):
    """Run a command in this process; its exit code."""
    return lambda name, *arguments: run_command(name, arguments, monkeypatch)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def config(models, tmp_path):
    """A run of four steps on the tiny models, its output in a folder of the test."""
    path = write_config(tmp_path / "c.toml", models)
    path.write_text(path.read_text().replace(f"{models.as_posix()}/out", f"{tmp_path.as_posix()}/out"))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_take_the_options_they_took(name, monkeypatch):
    recorded, now = pinned("commands")[name], options_of(parser_of(name, monkeypatch))
    assert lost(recorded, now) == []
    assert [
        name for name, option in now.items() if name not in recorded and "takes" in option and "optional" not in option
    ] == [], "an option that came since must not be asked for"


def test_a_run_leaves_these_files_with_these_keys(command, config, tmp_path):
    assert command("training.finetune", config) == 0
    assert lost(pinned("files")["finetune"], files_of(tmp_path / "out")) == []


def test_a_dry_run_and_a_preview_write_no_run(command, config, tmp_path):
    assert command("training.finetune", config, "--dry-run") == 0
    assert command("training.finetune", config, "--preview-data", tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").is_file() and not (tmp_path / "out").exists()


def test_an_interrupted_run_ends_with_130_and_goes_on(command, config, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        step, taken = torch.optim.AdamW.step, []

        def interrupted(self, *args, **kwargs):
            taken.append(1)
            if len(taken) == 3:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        patched.setattr(torch.optim.AdamW, "step", interrupted)
        assert command("training.finetune", config) == 130
    assert "--resume" in capsys.readouterr().err
    assert lost(pinned("files")["checkpoint"], content_of(tmp_path / "out" / "checkpoint.safetensors")) == []
    assert command("training.finetune", config) == 2
    assert command("training.finetune", config, "--resume") == 0


def test_converted_triplets_have_these_keys(command, tmp_path):
    write_authors(tmp_path / "authors")
    assert command("training.prepare", "--convert", tmp_path / "authors", tmp_path / "ours") == 0
    assert lost(pinned("files")["prepare"], files_of(tmp_path / "ours")) == []


def test_drawn_scenes_and_their_scores_have_these_keys(command, tmp_path):
    scenes, out = tmp_path / "scenes", tmp_path / "scores"
    assert command("training.evaluate", "miniworld", "--relation", "hugging", "--scenes", 2, "--out", scenes) == 0
    assert lost(pinned("files")["scenes"], files_of(scenes)) == []
    assert (
        command(
            "training.evaluate",
            scenes / "truth",
            "--prompts",
            scenes / "prompts.jsonl",
            "--out",
            out,
            "--clip",
            "miniworld",
            "--exact",
            "--device",
            "cpu",
        )
        == 0
    )
    assert lost(pinned("files")["evaluate"], files_of(out)) == []


def test_the_prompts_file_has_these_keys(command, tmp_path):
    out, creatures = tmp_path / "prompts.jsonl", ROOT / "models" / "miniworld" / "creatures"
    assert command("training.evaluate", "relationbench", "--subjects", creatures, "--out", out) == 0
    assert lost(pinned("files")["relationbench"], content_of(out)) == []


def test_a_distilled_encoder_has_these_keys(command, tmp_path):
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
            projection_dim=8,
        )
    ).save_pretrained(tmp_path / "clip")
    write_authors(tmp_path / "pictures")
    out = tmp_path / "local.safetensors"
    assert (
        command(
            "training.distill",
            "--model",
            tmp_path / "clip",
            "--images",
            tmp_path / "pictures",
            "--out",
            out,
            "--steps",
            2,
            "--unlocked",
            1,
            "--threads",
            1,
        )
        == 0
    )
    assert lost(pinned("files")["distill"], content_of(out)) == []


def test_a_miniworld_run_keeps_its_files_and_the_prefixes_of_its_tensors(command, tmp_path):
    world = ("--out", tmp_path)
    assert (
        command(
            "training.miniworld", *world, "render", "--scenes", 4, "--identities", 4, "--portraits", 1, "--processes", 1
        )
        == 0
    )
    assert lost(pinned("files")["corpus"], files_of(tmp_path / "corpus")) == []
    assert command("training.miniworld", *world, "vae", "--steps", 1, "--batch", 2, "--threads", 1) == 0
    run = files_of(tmp_path / "autoencoder")
    assert lost(pinned("files")["miniworld run"], {"latest.json": run["latest.json"]}) == []
    tensors = [key for file in run.values() if isinstance(file, dict) for key in file.get("tensors", {})]
    assert {key.split(".")[0] for key in tensors} == {"weights", "average", "moments"}


@pytest.mark.parametrize("name", pinned("refusals"))
def test_bad_input_ends_with_2_before_anything_is_written(command, tmp_path, monkeypatch, name, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(name, *pinned("refusals")[name]) == 2
    assert capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
