"""Where ComfyUI lives on this machine, and which groups of tests can run here. Standard library only.

`python tests/host/comfyui.py` prints ComfyUI's folder, or nothing: the Makefile asks it before anything is installed.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import sys
from pathlib import Path

# One name a requirement whose absence keeps ComfyUI 0.3.64 and later from starting.
NEEDED_BY_COMFYUI = (
    "aiohttp",
    "alembic",
    "av",
    "comfyui_frontend_package",
    "einops",
    "safetensors",
    "scipy",
    "sqlalchemy",
    "torchsde",
    "torchvision",
    "transformers",
    "yaml",
)
NEEDED_BY_TRAINING = ("accelerate", "diffusers", "peft", "transformers")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _comfy_cli_workspace() -> str | None:
    """The default workspace in comfy-cli's own settings file, when the developer has set one."""
    folder = {"win32": "AppData/Local", "darwin": "Library/Application Support"}.get(sys.platform, ".config")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(Path.home() / folder / "comfy-cli" / "config.ini", encoding="utf-8")
    return settings.defaults().get("default_workspace")


def find_comfyui() -> Path | None:
    """ComfyUI's folder: COMFYUI_PATH (even if wrong: then an error), else comfy-cli's default workspaces, else None.

    Raises:
        FileNotFoundError: COMFYUI_PATH is set and holds no ComfyUI.
    """
    asked = os.environ.get("COMFYUI_PATH")
    if asked:
        if not _is_comfyui(Path(asked)):
            raise FileNotFoundError(f"COMFYUI_PATH={asked}: expected a folder with main.py and comfy/, found none")
        return Path(asked).resolve()
    documents = Path.home() if sys.platform.startswith("linux") else Path.home() / "Documents"
    places = [_comfy_cli_workspace(), documents / "comfy" / "ComfyUI"]
    return next((Path(place).resolve() for place in places if place and _is_comfyui(Path(place))), None)


def _is_comfyui(folder: Path) -> bool:
    return all((folder / part).exists() for part in ("main.py", "nodes.py", "comfy/cli_args.py"))


def find_browser() -> str | None:
    """The path of a Chromium or Chrome on this machine: CHROMIUM_PATH, else the first one on PATH."""
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def why_not() -> dict[str, str]:
    """For each group of tests that cannot run here, what would enable it. Empty when all four run."""
    reasons = {}
    if lacking := _missing(NEEDED_BY_TRAINING):
        reasons["recipe"] = f"pip install -e '.[test]' (missing here: {', '.join(lacking)})"
    comfyui = find_comfyui()
    if comfyui is None:
        reasons["host"] = "no ComfyUI here: `comfy install`, or set COMFYUI_PATH to its folder"
    elif lacking := _missing(NEEDED_BY_COMFYUI):
        reasons["host"] = f"pip install -r {comfyui / 'requirements.txt'} (missing here: {', '.join(lacking)})"
    if "host" in reasons:
        reasons["browser"] = "needs what the host group needs"
    elif find_browser() is None:
        reasons["browser"] = "no Chromium here; install one or set CHROMIUM_PATH"
    elif _missing(("playwright",)):
        reasons["browser"] = "pip install playwright (no browser download is needed)"
    return reasons


if __name__ == "__main__":
    try:
        sys.stdout.write(str(find_comfyui() or ""))
    except FileNotFoundError as error:
        sys.exit(str(error))
