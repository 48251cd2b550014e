"""The command that checks published weights tells good files, faulty ones and other packs' apart."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint import save
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
