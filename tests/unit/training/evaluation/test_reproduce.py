"""relationbench run against a ComfyUI that refuses, hangs, restarts: no picture drawn twice, none missing."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.fake_comfyui import FakeComfyUI
from training.common.errors import UserErrors
from training.evaluate import main
from training.evaluation.prompts import read_prompts
from training.evaluation.relationbench import cases_of_templates
from training.evaluation.reproduce.graphs import SAVE, graph_of
from training.evaluation.reproduce.jobs import Job, remaining, state_of
from training.evaluation.reproduce.manifest import differences
from training.evaluation.reproduce.settings import MINIWORLD, SDXL, with_changes

SCENES, METHODS = 3, ("ms-diffusion", "relate")
NODES = (
    "RelateMiniworldLoader",
    "LoadImage",
    "RelateSubject",
    "RelateEncodeIdentity",
    "RelateApplyIdentity",
    "RelateRelationLoader",
    "CLIPTextEncode",
    "EmptyLatentImage",
    "KSampler",
    "VAEDecode",
    "SaveImage",
)


def painted(graph):
    """A picture whose colour is a hash of what was asked for."""
    facts = json.dumps(
        [
            node["inputs"]
            for node in graph.values()
            if node["class_type"] in ("CLIPTextEncode", "KSampler", "RelateRelationLoader", "RelateSubject")
        ],
        sort_keys=True,
    )
    colour = tuple(hashlib.sha256(facts.encode()).digest()[:3])
    data = io.BytesIO()
    Image.new("RGB", (128, 128), colour).save(data, "PNG")
    return data.getvalue()


class Server(FakeComfyUI):
    """Knows this pack's nodes and one relation."""

    def __init__(self, script=()):
        super().__init__(painted, script)
        self.nodes = NODES

    def facts(self, path, body):
        if path.startswith("/object_info"):
            loader = {"input": {"required": {"lora_name": [["miniworld_hugging.safetensors"]]}}}
            return {name: loader if name == "RelateRelationLoader" else {} for name in self.nodes}
        return super().facts(path, body)


@pytest.fixture
def scenes(tmp_path):
    """A prompts file of three scenes, two seeds of the first."""
    lines = []
    for number in range(SCENES):
        for who in ("cat", "bear"):
            Image.new("RGB", (16, 16), (number * 40, 0, 0)).save(tmp_path / f"{who}{number}.png")
        lines.append(
            {
                "picture": f"{number}.png",
                "prompt": f"a cat is hugging a bear, {number}",
                "relation": "hugging",
                "references": [f"cat{number}.png", f"bear{number}.png"],
                "names": ["cat", "bear"],
                "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]],
                "seed": number % 2,
            }
        )
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return tmp_path


def run(scenes, server, *more, out="out"):
    return main(
        [
            "relationbench",
            "run",
            "--prompts",
            str(scenes / "prompts.jsonl"),
            "--out",
            str(scenes / out),
            "--world",
            "miniworld",
            "--comfyui",
            server.url,
            "--run-seconds",
            "0.4",
            "--clip",
            "miniworld",
            "--device",
            "cpu",
            *more,
        ]
    )


def drawn(scenes, out="out"):
    """Every picture of a run: name to bytes."""
    folder = scenes / out / "pictures"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_a_run_draws_every_picture_once_and_measures(scenes, capsys):
    with Server() as server:
        assert run(scenes, server) == 0
        assert len(server.drawn) == SCENES * 2
        assert sorted(drawn(scenes)) == [f"{method}/{number}.png" for method in METHODS for number in range(SCENES)]
        before = drawn(scenes)
        assert run(scenes, server) == 0 and len(server.queued) == SCENES * 2
    assert drawn(scenes) == before
    out = capsys.readouterr().out
    assert "6 pictures of this shard (0/1), 6 there already" in out and "ms-diffusion against relate" in out
    facts = json.loads((scenes / "out" / "scores.json").read_text())
    assert set(facts["methods"]) == set(METHODS) and facts["methods"]["relate"]["complete"]
    assert "| relate | overall |" in (scenes / "out" / "table.md").read_text()
    assert Image.open(scenes / "out" / "sheet.png").width > 400


def test_pictures_in_folders_keep_their_folders(scenes):
    """Two pictures of one name are two pictures, and are measured where they were drawn."""
    file = scenes / "prompts.jsonl"
    text = file.read_text(encoding="utf-8").replace('"0.png"', '"a/x.png"').replace('"1.png"', '"b/x.png"')
    file.write_text(text, encoding="utf-8")
    with Server() as server:
        assert run(scenes, server, "--method", "ms-diffusion") == 0
    assert sorted(drawn(scenes)) == [f"ms-diffusion/{name}.png" for name in ("2", "a/x", "b/x")]


def test_relations_are_drawn_one_after_the_other_and_seeds_count_from_42(scenes):
    with Server() as server:
        run(scenes, server, "--draw-only")
        loads = ["relation" in graph for graph in server.drawn]
        assert loads == [False] * SCENES + [True] * SCENES
        assert [graph["sample"]["inputs"]["seed"] for graph in server.drawn[:SCENES]] == [42, 43, 42]


def test_two_shards_in_any_order_are_one_run(scenes, capsys):
    with Server() as server:
        assert run(scenes, server, "--draw-only", out="whole") == 0
        assert run(scenes, server, "--shard", "1/2") == 0
        assert "4 pictures of other shards are missing" in capsys.readouterr().out
        assert run(scenes, server, "--shard", "0/2") == 0
    assert drawn(scenes) == drawn(scenes, "whole")
    assert (scenes / "out" / "table.md").exists()
    assert (scenes / "out" / "manifest.json").read_text() == (scenes / "whole" / "manifest.json").read_text()


def test_hangs_restarts_and_lost_files_cost_no_picture_and_draw_none_twice(scenes):
    with Server(script=("ok", "hang", "restart", "drop", "deaf", "500")) as server:
        assert run(scenes, server, "--draw-only") == 0
        asked = [graph["sample"]["inputs"] | graph["positive"]["inputs"] for graph in server.drawn]
        assert (
            len(asked)
            == SCENES * 2
            == len(
                {
                    json.dumps([one["seed"], one["text"], one["model"], index < SCENES])
                    for index, one in enumerate(asked)
                }
            )
        )
    with Server() as calm:
        run(scenes, calm, "--draw-only", out="calm")
    assert drawn(scenes) == drawn(scenes, "calm")


def test_a_killed_run_goes_on_where_it_stopped(scenes, capsys, monkeypatch):
    """Killed while the third picture is drawn; the server ends it, and the next run only fetches it."""
    from training.evaluation.reproduce import engines

    real, count = engines.ComfyEngine.draw, iter(range(100))

    def killed(self, job):
        image = real(self, job)
        if next(count) == 2:
            raise KeyboardInterrupt
        return image

    with Server() as server:
        monkeypatch.setattr(engines.ComfyEngine, "draw", killed)
        assert run(scenes, server, "--draw-only") == 130
        assert "2 of 6 pictures were drawn now. The same command goes on" in capsys.readouterr().err
        monkeypatch.setattr(engines.ComfyEngine, "draw", real)
        assert run(scenes, server, "--draw-only") == 0
        assert len(server.queued) == SCENES * 2
    assert len(drawn(scenes)) == SCENES * 2


def test_a_server_that_refuses_or_is_gone_stops_the_run(scenes, capsys):
    with Server(script=("ok", "refuse")) as server:
        assert run(scenes, server, "--draw-only") == 1
        report = capsys.readouterr().err
        assert "lora_name: 'hug.safetensors' not in []" in report and "1 of 6 pictures were drawn now" in report
    assert run(scenes, server, "--draw-only") == 2
    assert "Start it there, or give its address" in capsys.readouterr().err


def test_a_picture_that_cannot_be_drawn_is_listed_and_the_others_are_drawn(scenes, capsys):
    with Server(script=("ok", "error")) as server:
        assert run(scenes, server, "--draw-only") == 1
        report = capsys.readouterr().err
        assert "1 pictures could not be drawn" in report and "mat1 and mat2 do not fit" in report
        assert len(drawn(scenes)) == SCENES * 2 - 1


def test_everything_that_is_missing_is_in_one_report(scenes, capsys):
    with Server() as server:
        server.nodes = tuple(name for name in NODES if not name.startswith("Relate") or name == "RelateRelationLoader")
        assert run(scenes, server) == 2
        report = capsys.readouterr().err
        assert "no node RelateSubject" in report and "no node RelateApplyIdentity" in report
        assert server.queued == []


def test_a_relation_without_a_file_is_listed_and_its_row_incomplete(scenes, capsys):
    lines = [json.loads(line) for line in (scenes / "prompts.jsonl").read_text().splitlines()]
    lines[1]["relation"] = "riding"
    (scenes / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with Server() as server:
        assert run(scenes, server) == 2
        assert "miniworld_riding.safetensors: no relation LoRA of this name" in capsys.readouterr().err
        assert run(scenes, server, "--partial") == 0
    out = capsys.readouterr().out
    assert "1 relations without a LoRA: miniworld_riding.safetensors" in out
    assert "| relate (incomplete) |" in out and "1 of 3 pictures of relate are missing" in out


def test_another_manifest_is_refused_and_says_what_differs(scenes, capsys):
    with Server() as server:
        assert run(scenes, server, "--draw-only", "--method", "ms-diffusion") == 0
        assert run(scenes, server, "--draw-only") == 0  # a further method may be added
        assert run(scenes, server, "--draw-only", "--set", "steps=20") == 2
        assert "settings steps was 30 and is 20" in capsys.readouterr().err
        Image.new("RGB", (8, 8)).save(scenes / "cat0.png")
        assert run(scenes, server, "--draw-only") == 2
        assert "photographs cat0.png was" in capsys.readouterr().err


def test_photographs_of_one_name_in_several_folders_are_all_in_the_manifest(scenes, capsys):
    """As in DreamBench: dog/00.jpg, cat/00.jpg, ..."""
    lines = [json.loads(line) for line in (scenes / "prompts.jsonl").read_text().splitlines()]
    for line in lines:
        for place, reference in enumerate(line["references"]):
            line["references"][place] = f"{Path(reference).stem}/00.png"
            (scenes / reference).with_suffix("").mkdir()
            (scenes / reference).rename(scenes / line["references"][place])
    (scenes / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with Server() as server:
        assert run(scenes, server, "--draw-only") == 0
        for name in ("cat0", "bear2"):
            path = scenes / name / "00.png"
            before = path.read_bytes()
            Image.new("RGB", (8, 8)).save(path)
            assert run(scenes, server, "--draw-only") == 2
            assert "photographs 00.png was" in capsys.readouterr().err
            path.write_bytes(before)
        assert run(scenes, server, "--draw-only") == 0


def test_a_foreign_picture_is_never_overwritten(scenes, capsys):
    with Server() as server:
        foreign = scenes / "out" / "pictures" / "relate" / "1.png"
        foreign.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(foreign)
        before = foreign.read_bytes()
        assert run(scenes, server) == 2
        assert "was not drawn with these settings" in capsys.readouterr().err and foreign.read_bytes() == before


def test_a_missing_picture_is_a_fault_unless_partial(scenes, capsys):
    with Server() as server:
        run(scenes, server, "--draw-only")
        arguments = [
            str(scenes / "out" / "pictures" / "relate"),
            "--prompts",
            str(scenes / "prompts.jsonl"),
            "--clip",
            "miniworld",
            "--device",
            "cpu",
            "--out",
            str(scenes / "measured"),
        ]
        (scenes / "out" / "pictures" / "relate" / "1.png").unlink()
    assert main(arguments) == 2
    assert "1.png is missing" in capsys.readouterr().err
    assert main([*arguments, "--partial"]) == 0
    assert "1 of 3 pictures of relate are missing" in (scenes / "measured" / "table.md").read_text()


def test_bad_options_are_in_one_report(scenes, capsys):
    with Server() as server:
        bad = ("--shard", "2/2", "--method", "magic", "--set", "steps=many", "--set", "colour=red")
        assert run(scenes, server, *bad) == 2
    report = capsys.readouterr().err
    assert all(words in report for words in ("--shard 2/2", "--method magic", "steps to be a int", "--set colour=red"))


def test_lines_that_cannot_be_drawn_are_named(scenes, capsys):
    (scenes / "prompts.jsonl").write_text('{"picture": "a.jpg", "prompt": "a cat"}')
    with Server() as server:
        assert run(scenes, server) == 2
    report = capsys.readouterr().err
    assert "needs 'references', 'names' and 'boxes'" in report and "'relation' is missing" in report
    assert "'picture' is a.jpg" in report


def job(scenes, relation_file="hugging.safetensors"):
    entry = read_prompts(scenes / "prompts.jsonl", scenes, missing="keep")[0]
    return Job(entry, "relate", relation_file, 7, scenes / "x.png", "stamp")


@pytest.mark.parametrize(
    "name, settings, relation",
    [
        ("miniworld_two_subjects_relation", MINIWORLD, "miniworld_hugging.safetensors"),
        ("sdxl_two_subjects_relation", SDXL, "hugging.safetensors"),
        ("sdxl_two_subjects_relation", SDXL, ""),
    ],
)
def test_the_graph_is_the_packs_own_example(scenes, name, settings, relation):
    """The same nodes with the same settings as the shipped workflow, the editor of boxes and previews apart."""
    shipped = json.loads((Path(__file__).parents[3] / "host" / "graphs" / f"{name}.json").read_text())
    own = graph_of(job(scenes, relation), settings, ["a.png", "b.png"])
    ignored = {
        "LoadImage",
        "RelateMiniworldCreature",
        "RelateLayout",
        "RelateLayoutPreview",
        "RelateScenePrompt",
        "PreviewImage",
        "ImageScaleBy",
        "SaveImage",
    } | ({"RelateRelationLoader"} if not relation else set())

    def kinds(graph):
        return sorted(node["class_type"] for node in graph.values() if node["class_type"] not in ignored)

    assert kinds(own) == kinds(shipped)
    for node in own.values():
        twin = next((one for one in shipped.values() if one["class_type"] == node["class_type"]), None)
        if twin is not None and node["class_type"] not in ignored:
            plain = {key: value for key, value in node["inputs"].items() if not isinstance(value, list)}
            fixed = {
                key: value
                for key, value in plain.items()
                if key not in ("text", "name", "x0", "x1", "y0", "y1", "seed")
            }
            assert fixed.items() <= twin["inputs"].items(), node["class_type"]
    assert own[SAVE]["class_type"] == "SaveImage" and "_sockets" not in own


def test_every_link_of_a_graph_leads_to_a_node_of_it(scenes):
    graph = graph_of(job(scenes), with_changes(SDXL, ["local_clip_vision=local.safetensors"]), ["a.png", "b.png"])
    links = [value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert set(links) <= set(graph) and "local vision" in links


def test_other_braces_in_a_relations_file_name_stay():
    assert with_changes(SDXL, ["relation_files=a{b}_{relation}.sft"]).relation_file("shakes hands") == (
        "a{b}_shakes_hands.sft"
    )


def test_the_state_of_a_picture_is_in_the_picture(scenes):
    from training.evaluation.reproduce.jobs import save_job

    one = job(scenes)
    assert state_of(one) == "missing" and remaining([one]) == [one]
    save_job(one, Image.new("RGB", (4, 4)))
    first = one.file.read_bytes()
    save_job(one, Image.new("RGB", (4, 4)))
    assert state_of(one) == "drawn" and one.file.read_bytes() == first
    one.file.write_bytes(first[:60])
    assert state_of(one) == "other"
    with pytest.raises(UserErrors, match="x.png"):
        remaining([one])


def test_manifests_differ_leaf_by_leaf():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        "a c was 2 and is 3",
        "d was null and is 4",
    ]
    assert differences({"a": [1]}, {"a": [1]}) == []


def test_a_hundred_and_a_hundred_cases():
    counts = cases_of_templates("100x100")
    assert sum(counts[:14]) == 100 == sum(counts[14:]) and set(counts[:14]) == {7, 8} and set(counts[14:]) == {9, 10}
    assert cases_of_templates("100") == [4] * 25
    with pytest.raises(UserErrors, match="--cases many"):
        cases_of_templates("many")
