"""Translations against the schemas that a running ComfyUI serves. English is the schemas' own text, in no file."""

import json

import pytest

from tests.host.conftest import PACK_FOLDER, ROOT

LOCALES = sorted(folder.name for folder in (ROOT / "locales").iterdir() if folder.is_dir())
KNOWN_TO_THE_PAGE = {"ar", "es", "fr", "ja", "ko", "pt-BR", "ru", "tr", "zh", "zh-TW"}


def translated(locale: str) -> dict:
    return json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def served(comfy_server) -> dict:
    """Our nodes' schemas by id."""
    nodes = comfy_server.object_info().items()
    return {name: info for name, info in nodes if info["python_module"] == f"custom_nodes.{PACK_FOLDER}"}


def test_locales_are_languages_of_the_page():
    assert set(LOCALES) <= KNOWN_TO_THE_PAGE and LOCALES


@pytest.mark.parametrize("locale", LOCALES)
def test_a_translation_has_exactly_the_nodes_inputs_and_outputs_of_the_schemas(served, locale):
    words = translated(locale)
    assert set(words) == set(served)
    for node_id, info in served.items():
        inputs = {name for group in ("required", "optional") for name in info["input"].get(group, {})}
        assert set(words[node_id]["inputs"]) == inputs, node_id
        assert set(words[node_id]["outputs"]) == {str(slot) for slot in range(len(info["output"]))}, node_id


@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_is_there_and_is_not_the_english_one(served, locale):
    for node_id, node in translated(locale).items():
        info = served[node_id]
        english = {info["display_name"], info["description"], *info["output_tooltips"]}
        texts = [node["display_name"], node["description"]]
        texts += [slot["tooltip"] for part in ("inputs", "outputs") for slot in node[part].values()]
        assert all(text.strip() and text not in english for text in texts), node_id
        assert all(slot["name"].strip() for part in ("inputs", "outputs") for slot in node[part].values()), node_id


@pytest.mark.parametrize("locale", LOCALES)
def test_comfyui_serves_the_help_page(comfy_server, locale):
    page = comfy_server.get_bytes(f"/extensions/{PACK_FOLDER}/docs/RelateSubject/{locale}.md").decode()
    assert page.startswith(f"# {translated(locale)['RelateSubject']['display_name']}")


@pytest.mark.parametrize("locale", LOCALES)
def test_comfyui_serves_the_translation(comfy_server, locale):
    nodes = comfy_server.get("/i18n")[locale]["nodeDefs"]
    assert {name: nodes[name] for name in translated(locale)} == translated(locale)
