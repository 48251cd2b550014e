"""The settings of training.subject: presets read, defaults, every fault of a file in one report."""

from pathlib import Path

import pytest

from training.common.errors import UserErrors
from training.config.subject import load_subject_config

PRESETS = sorted(Path("training/configs").glob("subject_*.toml"))


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[data]\nfolder = "d"\n[models]\nbase = "b"\nclip_vision = "v"\n[output]\nfolder = "out"\n')
    return path


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_whole_and_open_with_their_command(preset):
    config = load_subject_config(preset)
    assert preset.read_text().splitlines()[0] == f"# python -m training.subject training/configs/{preset.name}"
    assert config.result_file.name == f"{config.output.name}.safetensors"
    assert config.adapter.max_subjects == 2 and config.loss.attention_weight == 0.01


def test_the_sd2_preset_is_the_published_recipe():
    """Spec A3 to A5 and A11: its trained parts, shares, loss and rate; what differs is said beside the key."""
    config = load_subject_config("training/configs/subject_sd2.toml")
    assert (config.adapter.blocks, config.adapter.text_encoder, config.adapter.placeholder) == ("all", "all", "sks")
    assert (config.loss.attention_form, config.loss.attention_max_cells) == ("balanced", 1024)
    assert (config.drop.text, config.drop.text_and_location, config.drop.location) == (0.05, 0.05, 0.05)
    assert (config.train.lr, config.train.warmup_steps, config.train.weight_decay) == (3e-5, 1000, 0.0)
    assert (config.samples.guidance, config.samples.subject_guidance, config.samples.steps) == (7.5, 1.5, 50)


def test_shares_that_are_one_together_are_no_more_than_one(smallest):
    shares = {"text": 0.05, "text_and_location": 0.55, "location": 0.3, "everything": 0.1}
    assert sum(shares.values()) > 1  # by rounding alone
    assert load_subject_config(smallest, [f"drop.{name}={share}" for name, share in shares.items()]).drop.text == 0.05


def test_defaults_and_overrides(smallest):
    config = load_subject_config(smallest, ["train.steps=7", "adapter.text_encoder=layers", "drop.everything=0"])
    assert (config.train.steps, config.adapter.text_encoder, config.drop.everything) == (7, "layers", 0.0)
    assert config.data.references == "target" and config.output.name == "subject_adapter"


def test_every_fault_is_in_one_report(smallest):
    smallest.write_text(smallest.read_text() + 'nmae = "x"\n[adapter]\nmax_subjects = 0\nblocks = "last"\n')
    with pytest.raises(UserErrors) as caught:
        load_subject_config(smallest, ["data.coco=c.json", "data.image_px=100"])
    said = str(caught.value)
    for part in (
        "output.nmae: unknown key. Did you mean output.name?",
        "adapter.max_subjects: expected 1 to 16, got 0.",
        "adapter.blocks: expected one of all, first, up, got 'last'.",
        "data.image_px: expected a multiple of 8",
        "data.folder: both are given",
    ):
        assert part in said


def test_what_changes_the_result_is_decisive(smallest):
    decisive = load_subject_config(smallest).decisive()
    for harmless in ("samples.every=1", "train.micro_batch=1", "output.name=x"):
        assert load_subject_config(smallest, [harmless]).decisive() == decisive
    for other in ("train.seed=1", "adapter.placeholder=q", "drop.text=0.1", "data.views=2"):
        assert load_subject_config(smallest, [other]).decisive() != decisive
