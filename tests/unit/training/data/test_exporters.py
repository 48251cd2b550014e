"""Exported folders, read by the rules that each trainer documents: order, names, no shift of slots; and back again."""

import json
import re
import shlex
import struct
import zipfile
import zlib

import numpy as np
import pytest
import tomllib
import yaml
from PIL import Image

from tests.unit.synthetic_triplets import write_authors
from training.config import DataConfig
from training.data.dataset import load_triplets
from training.prepare import main

CAPTIONS = [
    "A fox from image 1 hugs a bear from image 2.",
    "A cat from image 1 is hugging a dog from image 2.",
    "A mouse from image 1 and a frog from image 2 hug.",
]


@pytest.fixture
def triplets(tmp_path):
    write_authors(tmp_path / "hug")
    return tmp_path / "hug"


@pytest.fixture
def export(triplets, tmp_path, capsys):
    def run(kind, source=triplets):
        code = main(["--export", kind, str(source), str(tmp_path / "out")])
        said = capsys.readouterr()
        return code, tmp_path / "out", said.out + said.err

    return run


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def source(folder, number):
    video = folder / "videos" / str(number)
    return pixels(video / "motion.png"), [pixels(video / f"concept{slot}.png") for slot in range(2)]


def same(image, expected):
    return image.shape == expected.shape and (image == expected).all()


def ai_toolkit_controls(target, folders):
    """Its rule: in each folder in turn the file of the target's base name; one that is missing is passed over."""
    return [path for folder in folders for path in sorted(folder.glob(f"{target.stem}.*")) if path.suffix != ".txt"]


def test_ai_toolkit(export, triplets):
    code, out, _ = export("ai-toolkit")
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    (process,) = config["config"]["process"]
    (dataset,) = process["datasets"]
    assert code == 0 and config["job"] == "extension" and process["model"]["arch"] == "flux2_klein_4b"
    assert dataset["caption_ext"] == "txt" and dataset["mask_path"] == str(out / "mask")
    assert dataset["control_path"] == [str(out / "control_1"), str(out / "control_2")]
    targets = sorted((out / "target").glob("*.png"))
    for number, target in enumerate(targets):
        photograph, concepts = source(triplets, number)
        controls = ai_toolkit_controls(target, [out / "control_1", out / "control_2"])
        assert [path.parent.name for path in controls] == ["control_1", "control_2"]  # all there: nothing moves up
        assert same(pixels(target), photograph) and all(map(same, map(pixels, controls), concepts))
        assert target.with_suffix(".txt").read_text().strip() == CAPTIONS[number]
        masks = [pixels(triplets / "masks" / str(number) / f"motion{slot}.png") for slot in range(2)]
        assert same(pixels(out / "mask" / target.name), np.maximum(*masks))
    assert len(targets) == 3 and process["train"]["lr"] == 1e-4  # a number to every reader of YAML
    (sample,) = process["sample"]["samples"]
    assert sample["prompt"] == CAPTIONS[0] and sample["ctrl_img_2"] == str(out / "control_2" / "0000.png")
    assert process["network"]["network_kwargs"]["only_if_contains"] == ["txt_attn"]


def test_musubi(export, triplets):
    code, out, _ = export("musubi")
    config = tomllib.loads((out / "dataset.toml").read_text(encoding="utf-8"))
    (dataset,) = config["datasets"]
    assert code == 0 and config["general"]["caption_extension"] == ".txt"
    assert (dataset["image_directory"], dataset["control_directory"]) == (str(out / "target"), str(out / "control"))
    assert dataset["control_resolution"] == [1024, 1024] and dataset["no_resize_control"] is True
    for number, target in enumerate(sorted((out / "target").glob("*.png"))):
        # its rule: files of the target's base name, by the number behind the last underscore
        found = sorted((out / "control").glob(f"{target.stem}*"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
        _, concepts = source(triplets, number)
        assert [path.name for path in found] == [f"{target.stem}_0.png", f"{target.stem}_1.png"]
        assert all(map(same, map(pixels, found), concepts))
        assert target.with_suffix(".txt").read_text().strip() == CAPTIONS[number]
    script = (out / "train.sh").read_text()
    assert script.count(str(out / "dataset.toml")) == 3 and "--network_dim 16 --network_alpha 16" in script
    assert """"exclude_patterns=['.*']" "include_patterns=['.*txt_attn.*']\"""" in script
    assert not (out / "mask").exists()  # it takes none


def test_fal(export, triplets):
    code, out, _ = export("fal")
    request = json.loads((out / "request.json").read_text(encoding="utf-8"))
    assert code == 0 and request["endpoint"] == "fal-ai/flux-2-klein-4b-base-trainer/edit"
    roots = {}
    with zipfile.ZipFile(out / "triplets.zip") as archive:
        for name in archive.namelist():
            root, part = re.fullmatch(r"(\d+)(_start\d*\.png|_end\.png|\.txt)", name).groups()
            roots.setdefault(root, {})[part] = archive.read(name)
    assert sorted(roots) == ["0000", "0001", "0002"]
    for number, parts in enumerate(roots[root] for root in sorted(roots)):
        assert set(parts) == {"_start.png", "_start2.png", "_end.png", ".txt"}  # the first has no number
        video = triplets / "videos" / str(number)
        assert parts["_start.png"] == (video / "concept0.png").read_bytes()  # plain PNGs keep their very bytes
        assert parts["_start2.png"] == (video / "concept1.png").read_bytes()
        assert parts["_end.png"] == (video / "motion.png").read_bytes()
        assert parts[".txt"].decode().strip() == CAPTIONS[number]


def test_replicate_takes_the_names_that_fal_does(export, triplets):
    """Its input schema: ROOT_start.EXT, ROOT_start2.EXT, ..., ROOT_end.EXT, ROOT.txt."""
    code, out, _ = export("replicate")
    with zipfile.ZipFile(out / "triplets.zip") as archive:
        names, second = archive.namelist(), archive.read("0000_start2.png")
    assert code == 0 and names == sorted(
        f"{stem}{part}"
        for stem in ("0000", "0001", "0002")
        for part in (".txt", "_end.png", "_start.png", "_start2.png")
    )
    assert second == (triplets / "videos" / "0" / "concept1.png").read_bytes()
    request = json.loads((out / "request.json").read_text())
    assert request["input"]["image_data"] == str(out / "triplets.zip")
    assert request["input"]["default_caption"] == CAPTIONS[0]


@pytest.mark.parametrize("kind", ["ai-toolkit", "musubi", "fal", "replicate"])
def test_an_exported_folder_is_one_of_triplets(export, triplets, tmp_path, kind):
    code, out, _ = export(kind)
    assert code == 0 and main(["--convert", str(out), str(tmp_path / "back")]) == 0
    before, after = (
        load_triplets(DataConfig(folder=str(folder), fit="pad"), "") for folder in (triplets, tmp_path / "back")
    )
    assert len(before) == len(after) == 3
    for one, other in zip(before, after):
        assert (one.prompt, one.names, one.predicate) == (other.prompt, other.names, other.predicate)
        assert abs(one.facts.boxes - other.facts.boxes).max() < 1e-6
        assert abs(one.keypoints_target - other.keypoints_target).max() < 1e-6  # in the subjects' order by now
        assert all(same(pixels(a), pixels(b)) for a, b in zip(one.files(), other.files(), strict=True))


def uneven(folder, tmp_path):
    """The triplets with a third subject in the second of them."""
    assert main(["--convert", str(folder), str(tmp_path / "ours")]) == 0
    path = tmp_path / "ours" / "triplets.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for key in ("concepts", "names", "boxes", "masks", "keypoints_target", "keypoints_concepts"):
        lines[1][key] = [*lines[1][key], lines[1][key][0]]
    path.write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "ours"


@pytest.mark.parametrize("kind", ["ai-toolkit", "musubi"])
def test_a_missing_control_would_move_the_others_up_and_is_refused(export, triplets, tmp_path, kind):
    code, out, said = export(kind, uneven(triplets, tmp_path))
    assert code == 2 and not out.exists()
    assert "expected as many subjects in every triplet, got 2 in line 1, line 3; 3 in line 2" in said


def test_fal_takes_different_numbers(export, triplets, tmp_path):
    code, out, _ = export("fal", uneven(triplets, tmp_path))
    names = zipfile.ZipFile(out / "triplets.zip").namelist()
    assert code == 0 and "0001_start3.png" in names and "0000_start3.png" not in names


def test_more_controls_than_the_trainer_takes(export, triplets, tmp_path):
    folder = uneven(triplets, tmp_path)
    path = folder / "triplets.jsonl"
    line = json.loads(path.read_text().splitlines()[1])
    for key in ("concepts", "names", "boxes", "masks", "keypoints_target", "keypoints_concepts"):
        line[key] = [*line[key], *line[key][:2]]
    path.write_text(json.dumps(line))
    code, out, said = export("fal", folder)
    assert code == 2 and "5 subjects" in said and "fal takes at most 4 control images" in said and not out.exists()


def test_images_are_what_they_are_in_comfyui(export, triplets):
    """Transparent is white, upright is upright, and every trainer gets an 8-bit RGB PNG."""
    concept = triplets / "videos" / "0" / "concept0.png"
    image = Image.open(concept).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    image.save(concept)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    wide = Image.new("RGB", (80, 40), "red")
    wide.save(triplets / "videos" / "1" / "concept0.png", exif=exif)
    code, out, _ = export("ai-toolkit")
    first, second = (Image.open(out / "control_1" / f"{stem}.png") for stem in ("0000", "0001"))
    assert code == 0 and first.mode == "RGB" and first.getcolors() == [(96 * 96, (255, 255, 255))]
    assert second.size == (40, 80)


def test_sixteen_bits_become_eight(export, triplets):
    """Other programs open such a PNG as numbers up to 65535."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x12\x34" * 3 * 96) * 96)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 16, 2, 0, 0, 0))
    deep = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (triplets / "videos/0/concept0.png").write_bytes(deep)
    _, out, _ = export("ai-toolkit")
    written = out / "control_1/0000.png"
    assert written.read_bytes()[24] == 8 and (pixels(written) == 0x12).all()


def test_without_masks_the_subjects_boxes_stay_and_no_mask_is_named(export, triplets, tmp_path):
    folder = tmp_path / "boxes"
    assert main(["--convert", str(triplets), str(folder)]) == 0
    path = folder / "triplets.jsonl"
    lines = [json.loads(line) | {"masks": None} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, lines)))
    code, out, _ = export("ai-toolkit", folder)
    assert code == 0 and "mask_path" not in (out / "config.yaml").read_text() and not (out / "mask").exists()


def test_the_command_of_a_folder_with_spaces_can_be_copied(triplets, tmp_path):
    out = tmp_path / "my pictures"
    assert main(["--export", "ai-toolkit", str(triplets), str(out)]) == 0
    first = (out / "config.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert shlex.split(first.split(": ", 1)[1]) == ["python", "run.py", str(out / "config.yaml")]


def test_what_the_command_refuses(export, triplets, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--export", "onetrainer", str(triplets), str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "expected KIND to be one of ai-toolkit, musubi, fal, replicate, got 'onetrainer'" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (triplets / "videos" / "0" / "motion.png").unlink()
    code, _, said = export("fal")
    assert code == 2 and "out exists; choose a folder" in said and "motion.png: missing" in said  # both at once


def test_equal_triplets_make_equal_archives(triplets, tmp_path):
    for name in ("a", "b"):
        assert main(["--export", "fal", str(triplets), str(tmp_path / name)]) == 0
    a, b = ((tmp_path / name / "triplets.zip").read_bytes() for name in ("a", "b"))
    assert a == b
