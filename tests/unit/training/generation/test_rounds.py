"""Rounds of drawing and annotating against a server that misbehaves: no picture is drawn twice, none is lost."""

import json
import time

import pytest
from PIL import Image

from tests.unit.training.generation.orders import accepting, engine_of, fake_server, order_of, write
from training.common.cli import TrainingAborted
from training.common.comfyui_client import graph_hash
from training.common.errors import UserErrors
from training.generation.engines.miniworld import MiniworldEngine
from training.generation.picture_store import PictureStore
from training.generation.recipes import RECIPES
from training.generation.request import EDIT, Request
from training.generation.rounds import Verdicts, run_rounds
from training.generation.run_settings import check_folder, write_settings
from training.generation.scenes import scene_of


def check(engine, order):
    engine.check(RECIPES[order.recipe].roles(2), order.relation, list(order.groups))


def draw(engine, order, out, annotate=accepting, say=None):
    """One call of the command, without its command line."""
    lines = []
    check(engine, order)
    store = PictureStore(out / ".work" / "drawn", engine, say or lines.append)
    progress = run_rounds(order, engine, annotate, out, store, lines.append)
    progress.store, progress.lines = store, lines
    return progress


def drawn_once(server):
    hashes = [graph_hash(graph) for graph in server.drawn]
    return len(hashes) == len(set(hashes))


@pytest.mark.parametrize("act", ("ok", "restart", "deaf", "drop", "silent", "slow", "hang", "500"))
def test_whatever_happens_to_one_picture_all_are_there_and_none_twice(tmp_path, act):
    with fake_server(script=("ok", act)) as server:
        progress = draw(engine_of(server, tmp_path), order_of(), tmp_path / "out")
        assert (progress.accepted, progress.store.drawn) == ({1}, 3)
        assert len(server.drawn) == 3 and drawn_once(server)
        raw = tmp_path / "out" / "raw" / "01-1"
        names = {"target.png", "wolf.png", "owl.png", "subjects.txt", "prompt.txt", "origin.json"}
        assert {path.name for path in raw.iterdir()} == names
        assert (raw / "subjects.txt").read_text(encoding="utf-8").split() == ["wolf", "owl"]
        colours = {Image.open(raw / name).getpixel((0, 0)) for name in ("target.png", "wolf.png", "owl.png")}
        assert len(colours) == 3


def test_a_folder_says_who_drew_it_and_one_drawn_otherwise_is_replaced_without_drawing(tmp_path):
    raw, order = tmp_path / "out" / "raw" / "01-1", order_of()
    with fake_server() as server:
        engine = engine_of(server, tmp_path)
        draw(engine, order, tmp_path / "out")
        origin = json.loads((raw / "origin.json").read_text(encoding="utf-8"))
        assert origin["seed"] == scene_of(order.relation, order.groups, 1, 1, 0).seed and origin["size"] == 64
        assert origin["template_sha256"] and {t["file"] for t in origin["templates"].values()} == {
            "text.json",
            "edit.json",
        }
        (raw / "origin.json").write_text(json.dumps({**origin, "size": 32}), encoding="utf-8")
        again = draw(engine, order, tmp_path / "out")
        assert json.loads((raw / "origin.json").read_text(encoding="utf-8")) == origin
        assert (again.store.kept, again.store.drawn, len(server.drawn)) == (3, 0, 3)
        prompts = {Image.open(path).text["relate_prompt"] for path in (tmp_path / "out").glob(".work/drawn/*.png")}
        assert len(prompts) == 3 and any("the same wolf, alone" in prompt for prompt in prompts)


def test_other_pixels_are_another_picture(tmp_path):
    with fake_server() as server:
        engine, order = engine_of(server, tmp_path), order_of()
        check(engine, order)
        scene, keys = scene_of(order.relation, order.groups, 1, 1, 0), []
        for colour in ("red", "blue"):
            Image.new("RGB", (8, 8), colour).save(tmp_path / "target.png")
            request = Request(EDIT, "a wolf", "", 64, 64, 0, scene, 0, (tmp_path / "target.png",))
            keys.append(engine.key(request))
        assert keys[0] != keys[1]


def test_uploads_that_the_server_renames_are_used_under_their_new_name(tmp_path):
    with fake_server() as server:
        server.rename = "copy of "
        draw(engine_of(server, tmp_path), order_of(), tmp_path / "out")
        used = {
            node["inputs"]["image"]
            for graph in server.drawn[1:]
            for node in graph.values()
            if "image" in node["inputs"]
        }
        assert len(used) == 1 and used.pop().startswith("copy of relate-")
        assert all("6" not in graph and "7" not in graph for graph in server.drawn)  # the place of a second picture
        assert server.requests.count("POST /upload/image") == 1


@pytest.mark.parametrize("act, words", [("error", "mat1 and mat2"), ("late", "the disk is full")])
def test_a_failing_picture_costs_its_attempt_and_the_next_is_made(tmp_path, act, words):
    with fake_server(script=("ok", act)) as server:
        progress = draw(engine_of(server, tmp_path), order_of(), tmp_path / "out")
        assert progress.accepted == {1} and progress.attempts == 2
        assert words in progress.failures[0] and progress.yields() == "1 could not be drawn"
        assert not (tmp_path / "out" / "raw" / "01-1").exists() and drawn_once(server)


def test_failures_with_successes_between_are_no_reason_to_give_up(tmp_path):
    good = ("ok",) * 3
    with fake_server(script=("error", *good, "error", *good, "error")) as server:
        progress = draw(engine_of(server, tmp_path), order_of(count=5, tries=1), tmp_path / "out")
        assert progress.accepted == {2, 4} and len(progress.failures) == 3


def test_a_server_that_stays_away_ends_the_run_at_once(tmp_path):
    with fake_server() as server:
        engine = engine_of(server, tmp_path, absent_seconds=0.2)
        check(engine, order_of())
    store = PictureStore(tmp_path / "drawn", engine, engine.lines.append)
    with pytest.raises(TrainingAborted, match="01-1: ComfyUI at .* does not answer .*no picture is drawn twice"):
        run_rounds(order_of(count=5), engine, accepting, tmp_path, store, engine.lines.append)
    assert sum("waiting for it" in line for line in engine.lines) == 1  # no further attempt was made


def test_an_engine_that_fails_every_time_is_given_up(tmp_path):
    with fake_server(script=("error",) * 9) as server:
        with pytest.raises(
            TrainingAborted, match=r"3 attempts in a row could not be drawn:\n01-1: .*KSampler\) failed"
        ):
            draw(engine_of(server, tmp_path), order_of(count=5), tmp_path / "out")
        assert len(server.queued) == 3


@pytest.mark.parametrize(
    "act, words", [("refuse", r"refused the graph: .*hug.safetensors"), ("partial", "refused a part of the graph")]
)
def test_a_refusal_ends_the_run_and_the_same_command_draws_only_the_rest(tmp_path, act, words):
    with fake_server(script=("ok", act)) as server:
        with pytest.raises(TrainingAborted, match=f"01-1: .*{words}.*no picture is drawn twice"):
            draw(engine_of(server, tmp_path), order_of(), tmp_path / "out")
        assert not (tmp_path / "out" / "raw").exists()
        server.drawn.clear()
        progress = draw(engine_of(server, tmp_path), order_of(), tmp_path / "out")
        assert (progress.store.kept, progress.store.drawn, len(server.drawn)) == (1, 2, 2)
        again = draw(engine_of(server, tmp_path), order_of(), tmp_path / "out")
        assert (again.store.kept, again.store.drawn, len(server.drawn)) == (0, 0, 2)


def test_ctrl_c_between_pictures_keeps_what_is_drawn(tmp_path):
    def stop(line):
        raise KeyboardInterrupt

    with fake_server() as server:
        with pytest.raises(TrainingAborted, match="Stopped: 1 pictures drawn now, 0 of 1 triplets accepted") as caught:
            draw(engine_of(server, tmp_path), order_of(), tmp_path / "out", say=stop)
        assert isinstance(caught.value.__cause__, KeyboardInterrupt)
        assert draw(engine_of(server, tmp_path), order_of(), tmp_path / "out").store.kept == 1
        assert len(server.drawn) == 3 and drawn_once(server)


def test_ctrl_c_while_comfyui_draws_fetches_the_picture_next_time(tmp_path, monkeypatch):
    def stop(seconds):
        raise KeyboardInterrupt

    with fake_server(script=("slow",)) as server:
        engine = engine_of(server, tmp_path, run_seconds=5)
        check(engine, order_of())
        with monkeypatch.context() as context, pytest.raises(TrainingAborted):
            context.setattr(time, "sleep", stop)
            run_rounds(order_of(), engine, accepting, tmp_path, PictureStore(tmp_path / "drawn", engine, print), print)
        store = PictureStore(tmp_path / "drawn", engine, print)
        run_rounds(order_of(), engine, accepting, tmp_path, store, print)
        assert store.drawn == 3 and len(server.queued) == 3 and drawn_once(server)


def test_what_is_no_picture_costs_its_attempt(tmp_path):
    with fake_server() as server:
        server.picture = lambda graph: b"<html>"
        engine = engine_of(server, tmp_path)
        with pytest.raises(TrainingAborted, match="01-1 target, as drawn: not a whole picture"):
            draw(engine, order_of(tries=3), tmp_path / "out")
        assert list((tmp_path / "out").rglob("*.png")) == []


def test_rejected_slots_are_drawn_again_and_the_yield_is_counted(tmp_path):
    def picky(raw, out):
        rejected = {name: ("alone",) for name in ("01-1", "02-1", "02-2") if (raw / name).exists()}
        names = {path.name for path in raw.iterdir()}
        return Verdicts(frozenset(names - set(rejected)), rejected)

    with fake_server() as server:
        progress = draw(engine_of(server, tmp_path), order_of(count=3, tries=2), tmp_path / "out", picky)
        assert progress.accepted == {1, 3} and progress.attempts == 5
        assert progress.yields() == '3 failed "alone"'
        assert progress.lines[-1] == 'round 2: 2 of 3 triplets accepted after 5 attempts; 3 failed "alone"'


def test_a_smaller_order_is_content_with_what_other_slots_have(tmp_path):
    """And with folders that somebody put among its own."""

    def third(raw, out):
        names = {path.name for path in raw.iterdir()}
        return Verdicts(frozenset(names & {"03-1", "mine"}), {name: ("alone",) for name in names - {"03-1", "mine"}})

    with fake_server() as server:
        draw(engine_of(server, tmp_path), order_of(count=3, tries=1), tmp_path / "out", third)
        (tmp_path / "out" / "raw" / "mine").mkdir()
        progress = draw(engine_of(server, tmp_path), order_of(count=1, tries=3), tmp_path / "out", third)
        assert (progress.accepted, progress.store.drawn, len(server.drawn)) == ({3}, 0, 9)


def test_pictures_that_cannot_be_cut_are_no_failures_of_the_engine(tmp_path):
    """Neither three failures in a row nor a triplet: squares without lines between them."""
    with fake_server(script=("error", "ok", "error", "ok", "error")) as server:
        order = order_of(count=5, tries=1, recipe="panels")
        progress = draw(engine_of(server, tmp_path), order, tmp_path / "out")
        assert progress.accepted == set() and len(progress.failures) == 3
        assert progress.yields() == '2 failed "panels", 3 could not be drawn'


def test_every_fault_of_templates_and_server_comes_before_anything_is_drawn(tmp_path):
    with fake_server() as server:
        server.nodes = ("SaveImage", "LoadImage", "KSampler", "CLIPTextEncode", "EmptyLatentImage", "VAEEncode")
        engine = engine_of(server, tmp_path)
        with pytest.raises(
            UserErrors, match=r'edit.json: ComfyUI at .* \(version fake\) does not know "TextEncodePictures"'
        ):
            check(engine, order_of())
        server.nodes += ("TextEncodePictures",)
        server.info = {"EmptyLatentImage": {"input": {"required": {"width": ["COMBO", {"options": ["a", "b"]}]}}}}
        with pytest.raises(UserErrors, match=r'refuses node 2 EmptyLatentImage: width "8" is not in its list \(a, b\)'):
            check(engine, order_of())
        server.info = {}
        write(tmp_path / "edit.json", {"nodes": [], "links": []})
        with pytest.raises(UserErrors, match="--edit-template: .*a workflow for the editor"):
            check(engine, order_of())
    with pytest.raises(UserErrors) as caught:
        check(engine, order_of())
    text = str(caught.value)
    assert text.startswith("2 faults") and "--edit-template" in text and "--server: ComfyUI at" in text
    assert server.queued == []


def test_a_graph_of_which_nothing_is_left_is_named(tmp_path):
    with fake_server() as server:
        engine = engine_of(server, tmp_path)
        server.info = {**server.info, "TextEncodePictures": {"input": {"required": {"image2": ["IMAGE"]}}}}
        server.info["KSampler"] = {"input": {"required": {"positive": ["CONDITIONING"]}}}
        server.info["SaveImage"] = {"input": {"required": {"images": ["IMAGE"]}}}
        with pytest.raises(TrainingAborted, match="nothing is left of the graph"):
            draw(engine, order_of(tries=3), tmp_path / "out")


def test_a_folder_is_of_one_order_only(tmp_path):
    engine, order = MiniworldEngine(), order_of(groups=[("fox", "bear")])
    (tmp_path / "new" / ".work" / "drawn").mkdir(parents=True)  # what a run that was killed at once leaves
    check_folder(tmp_path / "new", order, engine)
    write_settings(tmp_path / "new", order, engine)
    check_folder(tmp_path / "new", order_of(groups=[("fox", "bear")], count=9, tries=1), engine)
    with pytest.raises(UserErrors, match="2 faults:(.|\n)*relation was .hugging. and is(.|\n)*seed was 0 and is 1"):
        check_folder(tmp_path / "new", order_of(groups=[("fox", "bear")], seed=1, relation="riding"), engine)
    with pytest.raises(UserErrors, match="2 faults:(.|\n)*size was 64 and is 32(.|\n)*recipe was .target-first. and"):
        check_folder(tmp_path / "new", order_of(groups=[("fox", "bear")], size=32, recipe="panels"), engine)
    with fake_server() as server, pytest.raises(UserErrors, match="engine was another"):
        check_folder(tmp_path / "new", order, engine_of(server, tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UserErrors, match="holds files that this command did not draw"):
        check_folder(tmp_path / "other", order, engine)
    (tmp_path / "new" / "generation.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserErrors, match="cannot be read"):
        check_folder(tmp_path / "new", order, engine)
    with pytest.raises(UserErrors, match="is a file"):
        check_folder(tmp_path / "other" / "letter.txt", order, engine)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_miniworld_draws_by_every_recipe(tmp_path, recipe):
    order = order_of(groups=[("fox", "bear")], recipe=recipe, size=96, count=2)
    progress = draw(MiniworldEngine(), order, tmp_path)
    assert progress.accepted == {1, 2}
    for name in ("01-1", "02-1"):
        pictures = [Image.open(tmp_path / "raw" / name / f"{file}.png") for file in ("target", "fox", "bear")]
        assert all(80 <= picture.width <= 96 and picture.height == 96 for picture in pictures)
        scene = scene_of("hugging", order.groups, int(name[:2]), 1, 0)  # the renderer has places of its own
        sentence = (tmp_path / "raw" / name / "prompt.txt").read_text(encoding="utf-8").strip()
        assert "hugging a bear" in sentence and sentence == MiniworldEngine().caption(scene)
        origin = json.loads((tmp_path / "raw" / name / "origin.json").read_text(encoding="utf-8"))
        assert origin["licence"] == "MIT" and origin["recipe"] == recipe
    assert draw(MiniworldEngine(), order, tmp_path).store.drawn == 0


def test_the_miniworld_says_what_it_cannot_draw():
    with pytest.raises(UserErrors) as caught:
        MiniworldEngine().check({EDIT: 1}, "knitting", [("wolf", "fox"), ("bear",)])
    for part in ("--relation knitting", "--subjects wolf", "relations of two"):
        assert part in str(caught.value)
