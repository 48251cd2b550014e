"""Which groups run on this machine, said in the last lines; the groups that cannot run are not even imported.

Two variables let `tests.each_host` run the groups once for each ComfyUI: TEST_GROUPS, the groups to run (all, if it is
empty), and TEST_SUMMARY, a file to which the last lines are added.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.comfyui import find_comfyui, other_versions, version, why_not

# On tensors this small threads only wait for each other: 20 times slower when the machine is busy. Before torch comes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).parent
GROUPS = ("unit", "recipe", "host", "browser")
ASKED = [group for group in GROUPS if group in os.environ.get("TEST_GROUPS", "").split(",")] or list(GROUPS)


def _group_of(path: Path) -> str:
    """The group a test file belongs to: its folder, except that browser tests live in host/ (same server)."""
    if path.name.startswith("test_browser"):
        return "browser"
    folder = path.relative_to(TESTS).parts[0]
    return folder if folder in GROUPS else "unit"


LACKING = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Find out once what this machine lacks; a wrong COMFYUI_PATH ends the run with that one message."""
    try:
        config.stash[LACKING] = why_not()
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files of a group that is not asked for, or cannot run here: their imports would fail."""
    if collection_path.suffix == ".py" and TESTS in collection_path.parents:
        group = _group_of(collection_path)
        return True if group in config.stash[LACKING] or group not in ASKED else None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark by folder, so that `pytest -m host` and `-m browser` select without a mark in each file.

    Files named on the command line are never ignored; tests of a group that is not asked for are left out here.
    """
    groups = [_group_of(item.path) if TESTS in item.path.parents else "unit" for item in items]
    for item, group in zip(items, groups):
        if group in ("host", "browser"):
            item.add_marker(group)
    left_out = [item for item, group in zip(items, groups) if group not in ASKED]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, group in zip(items, groups) if group in ASKED]


def pytest_unconfigure(config: pytest.Config) -> None:
    """The very last lines, one a group: how many of its tests ran and on what, or what would enable it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or LACKING not in config.stash or config.option.collectonly or hasattr(config, "workerinput"):
        return
    lacking = config.stash[LACKING]
    passed, failed, left_out = (_count(config, reporter, outcomes) for outcomes in (("passed",), ("failed", "error"),
                                                                                   ("skipped",)))  # fmt: skip
    lines = []
    for group in ASKED:
        state = f"{passed[group] + failed[group]} tests ran"
        state += f", {failed[group]} FAILED" if failed[group] else ""
        state += f", {left_out[group]} skipped (why: above)" if left_out[group] else ""
        state += _where() if group in ("host", "browser") and group not in lacking else ""
        lines.append(f"{group:8} {f'SKIPPED. To enable: {lacking[group]}' if group in lacking else state}")
    for line in lines:
        reporter.write_line(line)
    if summary := os.environ.get("TEST_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def _where() -> str:
    """Which ComfyUI the tests ran on, and what it asks for in another version than is installed."""
    comfyui = find_comfyui()
    others = other_versions(comfyui)
    return f" on ComfyUI {version(comfyui)}" + (f" (beside {'; '.join(others)})" if others else "")


def _count(config: pytest.Config, reporter, outcomes: tuple[str, ...]) -> dict[str, int]:
    """How many tests of each group ended so."""
    counts = dict.fromkeys(GROUPS, 0)
    for report in (report for outcome in outcomes for report in reporter.stats.get(outcome, [])):
        counts[_group_of(config.rootpath / report.nodeid.split("::")[0])] += 1
    return counts
