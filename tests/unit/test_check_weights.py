"""The command that checks published weights tells good files, faulty ones and other packs' apart."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint import save
from core.cross_attention_layers import PROJECTIONS, SDXL
from core.identity.model import IdentityConfig, IdentityModel
from core.identity.resampler import ResamplerConfig
from tests import check_weights


@pytest.fixture
def models(tmp_path):
    config = IdentityConfig(ResamplerConfig(16, 1, 64, 64, 2, 6, 10, 12, 5), (8, 16), 3)
    save(tmp_path / "relate" / "small.safetensors", IdentityModel(config).state_dict(), {"kind": "identity"})
    (tmp_path / "loras").mkdir()
    save_file({"some.other.weight": torch.zeros(1)}, tmp_path / "loras" / "other.safetensors")
    return tmp_path


def run(monkeypatch, capsys, models):
    monkeypatch.setattr(sys, "argv", ["check_weights", str(models)])
    with pytest.raises(SystemExit) as ended:
        check_weights.main()
    return ended.value.code, capsys.readouterr().out


def test_good_files_and_others(models, monkeypatch, capsys):
    code, out = run(monkeypatch, capsys, models)
    assert code == 0
    assert "small.safetensors: ok     identity model" in out and "sizes of its own" in out
    assert "no relation LoRA for SDXL: not checked" in out
    assert "clip_vision/: no files" in out and "2 files checked, 0 with faults" in out


def test_a_faulty_file_fails_the_check(models, monkeypatch, capsys):
    (models / "relate" / "ms_adapter.bin").write_bytes(b"PK\x03\x04 broken")
    code, out = run(monkeypatch, capsys, models)
    assert code == 1
    assert "ms_adapter.bin: FAULT  ms_adapter.bin: expected a whole file of tensors" in out


def test_nothing_to_check_is_no_success(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, capsys, tmp_path)[0] == 1


def lora(path, broken=None, suffix=".safetensors"):
    """A whole relation LoRA of rank 1 for SDXL, or one with a fault."""
    state = {}
    for site in SDXL.sites():
        for projection in PROJECTIONS:
            inner = SDXL.context_width if projection in ("to_k", "to_v") else site.width
            stem = "lora_unet_" + f"{site.diffusers}.{projection}".replace(".", "_")
            state[f"{stem}.lora_down.weight"] = torch.zeros(1, inner)
            state[f"{stem}.lora_up.weight"] = torch.zeros(site.width, 1)
    if broken == "half":
        del state[next(iter(state))]
    if broken == "NaN":
        state = {key: torch.full_like(value, float("nan")) for key, value in state.items()}
    path.parent.mkdir(exist_ok=True)
    save_file(state, path)
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:-100])


class Code:
    def __reduce__(self):
        return print, ("ran",)


def odd_files(models, config):
    """Files that broke a reader: each alone must not end the check of the others."""
    relate, loras, vision = (models / folder for folder in ("relate", "loras", "clip_vision"))
    vision.mkdir()
    weights = IdentityModel(config).state_dict()
    nested = {"image_proj": {}, "ms_adapter": {}, "dummy_image_tokens": torch.zeros(1, 3, 10)}
    for name, width in (("zero", "0"), ("negative", "-64"), ("word", "wide"), ("power", "\u00b2")):
        save(relate / f"{name}.safetensors", weights, {"kind": "identity", "head_width": width})
    torch.save({1: torch.zeros(1), 2: torch.zeros(1)}, relate / "int_keys.bin")
    torch.save({**nested, "image_proj": [torch.zeros(1)]}, relate / "list.bin")
    torch.save({**nested, "image_proj": {1: torch.zeros(1)}}, relate / "int_inside.bin")
    torch.save({**nested, "dummy_image_tokens": "text"}, relate / "text.bin")
    save_file({key: torch.tensor(1.0) for key in weights}, relate / "scalars.safetensors")
    save_file({key: value.to(torch.int8) for key, value in weights.items()}, relate / "int8.safetensors")
    torch.save({1: torch.zeros(1), "a.lora_down.weight": torch.zeros(1)}, loras / "int_keys.pt")
    torch.save({"state_dict": [1, 2]}, vision / "list.bin")
    save_file(
        {"visual.class_embedding": torch.tensor(1.0), "visual.transformer.resblocks.x.ln_1.weight": torch.zeros(2)},
        vision / "scalar.safetensors",
    )
    torch.save([1], vision / "no_dictionary.pt")
    return 4 + 6 + 1 + 3


def test_every_odd_file_has_its_own_line(models, monkeypatch, capsys):
    config = IdentityConfig(ResamplerConfig(16, 1, 64, 64, 2, 6, 10, 12, 5), (8, 16), 3)
    count = odd_files(models, config)
    lora(models / "loras" / "whole.safetensors")
    for fault in ("half", "NaN", "cut"):
        lora(models / "loras" / f"{fault}.safetensors", fault)
    torch.save({"x": Code()}, models / "loras" / "code.pt")
    code, out = run(monkeypatch, capsys, models)
    lines = out.splitlines()
    assert code == 1 and "ran" not in lines and "Traceback" not in out
    assert len(lines) == count + 2 + 5 + 1  # one for each file, and the sum
    assert "whole.safetensors: ok     LoRA, 280 of 280 pairs at 70 of 70 sites" in out
    assert "half.safetensors: FAULT  half.safetensors: 1 of 280 pairs have only one half" in out
    assert "NaN.safetensors: FAULT  NaN.safetensors: 560 of 560 tensors hold NaN or infinity" in out
    assert "cut.safetensors: FAULT  cut.safetensors: expected a whole file of tensors" in out
    assert "code.pt: FAULT  code.pt: expected tensors only, but this file wants to run code" in out
    assert "cannot be judged" not in out  # every reader says itself what is wrong
    assert "negative.safetensors: FAULT  negative.safetensors: expected the metadata's head_width to be a whole" in out


def test_files_are_judged_by_what_they_hold(tmp_path, monkeypatch, capsys):
    loras = tmp_path / "loras"
    for name in ("a.sft", "b.SAFETENSORS", "no_ending", "c.bin"):
        lora(loras / name)
    pair = {"a.lora_down.weight": torch.zeros(1, 2), "a.lora_up.weight": torch.zeros(2, 1)}
    torch.save(pair, loras / "d.safetensors")
    (loras / "README.md").write_text("# notes")
    (loras / ".gitattributes").write_text("*.bin filter=lfs")
    (loras / ".cache").mkdir()
    (loras / ".cache" / "x.safetensors").write_bytes(b"")
    (loras / "folder.safetensors").mkdir()
    code, out = run(monkeypatch, capsys, tmp_path)
    assert code == 0 and "5 files checked, 0 with faults" in out
    for name in ("a.sft", "b.SAFETENSORS", "no_ending", "c.bin"):
        assert f"loras/{name}: ok     LoRA, 280 of 280 pairs" in out
    assert "loras/d.safetensors: ok     no relation LoRA for SDXL: not checked (d.safetensors: 0 of 70" in out
    assert "loras/README.md: -      no file of tensors: not checked" in out
    assert ".gitattributes" not in out and ".cache" not in out and "folder" not in out


def test_dreamos_embeddings_are_no_broken_identity_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "relate").mkdir()
    save_file(
        {"dreamo_task_embedding.weight": torch.zeros(2, 4), "dreamo_idx_embedding.weight": torch.zeros(10, 4)},
        tmp_path / "relate" / "embedding.safetensors",
    )
    code, out = run(monkeypatch, capsys, tmp_path)
    assert code == 0 and "embedding.safetensors: ok     DreamO's embeddings, without those of its placeholders" in out
