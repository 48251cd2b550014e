"""The benches that README prints: their imports hold, whatever has been renamed since they were last run."""

import importlib

import pytest

from tests.surface import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "tests" / "bench").glob("[a-z]*.py")))
def test_a_bench_imports_what_is_there(name):
    importlib.import_module(f"tests.bench.{name}")
