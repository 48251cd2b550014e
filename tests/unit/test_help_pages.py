"""Help pages in every language that the nodes speak."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("write_help_pages", ROOT / "scripts" / "write_help_pages.py")
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)
LOCALES = sorted(folder.name for folder in (ROOT / "locales").iterdir() if folder.is_dir())


def test_every_language_of_the_nodes_has_its_words_for_help_pages():
    assert sorted(pages.WORDS) == LOCALES


@pytest.mark.parametrize("locale", LOCALES)
def test_help_pages_are_those_of_the_translations(locale):
    nodes = pages.translations(locale)
    assert set(nodes) == {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    for node_id in nodes:
        path = ROOT / "web" / "docs" / node_id / f"{locale}.md"
        assert path.read_text(encoding="utf-8") == pages.help_page(locale, node_id), (
            f"{path.name} of {node_id} is not what locales/{locale} says: run python scripts/write_help_pages.py"
        )
