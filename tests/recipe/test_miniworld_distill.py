"""python -m training.distill on a tiny encoder and a folder of pictures; open_clip's towers taken apart rightly."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from core.identity.local_tokens import dense_features, rescale_positions
from training import distill
from training.engine.clipself import region_vectors
from training.host_diffusers.clipself import dense_projected, encoder_of_open_clip, encoder_of_transformers

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "projection_dim": 8,
}


@pytest.fixture
def tiny(tmp_path):
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY))
    model.save_pretrained(tmp_path / "clip")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"{index}.png")
    return tmp_path, model


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["distill", *map(str, arguments)])
    return distill.main()


def test_only_the_last_blocks_learn_and_the_file_is_written(tiny, monkeypatch):
    folder, model = tiny
    code = run(
        monkeypatch,
        "--model",
        folder / "clip",
        "--images",
        folder / "pictures",
        "--out",
        folder / "local.safetensors",
        "--steps",
        2,
        "--lr",
        1e-2,
        "--unlocked",
        1,
        "--threads",
        1,
    )
    assert code == 0
    written, before = load_file(folder / "local.safetensors"), model.state_dict()
    assert set(written) == {key for key, value in before.items() if value.is_floating_point()}
    changed = {key for key in written if not torch.allclose(written[key].float(), before[key], atol=1e-3)}
    assert changed and all(key.startswith("vision_model.encoder.layers.2.") for key in changed)
    assert not any(".q_proj." in key or ".k_proj." in key for key in changed), "they are not used, so they do not move"


def test_an_encoder_in_half_precision_is_trained_in_float32(tiny, monkeypatch):
    folder, model = tiny
    model.half().save_pretrained(folder / "half")
    out = folder / "local.safetensors"
    options = ("--images", folder / "pictures", "--out", out, "--steps", 1, "--unlocked", 1, "--threads", 1)
    assert run(monkeypatch, "--model", folder / "half", *options) == 0 and out.is_file()


def test_faults_are_said_in_the_users_words(tiny, monkeypatch, capsys):
    folder, _ = tiny
    assert run(monkeypatch, "--model", folder / "clip", "--out", folder / "local.safetensors") == 2
    assert "--images" in capsys.readouterr().err
    empty = folder / "empty"
    empty.mkdir()
    assert run(monkeypatch, "--model", folder / "clip", "--images", empty, "--out", folder / "x.safetensors") == 2
    assert "found none" in capsys.readouterr().err
    assert (
        run(monkeypatch, "--model", "ViT-bigG-14", "--images", folder / "pictures", "--out", folder / "x.safetensors")
        == 2
    )
    assert "--weights" in capsys.readouterr().err


def test_wrong_models_and_outputs_are_said_before_anything_is_trained(tiny, monkeypatch, capsys):
    folder, _ = tiny
    for name in ("empty", "taken"):
        (folder / name).mkdir()
    (folder / "page.bin").write_bytes(b"<!DOCTYPE html>")
    clip, out = folder / "clip", folder / "local.safetensors"
    cases = {
        "cannot be opened": (folder / "empty", out),
        "the encoder has 3 blocks": (clip, out, "--unlocked", 4),
        "expected the file to write": (clip, folder / "taken"),
        "x.run: expected the file to write": (clip, folder / "x.run"),
        "not a file of tensors": ("ViT-B-32", out, "--weights", folder / "page.bin"),
    }
    for said, (model, target, *more) in cases.items():
        assert run(monkeypatch, "--model", model, "--images", folder / "pictures", "--out", target, *more) == 2
        assert said in capsys.readouterr().err
    assert not [path for path in folder.iterdir() if path.suffix == ".run"]


def test_a_run_goes_on_only_with_the_encoder_and_the_blocks_it_began_with(tiny, monkeypatch, capsys):
    folder, model = tiny
    model.save_pretrained(folder / "other")
    common = ("--images", folder / "pictures", "--out", folder / "local.safetensors", "--threads", 1)
    assert run(monkeypatch, "--model", folder / "clip", *common, "--unlocked", 1, "--steps", 1) == 0
    assert run(monkeypatch, "--model", folder / "clip", *common, "--unlocked", 2, "--steps", 2) == 2
    assert "was trained with --unlocked 1." in capsys.readouterr().err
    assert run(monkeypatch, "--model", folder / "other", *common, "--unlocked", 1, "--steps", 2) == 2
    assert f"was trained with --model {folder / 'clip'}." in capsys.readouterr().err
    assert run(monkeypatch, "--model", folder / "clip", *common, "--unlocked", 1, "--steps", 2) == 0


def test_an_unknown_architecture_is_a_sentence(tiny, monkeypatch, capsys):
    pytest.importorskip("open_clip")
    folder, _ = tiny
    more = ("--weights", folder / "none.bin", "--images", folder / "pictures", "--out", folder / "x.safetensors")
    assert run(monkeypatch, "--model", "ViT-none", *more) == 2
    assert "--model ViT-none: cannot be opened" in capsys.readouterr().err


def test_open_clips_parts_make_its_own_embedding():
    transformer = pytest.importorskip("open_clip.transformer")
    torch.manual_seed(0)
    visual = transformer.VisionTransformer(
        image_size=16, patch_size=4, width=24, layers=3, heads=2, mlp_ratio=2.0, output_dim=6
    ).eval()
    encoder = encoder_of_open_clip(visual)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        x = encoder.tower.patches(pixels).flatten(2).mT
        x = torch.cat((encoder.tower.class_embedding.expand(2, 1, -1), x), dim=1) + rescale_positions(
            encoder.tower.positions, 4, 4
        )
        x = encoder.tower.norm_before(x)
        for block in encoder.blocks:
            x = block(x)
        assert torch.allclose(encoder.project(encoder.tower.norm_after(x[:, 0])), encoder.embed(pixels), atol=1e-5)
        dense = dense_projected(encoder, dense_features(encoder.tower, torch.randn(1, 3, 32, 32)))
    assert dense.shape == (1, 6, 8, 8) and torch.allclose(dense.norm(dim=1), torch.ones(1, 8, 8), atol=1e-5)


def test_the_student_starts_as_the_teacher(tiny):
    _, model = tiny
    encoder = encoder_of_transformers(model)
    pixels = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(encoder.embed(pixels), model(pixel_values=pixels).image_embeds)
        dense = dense_projected(encoder, dense_features(encoder.tower, pixels))
    whole = region_vectors(dense[0], np.array([[0.0, 0, 1, 1]]))
    assert torch.allclose(whole[0], dense[0].mean((1, 2)), atol=1e-6)
