"""The recipe's settings: presets read, every fault of a file in one report."""

from pathlib import Path

import pytest

from training.common.errors import UserErrors
from training.config import load_config
from training.engine.flux.stages import stage_at

PRESETS = sorted(Path("training/configs").glob("relation_*.toml"))


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('relation = "hugging"\n[data]\nfolder = "d"\n[models]\nbase = "b"\n[output]\nfolder = "out"\n')
    return path


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_whole_and_open_with_their_command(preset):
    config = load_config(preset)
    assert preset.read_text().splitlines()[0] == f"# python -m training.finetune training/configs/{preset.name}"
    assert config.lora_file.name == "hugging.safetensors"


def test_only_one_preset_has_the_released_error():
    sdxl = {preset.stem: load_config(preset) for preset in PRESETS}
    forms = {name: config.loss.keypoint_form for name, config in sdxl.items() if config.architecture == "sdxl"}
    assert {name for name, form in forms.items() if form == "as_released"} == {"relation_sdxl_as_released"}
    assert load_config(PRESETS[0].parent / "relation_sdxl_as_released.toml").data.match_skeletons is False


@pytest.mark.parametrize("value", ["Flux", "[1]"])
def test_another_architecture_names_both_that_there_are(smallest, value):
    with pytest.raises(UserErrors) as error:
        load_config(smallest, [f"architecture={value}", "flow.shift=3"])
    (message,) = error.value.messages
    assert "architecture: expected sdxl or flux, got " in message


def test_dreamos_stages_are_a_config():
    """The paper's three: side by side, everything, and last nearly no reference left and the velocity's loss alone."""
    config = load_config("training/configs/dreamo_miniworld.toml")
    assert sum(stage.steps for stage in config.stages) == config.train.steps
    first, last = stage_at(config, 0), stage_at(config, config.train.steps - 1)
    assert (first.columns, first.weights["routing"], first.weights["placeholder"]) == (0.5, 1.0, 0.1)
    assert (last.token_share, last.weights["routing"], last.weights["placeholder"]) == (0.05, 0.0, 0.0)
    assert stage_at(config, 400).shares == (0.7, 0.3) and len(config.folders()) == 2


def test_defaults_and_overrides(smallest):
    config = load_config(smallest, ["train.steps=7", "data.fit=pad", "train.lr=1", "lora.rank = 8"])
    assert (config.train.steps, config.data.fit, config.train.lr, config.lora.rank) == (7, "pad", 1.0, 8)
    assert config.train.batch_size == 8


def test_every_fault_is_in_one_report(smallest):
    smallest.write_text(smallest.read_text() + 'nmae = "x"\n[train]\nsteps = 1.5\noptimizer = "sgd"\nlr = -1\n')
    with pytest.raises(UserErrors) as report:
        load_config(smallest, ["models.base=3", "oops"])
    text = str(report.value)
    assert len(report.value.messages) == 6
    assert text.startswith("6 faults:")
    for part in (
        "output.nmae: unknown key. Did you mean output.name?",
        "train.steps: expected a whole number, got 1.5",
        "train.optimizer: expected one of adamw, adamw_8bit, got 'sgd'",
        "train.lr: expected at least 0, got -1",
        "models.base: expected a string, got 3",
        "--set oops: expected table.key=value",
    ):
        assert part in text


def test_missing_keys_are_asked_for(tmp_path):
    (tmp_path / "c.toml").write_text("")
    with pytest.raises(UserErrors) as report:
        load_config(tmp_path / "c.toml")
    keys = [fault.split(": ")[1] for fault in report.value.messages]
    assert keys == ["relation", "data.folder", "models.base", "output.folder"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.image_px=100", "data.image_px: expected a multiple of 8"),
        ("models.identity=x", "models.clip_vision: the identity model reads photographs"),
        ("models.clip_vision=x", "models.clip_vision: has no use without models.identity"),
        ("train.micro_batch=3", "batch_size 8 is not a multiple of 3"),
        ("train.warmup_steps=500", "leaves nothing of 500 steps"),
        ("relation=' '", "relation: expected the predicate"),
    ],
)
def test_contradictions(smallest, override, expected):
    with pytest.raises(UserErrors, match=expected):
        load_config(smallest, [override])


def test_min_snr_has_no_meaning_for_flow(smallest):
    with pytest.raises(UserErrors, match="min-SNR weights are for epsilon and v"):
        load_config(smallest, ["loss.min_snr_gamma=5", "loss.prediction=flow"])


@pytest.mark.parametrize(("text", "expected"), [("a = [", "not TOML"), ("data = 3", "data: expected a table")])
def test_broken_files(tmp_path, text, expected):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UserErrors, match=expected):
        load_config(tmp_path / "c.toml")
    with pytest.raises(UserErrors, match="cannot be read"):
        load_config(tmp_path / "absent.toml")


def test_the_decisive_settings_are_what_changes_the_result(smallest):
    plain = load_config(smallest).decisive()
    assert load_config(smallest, ["output.folder=elsewhere", "samples.every=5", "train.device=cpu"]).decisive() == plain
    assert load_config(smallest, ["train.lr=2e-4"]).decisive() != plain
