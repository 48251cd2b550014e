"""`python -m tests.check_native` against a real server with tiny models: three ways, a sheet and a table."""

import csv

from PIL import Image

from tests import check_native
from tests.check_native import Request, draw, report
from tests.host.api_graphs import SMALL, native_loaders
from tests.native_graphs import WAYS, read_graph
from training.common.comfyui_client import ComfyUIClient


def tiny(graph: dict) -> dict:
    """Loaders of the tiny family, two steps, small references; the photographs stay those that were uploaded."""
    loaders = native_loaders(graph)
    made = {}
    for key, node in graph.items():
        kind, inputs = loaders.get(node["class_type"], (node["class_type"], node["inputs"]))
        small = {name: value for name, value in SMALL.get(kind, {}).items() if name not in ("width", "height")}
        made[key] = {**node, "class_type": kind, "inputs": {**inputs, **small}}
    return made


def request(tmp_path, seeds=2) -> Request:
    files = []
    for number, colour in enumerate(("red", "teal")):
        files.append(tmp_path / f"{colour}.png")
        Image.new("RGB", (96, 64), colour).save(files[number])
    return Request(tuple(files), ("cat", "bear"), "A cat is hugging a bear.", range(1, seeds + 1), 128, 3.0)


def test_three_ways_of_two_seeds(comfy_server, tmp_path):
    said, out, asked = [], tmp_path / "out", request(tmp_path)
    client = ComfyUIClient(comfy_server.url)
    drawn = draw(client, "OmniGen2", read_graph("OmniGen2"), asked, out, said.append, tiny)
    assert [each.fault for each in drawn] == [""] * 6 and len(said) == 6
    by_way = {way: [each.picture.tobytes() for each in drawn if each.way == way] for way in WAYS}
    assert all(len(pictures) == 2 for pictures in by_way.values())
    assert by_way["plain"][0] != by_way["kept"][0] != by_way["per subject"][0] != by_way["plain"][0]
    report(drawn, asked, out)
    assert Image.open(out / "sheet_omnigen2.png").size[0] > 3 * check_native.TILE
    assert (out / "table.md").read_text().count("| OmniGen2 |") == 3
    with (out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and all(row["seconds"] and row["swapped"] == "" for row in rows)
    again = draw(client, "OmniGen2", read_graph("OmniGen2"), asked, out, said.append, tiny)
    assert [each.seconds for each in again] == [None] * 6 and len(said) == 6


def test_what_eyes_wrote_is_kept(tmp_path):
    drawn = [check_native.Drawn("OmniGen2", "plain", 1, None, 2.0)]
    check_native.write_table(drawn, tmp_path / "table.csv")
    text = (tmp_path / "table.csv").read_text()
    (tmp_path / "table.csv").write_text(text.replace("2.00,,,,,,", "2.00,,1,0,0,,1"))
    check_native.write_table([check_native.Drawn("OmniGen2", "plain", 1, None, None)], tmp_path / "table.csv")
    assert "2.00,,1,0,0,,1" in (tmp_path / "table.csv").read_text()


def test_a_failure_is_one_line_and_an_empty_tile(comfy_server, tmp_path):
    broken = read_graph("OmniGen2")
    asked = request(tmp_path, seeds=1)
    drawn = draw(ComfyUIClient(comfy_server.url), "OmniGen2", broken, asked, tmp_path / "out", lambda line: None)
    assert all(each.picture is None and "unet_name" in each.fault for each in drawn)
    report(drawn, asked, tmp_path / "out")
    assert "| OmniGen2 | kept | 0 | 1 |" in (tmp_path / "out" / "table.md").read_text()


def test_a_comfyui_without_the_models_says_what_it_lacks(comfy_server, tmp_path, capsys):
    assert check_native.main([comfy_server.url, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert "OmniGen2: not drawn; this ComfyUI lacks omnigen2_fp16.safetensors" in said and "None of the models" in said


def test_a_wrong_address_is_one_line(capsys):
    assert check_native.main(["http://127.0.0.1:9"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().out
