"""Which groups run on this machine, said in the last lines; the groups that cannot run are not even imported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.comfyui import why_not

# On tensors this small threads only wait for each other: 20 times slower when the machine is busy. Before torch comes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
GROUPS = ("unit", "recipe", "host", "browser")


def _group_of(path: Path) -> str:
    """The group a test file belongs to: its folder, except that browser tests live in host/ (same server)."""
    if path.name.startswith("test_browser"):
        return "browser"
    folder = path.relative_to(TESTS).parts[0]
    return folder if folder in GROUPS else "unit"


def _lacking(config: pytest.Config) -> dict[str, str]:
    if not hasattr(config, "relate_lacking"):
        config.relate_lacking = why_not()
    return config.relate_lacking


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files of a group that cannot run here: their imports (comfy, diffusers) would fail."""
    if collection_path.suffix == ".py" and TESTS in collection_path.parents:
        return True if _group_of(collection_path) in _lacking(config) else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that `pytest -m host` and `-m browser` select without a mark in each file."""
    for item in items:
        group = _group_of(item.path) if TESTS in item.path.parents else "unit"
        if group in ("host", "browser"):
            item.add_marker(group)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The very last lines, one a group: how many of its tests ran, or what would enable it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly or hasattr(config, "workerinput"):
        return
    lacking, counts = _lacking(config), dict.fromkeys(GROUPS, 0)
    ran = [report for outcome in ("passed", "failed") for report in reporter.stats.get(outcome, [])]
    for report in ran:
        counts[_group_of(config.rootpath / report.nodeid.split("::")[0])] += 1
    for group in GROUPS:
        state = f"SKIPPED. To enable: {lacking[group]}" if group in lacking else f"{counts[group]} tests ran"
        reporter.write_line(f"{group:8} {state}")
