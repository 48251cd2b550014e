"""python -m training.evaluate with tiny encoders of transformers and open_clip, and with the miniworld's own CLIP."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, ViTConfig, ViTModel

from core.identity.image_prep import CLIP_MEAN, CLIP_STD, normalise_pixels
from training.common.errors import UserErrors
from training.common.image_files import to_tensor
from training.evaluate import main
from training.evaluation.prompts import Entry, read_prompts
from training.evaluation.score_images import embed_files, score_pictures
from training.host_diffusers.embedders import Embedder, load_clip, load_dino
from training.host_diffusers.miniworld.architectures import FOLDER
from training.miniworld.experiments.exact import facts, measure_entries, plans_of
from training.miniworld.world.relations import standing_next_to
from training.miniworld.world.renderer import render
from training.miniworld.world.scene import portrait
from training.miniworld.world.traits import draw_cast

CPU = "cpu"
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A CLIP and a DINO of two layers, saved as the published ones are."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**SMALL, **ends, "vocab_size": len(tokenizer), "pad_token_id": 0}
    clip = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 8}, projection_dim=16)
    ).eval()
    dino = ViTModel(ViTConfig(**SMALL, image_size=32, patch_size=8), add_pooling_layer=False).eval()
    clip.save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    (folder / "clip" / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "feature_extractor_type": "CLIPFeatureExtractor",
                "crop_size": 32,
                "size": 32,
                "resample": 3,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "image_mean": CLIP_MEAN,
                "image_std": CLIP_STD,
            }
        )
    )
    dino.save_pretrained(folder / "dino")
    (folder / "dino" / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "feature_extractor_type": "ViTFeatureExtractor",
                "size": 32,
                "resample": 2,
                "do_normalize": True,
                "do_resize": True,
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            }
        )
    )
    return folder, clip, dino


@pytest.fixture
def asked(tmp_path):
    """Three pictures of two cases, and the arguments that name them."""
    draw = np.random.default_rng(0)
    for name in ("pictures/1.png", "pictures/2.png", "pictures/3.png", "cat.png", "bear.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    pair = {"prompt": "a cat is hugging a bear", "relation": "hugging", "references": ["cat.png", "bear.png"]}
    lines = [
        {"picture": "1.png", **pair},
        {"picture": "2.png", **pair},
        {"picture": "3.png", "prompt": "a cat is jumping", "relation": "jumping", "references": ["cat.png"]},
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return [
        str(tmp_path / "pictures"),
        "--prompts",
        str(tmp_path / "prompts.jsonl"),
        "--device",
        CPU,
        "--out",
        str(tmp_path / "out"),
    ]


def colours(pictures):
    """An encoder one can compute by hand: the colour of the first pixel."""
    return torch.tensor([picture.getpixel((0, 0)) for picture in pictures], dtype=torch.float32)


def test_scores_by_hand(tmp_path):
    files = {}
    for name, colour in {"drawn": (255, 0, 255), "red": RED, "green": GREEN, "blue": BLUE}.items():
        files[name] = tmp_path / f"{name}.png"
        Image.new("RGB", (2, 2), colour).save(files[name])
    words = {"a red cat hugs a blue bear": [1.0, 0.0, 1.0], "hugs": [0.0, 1.0, 0.0], "a green house": [1.0, 0.0, 0.0]}
    clip = Embedder("by hand", colours, lambda texts: torch.tensor([words[text] for text in texts]))
    dino = Embedder("first channel", lambda pictures: colours(pictures)[:, :1] + torch.tensor([[1.0, 1.0]]))
    entries = [
        Entry(1, files["drawn"], "a red cat hugs a blue bear", "hugs", (files["red"], files["green"])),
        Entry(2, files["drawn"], "a green house"),
    ]
    half = 100 / 2**0.5
    seen = score_pictures(entries, ["hugs", None], clip, dino, batch=3)
    assert seen[0] == pytest.approx({"CLIP-T": 100, "CLIP-R": 0, "CLIP-I": half / 2, "DINO": 100}, abs=1e-4)
    assert seen[1]["CLIP-T"] == pytest.approx(half) and {*list(seen[1].values())[1:]} == {None}


def test_each_file_is_encoded_once_and_every_broken_one_is_named(tmp_path, asked):
    pictures = sorted((tmp_path / "pictures").iterdir())
    seen = []
    (vectors,) = embed_files([lambda batch: (seen.append(len(batch)), colours(batch))[1]], pictures, batch=2)
    assert vectors.shape == (3, 3) and seen == [2, 1]
    for path in pictures[:2]:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserErrors) as report:
        embed_files([colours], pictures, batch=2)
    assert len(report.value.messages) == 2 and "1.png" in report.value.messages[0]


def test_the_command_agrees_with_transformers(encoders, asked, tmp_path, capsys):
    folder, clip, dino = encoders
    assert main([*asked, "--clip", str(folder / "clip"), "--dino", str(folder / "dino"), "--batch", "2"]) == 0
    assert "| multi | 2 | 1 |" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    scores = facts["pictures"][0]["scores"]
    files = [Image.open(tmp_path / name) for name in ("pictures/1.png", "cat.png", "bear.png")]  # 50 wide, 40 high
    cut = [file.resize((40, 32), Image.Resampling.BICUBIC).crop((4, 0, 36, 32)) for file in files]
    squashed = [file.resize((32, 32), Image.Resampling.BILINEAR) for file in files]
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")
    with torch.no_grad():
        out = clip(
            pixel_values=normalise_pixels(torch.stack([to_tensor(file) for file in cut])),
            **tokenizer(["a cat is hugging a bear", "hugging"], padding=True, return_tensors="pt"),
        )
        pixels = (torch.stack([to_tensor(file) for file in squashed]) - mean) / std
        tokens = dino(pixel_values=pixels).last_hidden_state[:, 0]
    drawn, *references = F.normalize(out.image_embeds, dim=-1)
    prompt, predicate = F.normalize(out.text_embeds, dim=-1)
    tokens = F.normalize(tokens, dim=-1)
    assert scores["CLIP-T"] == pytest.approx(100 * float(drawn @ prompt), abs=1e-3)
    assert scores["CLIP-R"] == pytest.approx(100 * float(drawn @ predicate), abs=1e-3)
    assert scores["CLIP-I"] == pytest.approx(50 * float(drawn @ (references[0] + references[1])), abs=1e-3)
    assert scores["DINO"] == pytest.approx(50 * float(tokens[0] @ (tokens[1] + tokens[2])), abs=1e-3)
    assert "published" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert Image.open(tmp_path / "out" / "sheet.png").width > 700


def test_a_picture_is_its_own_best_reference_also_in_half_precision(encoders):
    folder, _, _ = encoders
    draw = np.random.default_rng(1)
    pictures = [Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]
    for load in (
        lambda dtype: load_clip(str(folder / "clip"), "", CPU, dtype),
        lambda dtype: load_dino(str(folder / "dino"), CPU, dtype),
    ):
        whole, half = (load(dtype).pictures(pictures) for dtype in (torch.float32, torch.float16))
        assert half.dtype == torch.float32 and not torch.equal(whole, half)
        torch.testing.assert_close(F.cosine_similarity(whole, half), torch.ones(3), atol=1e-3, rtol=0)


def test_open_clip_by_name_and_file(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="pip install -e '.[backbones]'")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (tmp_path / "tiny-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-test.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-test").eval()
    torch.save(model.state_dict(), tmp_path / "tiny.pt")
    found = load_clip("tiny-test", str(tmp_path / "tiny.pt"), CPU, torch.float32)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    with torch.no_grad():
        text = model.encode_text(open_clip.get_tokenizer("tiny-test")(["a cat"]))
        image = model.encode_image(open_clip.image_transform(32, is_train=False)(picture)[None])
    torch.testing.assert_close(found.texts(["a cat"]), text)
    torch.testing.assert_close(found.pictures([picture]), image)


def test_the_miniworlds_clip_prefers_right_descriptions_and_references():
    """Portraits against their descriptions and second portraits; margins are the weights' affair."""
    clip, rng = load_clip("miniworld", "", CPU, torch.float32), np.random.default_rng(0)
    who = [draw_cast(rng, 1, False)[0] for _ in range(8)]
    first, second = ([Image.fromarray(render(portrait(rng, one), 128).image) for one in who] for _ in range(2))
    pictures = F.normalize(clip.pictures(first), dim=-1)
    for others in (clip.texts([f"a picture of {one.describe()}" for one in who]), clip.pictures(second)):
        cosines = pictures @ F.normalize(others, dim=-1).T
        assert cosines.diagonal().mean() > cosines.mean()
        assert (cosines.diagonal() > cosines.mean(1)).sum() >= 6


def test_the_miniworld_has_no_dino(asked, capsys):
    assert main([*asked, "--clip", "miniworld"]) == 0
    out = capsys.readouterr().out
    assert "There is no DINO" in out and "| DINO |" not in out and "published" not in out


def test_the_miniworlds_scenes_are_counted_exactly(tmp_path, capsys):
    """True renders against renders with the looks exchanged, and against another relation."""
    scenes = tmp_path / "scenes"
    assert main(["miniworld", "--relation", "kissing", "--scenes", "6", "--out", str(scenes)]) == 0
    assert main(["miniworld", "--relation", "kissing", "--out", str(scenes)]) == 2
    entries = read_prompts(scenes / "prompts.jsonl", scenes / "truth")
    for entry, plan in zip(entries, plans_of(entries)):
        assert np.array_equal(render(plan, 128).image, np.asarray(Image.open(entry.picture)))
        for name, wrong in {
            "exchanged": replace(plan, cast=plan.cast[::-1]),
            "apart": replace(plan, staging=standing_next_to(np.random.default_rng(0))),
        }.items():
            (scenes / name).mkdir(exist_ok=True)
            Image.fromarray(render(wrong, 128).image).save(scenes / name / entry.picture.name)
    assert (
        main(
            [
                str(scenes / "truth"),
                "--prompts",
                str(scenes / "prompts.jsonl"),
                "--clip",
                "miniworld",
                "--exact",
                "--device",
                CPU,
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert "| exact, in % | 6 |" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))["exact"]
    found = {
        name: facts(*measure_entries(read_prompts(scenes / "prompts.jsonl", scenes / name)))
        for name in ("truth", "exchanged", "apart")
    }
    assert found["truth"] == written
    value = {
        name: {key: share["value"] for key, share in row.items() if key != "judges_on_renders"}
        for name, row in found.items()
    }
    assert value["truth"]["relation"] > 0.5 > value["apart"]["relation"]
    assert value["truth"]["identity"] > value["exchanged"]["identity"]
    assert value["truth"]["confusion"] < 0.3 and value["exchanged"]["confusion"] > 0.6
    assert value["truth"]["keypoints"] < value["apart"]["keypoints"]
    assert 0 < found["truth"]["judges_on_renders"]["relation"] <= 1


def test_exact_counts_need_plans(asked, capsys):
    assert main([*asked, "--clip", "miniworld", "--exact"]) == 2
    told = capsys.readouterr().err
    assert "3 faults" in told and "line 2: no 'plan'. --exact needs lines as" in told
    with pytest.raises(UserErrors, match="line 1: 'plan' cannot be read"):
        plans_of([Entry(1, FOLDER, "a", plan={"relation": "hugging"})])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--clip", "ViT-B-32", "--dino", "none"], "--clip ViT-B-32: expected an open_clip architecture with"),
        (["--clip", "{clip}", "--dino", "{pictures}"], "--dino {pictures}: cannot be opened"),
        (["--clip", "{pictures}", "--dino", "none"], "--clip {pictures}: cannot be opened"),
        (["--clip", "miniworld", "--batch", "0"], "--batch 0: expected at least 1."),
    ],
)
def test_what_cannot_be_opened_is_named(encoders, asked, capsys, options, expected):
    names = {"clip": encoders[0] / "clip", "pictures": asked[0]}
    assert main([*asked, *(option.format(**names) for option in options)]) == 2
    assert expected.format(**names) in capsys.readouterr().err
