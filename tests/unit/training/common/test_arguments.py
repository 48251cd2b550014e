"""Values of command lines: checked when they are read, by every command."""

import argparse
import ast
from pathlib import Path

import pytest
import torch

from training.common import arguments as of_type

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (of_type.path, "", "expected a path, got nothing"),
        (of_type.path, "x" * 300, "a name of 300 bytes"),
        (of_type.path, "a\nb", "control character"),
        (of_type.whole(), "0", "expected a whole number from 1"),
        (of_type.whole(0, 9), "10", "expected a whole number from 0 to 9, got 10"),
        (of_type.whole(), "1.5", "got 1.5"),
        (of_type.whole(), "", "expected a whole number"),
        (of_type.whole(), "9" * 5000, "expected a whole number"),
        (of_type.positive, "nan", "got nan"),
        (of_type.positive, "inf", "got inf"),
        (of_type.positive, "0", "got 0"),
        (of_type.positive, "much", "got much"),
        (of_type.device, "gpu", "expected cpu, cuda, cuda:1 or mps, got gpu"),
        (of_type.device, "cuda:99", "this machine has no cuda:99; it has 1 x cpu"),
        (of_type.device, "xpu", "has no xpu"),
        (of_type.device_or_auto, "gpu", "got gpu"),
    ],
)
def test_wrong_values_are_named(read, text, expected):
    with pytest.raises(argparse.ArgumentTypeError) as report:
        read(text)
    assert expected in str(report.value)


def test_right_values(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert of_type.path("~/a") == Path("/home/me/a")
    assert (of_type.whole(0)("0"), of_type.positive("1e-5"), of_type.device("cpu")) == (0, 1e-5, "cpu")
    assert of_type.device_or_auto("auto") == "auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert of_type.device("cuda:1") == "cuda:1"


def test_every_command_reads_paths_and_devices_so():
    """`type=Path` would leave `~` as it is, and let a name too long fail where it is written."""
    found = []
    for path in sorted((ROOT / "training").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            kinds = [
                keyword.value.id
                for keyword in node.keywords
                if keyword.arg == "type" and isinstance(keyword.value, ast.Name)
            ]
            device = any(isinstance(value, ast.Constant) and value.value == "--device" for value in node.args)
            if "Path" in kinds or device and "type" not in [keyword.arg for keyword in node.keywords]:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
