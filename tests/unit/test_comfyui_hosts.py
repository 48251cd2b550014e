"""The test bed for several ComfyUIs: which are found, what each needs, and what the last lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest, each_host
from tests.host import comfyui, environments

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def comfyuis(tmp_path, monkeypatch):
    """Two folders that look like ComfyUIs, an older and a newer one, in COMFYUI_PATH."""
    for name, wanted, encoder in (
        ("old", "einops\ntorchaudio\n", ""),
        ("new", "einops\ntorchaudio\nabsent_package==1.2  # why\n", "import torchaudio\n"),
    ):
        for file, text in (
            ("main.py", ""),
            ("nodes.py", ""),
            ("comfy/cli_args.py", ""),
            ("requirements.txt", wanted),
            ("comfyui_version.py", f'__version__ = "{name}"\n'),
            ("comfy/text_encoders/a.py", encoder),
        ):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    folders = [tmp_path / "old", tmp_path / "new"]
    monkeypatch.setenv("COMFYUI_PATH", os.pathsep.join(map(str, folders)))
    return folders


def test_every_comfyui_of_the_path_is_found_in_order(comfyuis):
    assert comfyui.find_comfyuis() == comfyuis
    assert [comfyui.version(folder) for folder in comfyuis] == ["old", "new"]


def test_one_process_takes_one_comfyui(comfyuis, monkeypatch):
    with pytest.raises(FileNotFoundError, match="names 2 ComfyUIs.*make test"):
        comfyui.find_comfyui()
    monkeypatch.setenv("COMFYUI_PATH", str(comfyuis[1]))
    assert comfyui.find_comfyui() == comfyuis[1]


def test_a_folder_without_a_comfyui_is_named(comfyuis, monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", f"{comfyuis[0]}{os.pathsep}{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        comfyui.find_comfyuis()


def test_what_a_comfyui_needs_is_what_it_lists_and_imports(comfyuis, monkeypatch):
    """Both list torchaudio, only the newer one imports it at its start."""
    monkeypatch.setattr(comfyui, "_installed", lambda name: "1.0" if name == "absent-package" else None)
    assert comfyui.missing_requirements(comfyuis[0]) == ["einops"]
    assert comfyui.missing_requirements(comfyuis[1]) == ["einops", "torchaudio"]
    assert comfyui.other_versions(comfyuis[1]) == ["absent-package 1.0, not 1.2"]


def test_torchaudio_is_left_to_its_own_step(comfyuis):
    assert environments._without_torchaudio(comfyuis[0]) == "einops\n"


def test_each_comfyui_gets_a_run_and_the_last_lines_of_all(comfyuis, monkeypatch, capsys):
    runs = []

    def run(python, folder, groups, summary, arguments):
        runs.append((python, folder.name, groups, arguments))
        with summary.open("a", encoding="utf-8") as file:
            file.write(f"host 1 tests ran on ComfyUI {folder.name}\n")
        return len(runs) - 1

    monkeypatch.setattr(each_host, "run", run)
    monkeypatch.setattr(each_host, "layer", lambda number, folder: Path(f"python-{number}"))
    monkeypatch.setattr("sys.argv", ["each_host", "-q"])
    assert each_host.main() == 1  # the second one failed
    assert runs == [(Path(sys.executable), "old", "", ["-q"]), (Path("python-2"), "new", "host,browser", ["-q"])]
    assert capsys.readouterr().out.endswith(
        "On 2 ComfyUIs:\nhost 1 tests ran on ComfyUI old\nhost 1 tests ran on ComfyUI new\n"
    )


def test_files_of_other_groups_are_not_imported(monkeypatch):
    monkeypatch.setattr(conftest, "ASKED", ["host", "browser"])
    config = SimpleNamespace(stash={conftest.LACKING: {"browser": "no Chromium"}})
    ignored = {
        place: conftest.pytest_ignore_collect(ROOT / "tests" / place, config)
        for place in ("unit/test_sites.py", "recipe/test_finetune.py", "host/test_graphs.py", "host/test_browser.py")
    }
    assert [bool(answer) for answer in ignored.values()] == [True, True, False, True]


def test_the_last_lines_tell_of_the_groups_asked_for_and_go_to_a_file_as_well(tmp_path):
    """A run of its own without a ComfyUI."""
    summary = tmp_path / "summary.txt"
    environment = {
        **os.environ,
        "COMFYUI_PATH": "",
        "HOME": str(tmp_path),
        "TEST_GROUPS": "unit,host",
        "TEST_SUMMARY": str(summary),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/unit/core/test_cross_attention_layers.py",
    ]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = summary.read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == ["unit", "host"]
    assert lines[0].endswith(" tests ran") and "COMFYUI_PATH" in lines[1]
    assert run.stdout.splitlines()[-2:] == lines
