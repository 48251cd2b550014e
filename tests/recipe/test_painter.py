"""Pictures of subjects through diffusers, on the shipped miniworld: `relationbench run --engine diffusers`."""

import json

import pytest
import torch

from training.config import ModelsConfig
from training.evaluate import main
from training.host_diffusers.frozen import open_frozen_models
from training.host_diffusers.miniworld.architectures import FOLDER
from training.host_diffusers.painter import Painter, PainterSettings

RELATION = FOLDER / "relations" / "miniworld_hugging.safetensors"
BOXES = [(0.1, 0.2, 0.5, 0.9), (0.5, 0.2, 0.9, 0.9)]
ASKED = ("a fox is hugging a bear", ("fox", "bear"), [torch.rand(3, 20, 30), torch.rand(3, 40, 40)], BOXES)


@pytest.fixture(scope="module")
def frozen():
    return open_frozen_models(
        ModelsConfig(
            base=str(FOLDER),
            identity=str(FOLDER / "identity.safetensors"),
            clip_vision=str(FOLDER / "clip_vision"),
            local_clip_vision=str(FOLDER / "local_clip_vision"),
        )
    )


@pytest.fixture(scope="module", params=["ddim", "euler"])
def painter(request, frozen):
    settings = PainterSettings(128, 128, steps=2, guidance=4.0, sampler=request.param)
    return Painter(frozen, settings, "cpu", torch.float32)


def test_a_picture_depends_on_its_seed_alone(painter):
    first, again, other = (painter.draw(*ASKED, seed) for seed in (1, 1, 2))
    assert first.shape == (3, 128, 128) and 0 <= float(first.min()) and float(first.max()) <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_relation_is_put_in_and_taken_out_again(painter):
    before = painter.draw(*ASKED, 1)
    painter.set_relation(RELATION)
    with_relation = painter.draw(*ASKED, 1)
    painter.set_relation(None)
    assert not torch.equal(with_relation, before) and torch.equal(painter.draw(*ASKED, 1), before)


def test_subjects_and_boxes_change_the_picture(painter):
    prompt, names, photographs, boxes = ASKED
    pictures = [
        painter.draw(*ASKED, 1),
        painter.draw(prompt, names, photographs[::-1], boxes, 1),
        painter.draw(prompt, names, photographs, boxes[::-1], 1),
    ]
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def test_the_command_draws_with_diffusers_and_goes_on(tmp_path, capsys):
    assert main(["miniworld", "--relation", "riding", "--scenes", "1", "--out", str(tmp_path / "scenes")]) == 0
    line = json.loads((tmp_path / "scenes" / "prompts.jsonl").read_text())
    assert line["symmetric"] is False  # riding says something else the other way round
    arguments = [
        "relationbench",
        "run",
        "--prompts",
        str(tmp_path / "scenes" / "prompts.jsonl"),
        "--out",
        str(tmp_path / "out"),
        "--engine",
        "diffusers",
        "--world",
        "miniworld",
        "--set",
        "steps=2",
        "--relations",
        str(RELATION.parent),
        "--device",
        "cpu",
        "--draw-only",
    ]
    assert main([*arguments, "--set", "relation_files=missing_{relation}.safetensors"]) == 2
    assert "missing_riding.safetensors: no relation LoRA of this name" in capsys.readouterr().err
    assert main([*arguments, "--method", "ms-diffusion"]) == 0
    before = (tmp_path / "out" / "pictures" / "ms-diffusion" / "0000.png").read_bytes()
    assert main([*arguments, "--method", "ms-diffusion"]) == 0
    assert "1 there already" in capsys.readouterr().out
    assert (tmp_path / "out" / "pictures" / "ms-diffusion" / "0000.png").read_bytes() == before
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["engine"]["kind"] == "diffusers" and len(manifest["methods"]["ms-diffusion"]["base"]) == 64
