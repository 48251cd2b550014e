"""Every test, the host groups once for each ComfyUI in COMFYUI_PATH: python -m tests.each_host [pytest arguments]

This is `make test`. Each ComfyUI is tested in an environment of its own; the last lines say which result is whose.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.host.comfyui import find_comfyuis
from tests.host.environments import layer

NOTHING_COLLECTED = 5  # pytest's exit status
PER_HOST = "host,browser"


def run(python: Path, comfyui: Path, groups: str, summary: Path, arguments: list[str]) -> int:
    """Run pytest on one ComfyUI; its last lines are added to `summary`."""
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui), "TEST_GROUPS": groups, "TEST_SUMMARY": str(summary)}
    return subprocess.run([python, "-m", "pytest", *arguments], env=environment).returncode


def main() -> int:
    arguments = sys.argv[1:]
    try:
        comfyuis = find_comfyuis()
    except FileNotFoundError as error:
        sys.exit(str(error))
    if len(comfyuis) < 2:
        return subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.txt"
        codes = [run(Path(sys.executable), comfyuis[0], "", summary, arguments)]
        for number, comfyui in enumerate(comfyuis[1:], 2):
            codes.append(run(layer(number, comfyui), comfyui, PER_HOST, summary, arguments))
        sys.stdout.write(f"\nOn {len(comfyuis)} ComfyUIs:\n{summary.read_text(encoding='utf-8')}")
    ran = [code for code in codes if code != NOTHING_COLLECTED]
    return max(ran, default=NOTHING_COLLECTED)


if __name__ == "__main__":
    raise SystemExit(main())
