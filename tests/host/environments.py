"""An environment for each ComfyUI: the first in make's own, every further one in a layer above it. Standard library.

Two ComfyUIs pin different frontends, so one environment cannot hold both. A layer is a venv that sees everything of the
first one (torch among it) and holds what its ComfyUI asks for in other versions. `python -m tests.host.environments`
adds to the running environment what the Makefile cannot: torchaudio.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.host.comfyui import find_comfyuis, requirements

PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


def layer(number: int, comfyui: Path) -> Path:
    """The Python of the environment of the `number`th ComfyUI (from 2), made or brought up to date if need be.

    Raises:
        subprocess.CalledProcessError: pip could not install what the ComfyUI asks for.
    """
    folder = Path(sys.prefix).with_name(f"{Path(sys.prefix).name}-{number}")
    python = folder / Path(sys.executable).relative_to(sys.prefix)
    if not python.exists():
        venv.create(folder, with_pip=True)
        own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        own.joinpath("make.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    wanted = folder / "comfyui-requirements.txt"
    text = _without_torchaudio(comfyui)
    if not wanted.exists() or wanted.read_text(encoding="utf-8") != text:
        request = folder / "asked.txt"
        request.write_text(text, encoding="utf-8")
        subprocess.run([python, *PIP, "install", "-q", "-r", request], check=True)
        add_torchaudio(python, comfyui)
        request.replace(wanted)  # the stamp: only what was installed is not asked for again
    return python


def _without_torchaudio(comfyui: Path) -> str:
    lines = (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not re.match("torchaudio", line))


def add_torchaudio(python: Path, comfyui: Path) -> None:
    """Install torchaudio if this ComfyUI lists it and torch can load it.

    Newer ComfyUIs import it at their start. pip would choose torch by it, so it goes without its dependencies; one that
    is built for another torch breaks transformers, so it stays only if it can be imported.
    """
    if "torchaudio" not in requirements(comfyui) or _imports(python):
        return
    subprocess.run([python, *PIP, "install", "-q", "--no-deps", "torchaudio"], check=True)
    if not _imports(python):
        subprocess.run([python, *PIP, "uninstall", "-q", "-y", "torchaudio"], check=True)
        sys.stdout.write("torchaudio: none that this torch can load; a ComfyUI that needs it will be left out.\n")


def _imports(python: Path) -> bool:
    return subprocess.run([python, "-c", "import torchaudio"], stderr=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    for _comfyui in find_comfyuis()[:1]:
        add_torchaudio(Path(sys.executable), _comfyui)
