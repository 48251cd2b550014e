"""python -m training.finetune before the first step: plans, previews, and every fault in one report."""

import json
import shutil

import pytest

import training.finetune as finetune
from tests.recipe.tiny_recipe import write_config, write_tokenizer
from tests.recipe.tiny_runs import config_of
from training.host_diffusers.checkpoint_configs import SDXL_CLIP_G, SDXL_CLIP_L, SDXL_UNET, SDXL_VAE


def test_dry_run_prints_the_plan_and_writes_nothing(world, capsys):
    assert finetune.main([config_of(world), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "16,384 parameters (rank 4), float32" in said
    assert "GiB a process" in said
    assert not (world / "out").exists()
    assert not (world / "cache").exists()


def test_preview_of_the_data(world, tmp_path):
    assert finetune.main([config_of(world), "--preview-data", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").is_file()
    assert not (world / "out").exists()


def test_a_full_disk_before_the_start_is_a_fault(world, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    assert finetune.main([config_of(world)]) == 2
    assert "0 MiB free on its disk" in capsys.readouterr().err
    assert not (world / "out").exists()


def test_faults_of_data_models_and_machine_come_together(world, capsys):
    config = config_of(world, train="micro_batch = 2")
    text = (world / "c.toml").read_text()
    (world / "c.toml").write_text(
        text.replace('/data"', '/nowhere"')
        .replace("identity.safetensors", "absent.bin")
        .replace('device = "cpu"', 'device = "mps"')
    )
    assert finetune.main([config]) == 2
    message = capsys.readouterr().err
    for part in ("3 faults:", "expected triplets.jsonl or prompts.json", "absent.bin is not there", 'device: "mps"'):
        assert part in message
    assert not (world / "out").exists()


def test_a_wrong_base_is_named(world, tmp_path, capsys):
    config = config_of(world)
    shutil.copytree(world / "base", tmp_path / "sd15")
    wrong = tmp_path / "sd15" / "unet" / "config.json"
    settings = json.loads(wrong.read_text())
    wrong.write_text(json.dumps({**settings, "addition_embed_type": None, "cross_attention_dim": 768}))
    assert finetune.main([config, "--set", f"models.base={tmp_path / 'sd15'}"]) == 2
    assert "expected SDXL's architecture" in capsys.readouterr().err
    wrong.write_text(json.dumps({**settings, "cross_attention_dim": 32}))
    assert finetune.main([config, "--set", f"models.base={tmp_path / 'sd15'}"]) == 2
    assert "context width 64; the base" in capsys.readouterr().err
    assert finetune.main([config, "--set", "models.base=nowhere"]) == 2
    assert "neither a folder nor a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "wrong", "expected"),
    [
        (
            "clip_vision",
            "identity.safetensors",
            "models.clip_vision: identity.safetensors: expected a CLIP vision encoder",
        ),
        ("identity", "clip_vision/model.safetensors", "models.identity: model.safetensors: expected an identity model"),
    ],
)
def test_a_wrong_file_for_a_model_is_named(world, capsys, key, wrong, expected):
    assert finetune.main([config_of(world), "--set", f"models.{key}={world / 'models' / wrong}"]) == 2
    assert expected in capsys.readouterr().err
    assert not (world / "out").exists()


def test_half_precision_needs_a_card(world, capsys):
    assert finetune.main([config_of(world), "--set", "train.precision=float16"]) == 2
    assert 'train.precision: "float16" needs a CUDA device' in capsys.readouterr().err


def test_dry_run_of_full_size_sdxl(world, capsys):
    """Only configs are needed for a plan: nothing of 10 GB is read."""
    base = world / "sdxl"
    for part, config in (
        ("unet", SDXL_UNET),
        ("vae", SDXL_VAE),
        ("text_encoder", SDXL_CLIP_L),
        ("text_encoder_2", SDXL_CLIP_G),
    ):
        (base / part).mkdir(parents=True)
        (base / part / "config.json").write_text(json.dumps(config))
    write_tokenizer(base / "tokenizer")
    path = write_config(world / "sdxl.toml", world, identity=False, train="gradient_checkpointing = true")
    path.write_text(path.read_text().replace("image_px = 64", "image_px = 1024"))
    changes = ["--set", f"models.base={base}", "--set", "train.micro_batch=1"]
    assert finetune.main([str(path), "--dry-run", *changes]) == 0
    said = capsys.readouterr().out
    assert "3,143,680 parameters (rank 4), float32" in said
    assert "(sdxl, epsilon prediction, 70 text cross-attentions)" in said
    assert "9.56 frozen UNet" in said  # 2,567,463,684 numbers in float32
