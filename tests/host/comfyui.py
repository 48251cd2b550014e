"""Where ComfyUI lives on this machine, and which groups of tests can run here. Standard library only.

`python tests/host/comfyui.py` prints the folder of the first ComfyUI, or nothing: the Makefile asks it before anything
is installed. COMFYUI_PATH may name several, as PATH does; `make test` runs the host groups once for each of them.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

# Distributions without which one ComfyUI or another does not start, tried one by one on 0.3.64 and 0.33.0. Which of
# them a ComfyUI needs, its own requirements.txt says.
NEEDED_TO_START = (
    "aiohttp",
    "alembic",
    "av",
    "blake3",
    "comfy-aimdo",
    "comfy-kitchen",
    "comfyui-frontend-package",
    "einops",
    "filelock",
    "pyyaml",
    "requests",
    "safetensors",
    "scipy",
    "sqlalchemy",
    "torchaudio",
    "torchsde",
    "torchvision",
    "transformers",
)
NEEDED_BY_TRAINING = ("accelerate", "diffusers", "peft", "transformers")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _comfy_cli_workspace() -> str | None:
    """The default workspace in comfy-cli's own settings file, when the developer has set one."""
    folder = {"win32": "AppData/Local", "darwin": "Library/Application Support"}.get(sys.platform, ".config")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(Path.home() / folder / "comfy-cli" / "config.ini", encoding="utf-8")
    return settings.defaults().get("default_workspace")


def find_comfyuis() -> list[Path]:
    """Folders of the ComfyUIs to test on: those of COMFYUI_PATH, else comfy-cli's default workspace, else none.

    Raises:
        FileNotFoundError: a folder in COMFYUI_PATH holds no ComfyUI.
    """
    asked = [Path(place) for place in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if place]
    for place in asked:
        if not _is_comfyui(place):
            raise FileNotFoundError(f"COMFYUI_PATH={place}: expected a folder with main.py and comfy/, found none")
    if not asked:
        documents = Path.home() if sys.platform.startswith("linux") else Path.home() / "Documents"
        places = [_comfy_cli_workspace(), documents / "comfy" / "ComfyUI"]
        asked = [Path(place) for place in places if place and _is_comfyui(Path(place))][:1]
    return [place.resolve() for place in asked]


def find_comfyui() -> Path | None:
    """The one ComfyUI of this process, or None.

    Raises:
        FileNotFoundError: a folder in COMFYUI_PATH holds no ComfyUI, or it names several: a process can import one.
    """
    found = find_comfyuis()
    if len(found) > 1:
        raise FileNotFoundError(
            f"COMFYUI_PATH names {len(found)} ComfyUIs, expected one: each needs an environment of "
            "its own. `make test` makes them and runs the host tests once for each."
        )
    return found[0] if found else None


def _is_comfyui(folder: Path) -> bool:
    return all((folder / part).exists() for part in ("main.py", "nodes.py", "comfy/cli_args.py"))


def find_browser() -> str | None:
    """The path of a Chromium or Chrome on this machine: CHROMIUM_PATH, else the first one on PATH."""
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def version(comfyui: Path) -> str:
    """A ComfyUI's version, as it says it itself."""
    text = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "([^"]+)"', text).group(1)


def requirements(comfyui: Path) -> dict[str, str]:
    """Distribution names of a ComfyUI's requirements.txt in lower case, each with its condition, e.g. `==1.49.6`."""
    lines = (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
    matches = [re.match(r"([A-Za-z0-9_.-]+)\s*([^#;]*)", line) for line in lines]
    return {match[1].lower().replace("_", "-"): match[2].strip() for match in matches if match}


def _needs(comfyui: Path, name: str) -> bool:
    """Whether this ComfyUI does not start without a distribution. All list torchaudio, older ones do without."""
    if name != "torchaudio":
        return name in requirements(comfyui)
    encoders = (comfyui / "comfy" / "text_encoders").glob("*.py")
    return any(re.search(r"^(import|from) torchaudio", file.read_text(encoding="utf-8"), re.M) for file in encoders)


def _installed(name: str) -> str | None:
    """The version of a distribution in this environment."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing_requirements(comfyui: Path) -> list[str]:
    """What keeps this ComfyUI from starting in this environment."""
    return [name for name in NEEDED_TO_START if _needs(comfyui, name) and _installed(name) is None]


def other_versions(comfyui: Path) -> list[str]:
    """What is installed in another version than this ComfyUI pins, e.g. the frontend of another ComfyUI."""
    pinned = {name: condition[2:] for name, condition in requirements(comfyui).items() if condition.startswith("==")}
    here = {name: _installed(name) for name in pinned}
    return [f"{name} {here[name]}, not {wanted}" for name, wanted in pinned.items() if here[name] not in (wanted, None)]


def why_not() -> dict[str, str]:
    """For each group of tests that cannot run here, what would enable it. Empty when all four run."""
    reasons = {}
    if lacking := _missing(NEEDED_BY_TRAINING):
        reasons["recipe"] = f"pip install -e '.[test]' (missing here: {', '.join(lacking)})"
    comfyui = find_comfyui()
    if comfyui is None:
        reasons["host"] = "no ComfyUI here: `comfy install`, or set COMFYUI_PATH to its folder"
    elif lacking := missing_requirements(comfyui):
        how = f"pip install -r {comfyui / 'requirements.txt'}"
        if lacking == ["torchaudio"]:
            how = "pip install --no-deps torchaudio, one that your torch can load"
        reasons["host"] = f"{how} (missing here: {', '.join(lacking)})"
    if "host" in reasons:
        reasons["browser"] = "needs what the host group needs"
    elif find_browser() is None:
        reasons["browser"] = "no Chromium here; install one or set CHROMIUM_PATH"
    elif _missing(("playwright",)):
        reasons["browser"] = "pip install playwright (no browser download is needed)"
    return reasons


if __name__ == "__main__":
    try:
        sys.stdout.write(str(next(iter(find_comfyuis()), "")))
    except FileNotFoundError as error:
        sys.exit(str(error))
