"""The stable surface that needs neither training's libraries nor a ComfyUI: settings, and the models that ship."""

import json

import pytest
import tomllib

from tests.surface import ROOT, content_of, digest_of, keys_of, lost, pinned
from training.config import load_config
from training.config.subject import load_subject_config

SUBJECTS = '[data]\nfolder = "d"\n[models]\nbase = "b"\nclip_vision = "v"\n[output]\nfolder = "o"\n'
SMALLEST = 'relation = "hugging"\n[data]\nfolder = "d"\n[models]\nbase = "b"\n[output]\nfolder = "o"\n'


def value_of(config, key):
    for name in key.split("."):
        config = getattr(config, name)
    return config


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "smallest.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    return path


def test_a_toml_with_the_asked_keys_only_is_enough_and_the_defaults_are_the_same(smallest):
    config = load_config(smallest)
    assert lost(pinned("settings"), {key: value_of(config, key) for key in pinned("settings")}) == []


@pytest.mark.parametrize("preset", pinned("presets"))
def test_presets_stay_and_their_keys_with_them(preset):
    path = ROOT / "training" / "configs" / preset
    assert lost(pinned("presets")[preset], keys_of(tomllib.loads(path.read_text(encoding="utf-8")))) == []
    assert load_config(path).relation


@pytest.mark.parametrize("key", [key for key, value in pinned("settings").items() if "." in key])
def test_every_key_can_be_set_in_the_file_and_from_the_command_line(smallest, key):
    """To the value it has: each key is known to the reader under its table."""
    value = pinned("settings")[key]
    text = json.dumps(value)  # strings, numbers, true and false are spelled so in TOML too
    assert value_of(load_config(smallest, [f"{key}={text}"]), key) == value
    table, name = key.split(".")
    if f"[{table}]" not in SMALLEST:
        smallest.write_text(f"{SMALLEST}[{table}]\n{name} = {text}\n", encoding="utf-8")
        assert value_of(load_config(smallest), key) == value


def test_settings_of_subject_adapters_keep_their_names_and_defaults(tmp_path):
    path = tmp_path / "smallest.toml"
    path.write_text(SUBJECTS, encoding="utf-8")
    config = load_subject_config(path)
    assert lost(pinned("subject settings"), {key: value_of(config, key) for key in pinned("subject settings")}) == []
    overrides = [f"{key}={json.dumps(value)}" for key, value in pinned("subject settings").items()]
    assert load_subject_config(path, overrides) == config


@pytest.mark.parametrize("preset", pinned("subject presets"))
def test_presets_of_subject_adapters_stay_and_their_keys_with_them(preset):
    path = ROOT / "training" / "configs" / preset
    assert lost(pinned("subject presets")[preset], keys_of(tomllib.loads(path.read_text(encoding="utf-8")))) == []
    assert load_subject_config(path).output.name


@pytest.mark.parametrize("name", pinned("models"))
def test_files_of_the_shipped_models_keep_their_keys(name):
    content = content_of(ROOT / "models" / "miniworld" / name)
    assert lost(pinned("models")[name], digest_of(content) if name.endswith(".safetensors") else content) == []
