"""`python -m training.annotate` in the miniworld from raw pictures to finetune's own check, and wrong input."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.bench.annotate import write_raw
from training import finetune, prepare
from training.annotate import main
from training.miniworld.world.triplets import write_triplets

MINIWORLD = ["--relation", "shaking hands with", "--backend", "miniworld"]


def test_raw_pictures_become_triplets_that_finetune_takes(tmp_path, capsys):
    write_raw(tmp_path / "raw", "shaking hands with", 3, 11)
    out = tmp_path / "out"
    assert main([str(tmp_path / "raw"), str(out), *MINIWORLD, "--dry-run"]) == 0 and not out.exists()
    assert "3 triplets; nothing is written" in capsys.readouterr().out
    # one is accepted by hand: the miniworld's models may reject some
    code = main([str(tmp_path / "raw"), str(out), *MINIWORLD])
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    whole = [name for name, one in report["triplets"].items() if one["gates"]["found"]["status"] != "reject"]
    assert code == (0 if report["accepted"] else 2) and whole
    (out / "decisions.json").write_text(json.dumps(dict.fromkeys(whole, "accept")), encoding="utf-8")
    assert main([str(out), "--apply"]) == 0
    lines = [json.loads(line) for line in (out / "triplets.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["target"][:3] for line in lines] == whole
    assert all(line["skeletons"] == ["ap10k"] * 2 and line["relation"] == "shaking hands with" for line in lines)
    assert all(1 in {joint[2] for joint in skeleton} for line in lines for skeleton in line["keypoints_target"])
    page = (out / "review.html").read_text(encoding="utf-8")
    assert "@ROWS@" not in page and '"threshold": 0.85' in page and f"{whole[0]}/target.png" in page
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(out=out, run=tmp_path / "run"), encoding="utf-8")
    assert finetune.main([str(config), "--dry-run"]) == 0


CONFIG = """relation = "shaking hands with"
[data]
folder = '{out}'
image_px = 128
[models]
base = "models/miniworld"
identity = "models/miniworld/identity.safetensors"
clip_vision = "models/miniworld/clip_vision"
[train]
steps = 2
batch_size = 1
[output]
folder = '{run}'
"""


def test_annotated_triplets_that_were_moved_are_named_and_found_again(tmp_path, capsys):
    exact, out = tmp_path / "exact", tmp_path / "all of it"
    write_triplets(exact, "hugging", 1, 4)
    assert main([str(exact), str(out), "--relation", "hugging"]) == 0
    exact.rename(tmp_path / "moved")
    assert main([str(out), "--apply"]) == 2
    told = capsys.readouterr().err
    assert f"{exact}: the annotation of {out} was read from this folder" in told
    assert told.endswith(f"training.annotate RAW '{out}' --relation hugging\n")
    assert main([str(tmp_path / "moved"), str(out), "--relation", "hugging"]) == 0
    assert main([str(out), "--apply"]) == 0


def test_triplets_that_are_annotated_already_are_judged_without_any_model(tmp_path):
    write_triplets(tmp_path / "exact", "hugging", 2, 4)
    command = [str(tmp_path / "exact"), str(tmp_path / "out"), "--relation", "hugging", "--hide-others"]
    assert main(command) == 0  # with what painting over would hide from a table of pictures
    given, written = (
        [json.loads(line) for line in (tmp_path / name / "triplets.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("exact", "out")
    )
    for exact, line in zip(given, written):
        assert line["prompt"] == exact["prompt"] and line["relation"] == exact["relation"]
        counts = np.array(line["keypoints_target"])[..., 2]
        assert (counts == np.array(exact["keypoints_target"])[..., 2]).mean() > 0.95
    own = json.dumps({**written[0], "skeletons": ["ap10k", "coco"], "mood": "merry"})
    (tmp_path / "out/triplets.jsonl").write_text(own + "\n", encoding="utf-8")
    assert prepare.main(["--convert", str(tmp_path / "out"), str(tmp_path / "copy")]) == 0
    (line,) = (json.loads(text) for text in (tmp_path / "copy/triplets.jsonl").read_text("utf-8").splitlines())
    assert line["mood"] == "merry" and line["skeletons"] == ["ap10k", "coco"]
    assert line["scores"] == written[0]["scores"] and line["kinds"] == written[0]["kinds"]


def test_what_annotated_triplets_say_of_themselves_is_kept(tmp_path):
    """The licence of their pictures, the order of their joints, and joints that were corrected since the last run."""
    write_triplets(tmp_path / "exact", "hugging", 1, 4)
    file, out = tmp_path / "exact/triplets.jsonl", tmp_path / "out"
    told = json.loads(file.read_text(encoding="utf-8"))
    told |= {"origin": {"engine": "camera", "licence": "CC0"}, "skeletons": ["coco", "ap10k"], "kinds": "both"}
    for nose in (0.41, 0.43):
        told["keypoints_target"][0][0] = [nose, 0.5, 1]
        file.write_text(json.dumps(told) + "\n", encoding="utf-8")
        main([str(tmp_path / "exact"), str(out), "--relation", "hugging", "--keep-rejected"])
        main([str(out), "--apply"])
        lines = out / "triplets.jsonl" if (out / "triplets.jsonl").is_file() else out / "rejected/triplets.jsonl"
        line = json.loads(lines.read_text(encoding="utf-8"))
        assert line["origin"]["licence"] == "CC0" and line["origin"]["engine"] == "camera"
        assert line["skeletons"] == ["coco", "ap10k"] and line["kinds"] == ["person", "animal"]
        assert line["keypoints_target"][0][0][0] == nose and line["keypoints_target"][1][0][:2] != [0, 0]


def picture(path, size=(40, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 60, 60)).save(path, **options)


def test_every_fault_of_raw_pictures_is_told_at_once_and_nothing_is_written(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for name in ("target", "wolf"):
        picture(raw / f"whole/{name}.png")
        picture(raw / f"broken/{name}.png")
    (raw / "broken/wolf.png").write_bytes((raw / "broken/wolf.png").read_bytes()[:60])
    picture(raw / "small/target.png", (1, 1))
    picture(raw / "small/wolf.png")
    picture(raw / "lonely/target.png")
    picture(raw / "headless/wolf.png")
    picture(raw / "nameless/target.png")
    picture(raw / "nameless/2.png")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(raw / "nameless/fox.webp", save_all=True, append_images=frames[1:])
    picture(raw / "telephone/target.png")
    picture(raw / "telephone/1 wolf.png")
    (raw / "telephone/2 bear.HEIC").write_bytes(b"....ftypheic")
    (raw / "whole/prompt.txt").write_bytes("A wolf".encode("utf-16"))
    arguments = [str(raw), str(out), "--relation", "", "--backend", "miniworld", "--kind", "wolf=beast"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    for said in (
        "broken/wolf.png: not a whole picture",
        "small/target.png: expected 16 pixels a side",
        "lonely: expected 1 to 6 pictures of single subjects",
        "headless: expected one picture named target, found 0",
        'nameless/2.png: "2" names no subject',
        "fox.webp: expected a still picture",
        "telephone/2 bear.HEIC: not a whole picture",
        "prompt.txt: expected text in UTF-8",
        "--relation: expected the words",
        "--kind wolf=beast: expected one of animal",
    ):
        assert said in told
    assert told.startswith("10 faults") and not out.exists()


def test_a_folder_of_triplets_that_is_wrong_is_said_once(tmp_path, capsys):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/triplets.jsonl").write_text("{", encoding="utf-8")
    assert main([str(tmp_path / "given"), str(tmp_path / "out"), "--relation", "hugging"]) == 2
    told = capsys.readouterr().err
    assert told.count("not JSON") == 1 and "faults" not in told and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options, said", [
    (["--thresholds", "absent.toml"], "absent.toml: cannot be read"),
    (["--say", "A {a} is {relation}."], '01: --say "A {a} is {relation}.": expected {a}, {b}'),
    (["--say", "A {a} is {relation} a {b} and {c}."], "expected {a}, {b} for its 2 subjects, got {a}, {b}, {c}."),
    (["--say", "A {a.size} is {relation} a {b}."], "expected only {a} to {f}"),
])  # fmt: skip
def test_wrong_options_are_said_before_a_model_runs(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    for name in ("target", "1 fox", "2 bear"):
        picture(tmp_path / f"raw/01/{name}.png")
    assert main(["raw", "out", *MINIWORLD, *options]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments, said", [
    (["absent", "--apply", "--dry-run"], "--dry-run: expected RAW OUT"),
    (["absent", "out"], "expected a folder of raw triplets"),
    (["absent", "--apply"], "no annotation to go on with"),
    (["absent"], "expected RAW OUT, got 1 folders"),
])  # fmt: skip
def test_wrong_folders_end_with_2(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *MINIWORLD]) == 2
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_pictures_mean_what_they_mean_to_everyone_and_names_may_be_of_any_script(tmp_path):
    """A turned JPEG, an alpha channel and 16 bits are one upright 8-bit RGB picture in OUT."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(raw / "1/target.jpg", (64, 40), exif=turned)
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(raw / "1/狐 狸.tiff")
    Image.fromarray(np.full((40, 40), 65535, np.uint16)).save(raw / "1/bear.png")
    assert main([str(raw), str(out), *MINIWORLD]) == 2  # nobody is found in them
    home = out / "rejected/1"
    assert Image.open(home / "target.png").size == (40, 64)
    for name in ("狐 狸", "bear"):
        image = Image.open(home / f"{name}.png")
        assert image.mode == "RGB" and image.getpixel((3, 3)) == (255, 255, 255)
    assert main([str(raw), str(raw), *MINIWORLD]) == 2
