"""python -m training.finetune stopped on the way: nothing is lost, and the end is the same."""

import pytest
import torch
from safetensors import safe_open

import training.engine.run_dir
import training.finetune as finetune
from tests.recipe.tiny_runs import Crash, config_of, interrupt_at
from training.engine import objective as relation
from training.engine.objective import RelationObjective


def test_a_finished_run_is_not_overwritten(world, capsys):
    config = config_of(world)
    assert finetune.main([config, "--set", "train.steps=1", "--set", "samples.every=0"]) == 0
    assert (world / "out" / "settings.json").is_file()
    assert not (world / "out" / "samples").exists()
    before = (world / "out" / "hugging.safetensors").read_bytes()
    for more in ([], ["--resume"], ["--dry-run"]):
        assert finetune.main([config, *more]) == 2
        assert "finished runs are not overwritten" in capsys.readouterr().err
    assert (world / "out" / "hugging.safetensors").read_bytes() == before


def test_a_resumed_run_ends_with_the_same_bytes(world, monkeypatch):
    whole, broken = config_of(world, "a.toml", "a"), config_of(world, "b.toml", "b")
    assert finetune.main([whole]) == 0
    mend = interrupt_at(monkeypatch, 3, Crash())
    with pytest.raises(Crash):
        finetune.main([broken])
    mend()
    (world / "b" / ".checkpoint.safetensors.x1.part").write_bytes(b"half a file")
    assert finetune.main([broken]) == 2  # not without being asked
    assert finetune.main([broken, "--resume"]) == 0
    for name in ("hugging.safetensors", "checkpoint.safetensors", "history.csv", "samples.png", "loss.png"):
        assert (world / "a" / name).read_bytes() == (world / "b" / name).read_bytes(), name
    assert not list((world / "b").glob(".*"))


def test_interrupted_before_the_export_it_is_exported_on_resume(world, monkeypatch):
    config = config_of(world)
    honest = relation.export

    def crash(*_):
        raise Crash

    monkeypatch.setattr(relation, "export", crash)
    with pytest.raises(Crash):
        finetune.main([config])
    monkeypatch.setattr(relation, "export", honest)
    assert finetune.main([config, "--resume"]) == 0
    assert (world / "out" / "hugging.safetensors").is_file()


def test_killed_after_the_last_checkpoint_its_table_and_chart_are_written_on_resume(world, monkeypatch):
    whole, broken = config_of(world, "a.toml", "a"), config_of(world, "b.toml", "b")
    quick = ("--set", "train.steps=2", "--set", "samples.every=0")
    assert finetune.main([whole, *quick]) == 0

    def crash(*_):
        raise Crash

    monkeypatch.setattr(training.engine.run_dir.RunDir, "write_history", crash)
    with pytest.raises(Crash):
        finetune.main([broken, *quick])
    monkeypatch.undo()
    assert finetune.main([broken, *quick, "--resume"]) == 0
    for name in ("history.csv", "loss.png"):
        assert (world / "a" / name).read_bytes() == (world / "b" / name).read_bytes(), name


def test_resuming_under_other_settings_is_refused(world, monkeypatch, capsys):
    config = config_of(world)
    interrupt_at(monkeypatch, 2, Crash())
    with pytest.raises(Crash):
        finetune.main([config])
    assert finetune.main([config, "--resume", "--set", "train.lr=1e-5"]) == 2
    told = capsys.readouterr().err
    assert "the settings (train.lr was 0.001 and is 1e-05) changed since this run was started" in told
    (world / "out" / "settings.json").unlink()
    assert finetune.main([config, "--resume", "--set", "train.lr=1e-5"]) == 2
    assert "the settings changed since this run was started" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(world, monkeypatch, capsys):
    config = config_of(world)
    interrupt_at(monkeypatch, 3, KeyboardInterrupt())
    assert finetune.main([config]) == 130
    message = capsys.readouterr().err
    assert "The checkpoint of step 2 is whole; go on with: " in message
    assert message.endswith(f"python -m training.finetune {config} --resume\n")


def test_a_loss_that_is_not_a_number_keeps_the_last_checkpoint(world, monkeypatch, capsys):
    config = config_of(world, output="")
    honest = RelationObjective.forward
    calls = []

    def forward(self, *arguments):
        calls.append(1)
        losses = honest(self, *arguments)
        return {name: loss * float("nan") for name, loss in losses.items()} if len(calls) == 3 else losses

    monkeypatch.setattr(RelationObjective, "forward", forward)
    assert finetune.main([config]) == 1
    message = capsys.readouterr().err
    assert "The loss of step 3 is not a number" in message
    assert "The checkpoint of step 2 is whole" in message
    with safe_open(world / "out" / "checkpoint.safetensors", "pt") as file:
        assert file.metadata()["step"] == "2"
        assert all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys())
    assert not (world / "out" / "hugging.safetensors").exists()


def test_a_full_disk_on_the_way_keeps_the_last_checkpoint(world, monkeypatch, capsys):
    config = config_of(world)
    honest, calls = training.engine.run_dir.save, []

    def save(path, *rest):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        honest(path, *rest)

    monkeypatch.setattr(training.engine.run_dir, "save", save)
    assert finetune.main([config]) == 1
    assert "No space left on device. The checkpoint of step 2 is whole" in capsys.readouterr().err
    monkeypatch.setattr(training.engine.run_dir, "save", honest)
    assert finetune.main([config, "--resume"]) == 0
