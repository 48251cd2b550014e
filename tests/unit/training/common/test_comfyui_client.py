"""The client against a server that refuses, hangs, restarts, drops files and loses answers."""

import pytest

from tests.fake_comfyui import FakeComfyUI
from training.common.comfyui_client import (
    ComfyUIClient,
    ComfyUIError,
    Dropped,
    Failed,
    Lost,
    Patience,
    Refused,
    TimedOut,
    Unreachable,
)
from training.common.comfyui_graph import graph_hash

QUICK = Patience(request_seconds=2, absent_seconds=5, run_seconds=0.3, poll_seconds=0.02, attempts=3)
GRAPH = {
    "1": {"class_type": "KSampler", "inputs": {"seed": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}


def client(server, **changes):
    lines = []
    made = ComfyUIClient(server.url, Patience(**{**vars(QUICK), **changes}), say=lines.append)
    made.lines = lines
    return made


def test_a_graph_is_drawn_and_its_picture_fetched():
    with FakeComfyUI() as server:
        finished = client(server).run(GRAPH, ["2"])
        assert (finished.pictures, finished.attempts) == ((b"picture",), 1)
        assert client(server).check()["system"]["comfyui_version"] == "fake"


def test_a_graph_that_the_server_has_drawn_already_is_not_drawn_again():
    with FakeComfyUI() as server:
        client(server).run(GRAPH, ["2"])
        again = client(server).run(GRAPH, ["2"])
        assert (again.pictures, again.attempts, len(server.queued)) == ((b"picture",), 0, 1)
        other = {**GRAPH, "1": {"class_type": "KSampler", "inputs": {"seed": 2}}}
        assert client(server).run(other, ["2"]).attempts == 1


def test_a_graph_that_is_still_running_is_waited_for_and_not_queued_again():
    with FakeComfyUI(script=("hang",)) as server:
        prompt_id = ComfyUIClient._id(GRAPH, 0)
        client(server)._queue(GRAPH, prompt_id)
        server.draw(prompt_id, GRAPH, "ok")
        assert client(server).run(GRAPH, ["2"]).attempts == 0
        assert len(server.queued) == 1


def test_the_hash_is_of_contents_not_of_order_or_titles():
    titled = {node: {**value, "_meta": {"title": node}} for node, value in reversed(GRAPH.items())}
    assert graph_hash(titled) == graph_hash(GRAPH)
    assert graph_hash({**GRAPH, "3": GRAPH["1"]}) != graph_hash(GRAPH)


def test_a_refused_graph_is_not_asked_again_and_every_reason_is_given():
    with FakeComfyUI(script=("refuse",)) as server:
        with pytest.raises(Refused, match=r"node 2 \(LoraLoader\): Value not in list: lora_name: 'hug.safetensors'"):
            client(server).run(GRAPH, ["2"])
        assert server.requests.count("POST /prompt") == 1


def test_a_graph_that_is_accepted_in_part_is_refused_and_its_run_removed():
    """200 with node_errors: the server drops the outputs that are not valid and draws the rest."""
    with FakeComfyUI(script=("partial",)) as server:
        with pytest.raises(
            Refused, match=r"refused a part .*node 7 \(PreviewImage\): Required input is missing: images"
        ):
            client(server).run(GRAPH, ["2"])
        assert server.requests[-3:] == ["POST /interrupt", "POST /queue", "POST /history"] and not server.history


def test_pictures_of_a_run_that_failed_later_do_not_count():
    with FakeComfyUI(script=("late",)) as server:
        with pytest.raises(Failed, match=r"node 9 \(SaveImage\) failed: the disk is full"):
            client(server).run(GRAPH, ["2"])


@pytest.mark.parametrize(
    "answer, words", [(b"<html>", "expected ComfyUI's JSON, got b'<html>'"), (b"{}", "expected the name of the upload")]
)
def test_an_upload_that_is_answered_by_something_else_is_an_error(tmp_path, answer, words):
    (tmp_path / "a.png").write_bytes(b"picture")
    with FakeComfyUI() as server:
        server.route = lambda *_: (200, answer)
        with pytest.raises(ComfyUIError, match=words):
            client(server).upload(tmp_path / "a.png")


def test_a_slow_graph_is_waited_for():
    with FakeComfyUI(script=("slow",)) as server:
        assert client(server, run_seconds=5).run(GRAPH, ["2"]).pictures == (b"picture",)
        assert len(server.queued) == 1


def test_a_failing_node_is_named_with_its_message():
    with FakeComfyUI(script=("error",)) as server:
        with pytest.raises(Failed, match=r"node 3 \(KSampler\) failed: mat1 and mat2 do not fit"):
            client(server).run(GRAPH, ["2"])
        assert len(server.queued) == 1


def test_an_old_failure_is_no_answer_after_its_cause_is_gone():
    with FakeComfyUI(script=("error",)) as server:
        with pytest.raises(Failed):
            client(server).run(GRAPH, ["2"])
        assert client(server).run(GRAPH, ["2"]).attempts == 1


def test_a_hanging_graph_is_interrupted_and_queued_again():
    with FakeComfyUI(script=("hang",)) as server:
        comfy = client(server)
        assert comfy.run(GRAPH, ["2"]).attempts == 2
        assert "POST /interrupt" in server.requests and "was stopped" in comfy.lines[0]


def test_a_graph_that_always_hangs_is_given_up():
    with FakeComfyUI(script=("hang",) * 2) as server:
        with pytest.raises(TimedOut, match="running for 0.3 s and was stopped. Gave up after 2 attempts"):
            client(server, attempts=2).run(GRAPH, ["2"])
        assert server.running == {}


def test_a_restart_in_the_middle_loses_nothing():
    with FakeComfyUI(script=("restart",)) as server:
        comfy = client(server)
        assert comfy.run(GRAPH, ["2"]).pictures == (b"picture",)
        assert len(server.drawn) == 1 and "does not answer" in comfy.lines[0]


def test_a_queue_that_is_cleared_every_time_is_given_up():
    with FakeComfyUI(script=("hang",) * 2) as server:
        comfy, real = client(server, attempts=2), server.route

        def route(method, path, query, body):
            answer = real(method, path, query, body)
            if path == "/prompt":
                server.forget()
            return answer

        server.route = route
        with pytest.raises(Lost, match="no longer knows the graph.*Gave up after 2 attempts"):
            comfy.run(GRAPH, ["2"])


def test_a_server_that_is_stopped_and_started_again_is_waited_for():
    import threading

    with FakeComfyUI() as server:
        port = server.server.server_port
        server.stop()
        timer = threading.Timer(0.4, server.start, (port,))
        timer.start()
        comfy = client(server)
        assert comfy.run(GRAPH, ["2"]).attempts == 1
        assert len([line for line in comfy.lines if "waiting for it" in line]) == 1
        timer.join()


def test_an_answer_that_is_lost_queues_nothing_twice():
    with FakeComfyUI(script=("deaf",)) as server:
        assert client(server).run(GRAPH, ["2"]).pictures == (b"picture",)
        assert len(server.queued) == 1


@pytest.mark.parametrize("act, words", [("drop", "cannot be fetched (404)"), ("silent", "no picture came from node 2")])
def test_a_dropped_picture_is_drawn_again(act, words):
    with FakeComfyUI(script=(act,)) as server:
        comfy = client(server)
        assert comfy.run(GRAPH, ["2"]).attempts == 2
        assert words in comfy.lines[0] and "POST /free" in server.requests


def test_a_picture_that_is_dropped_every_time_is_given_up():
    with FakeComfyUI(script=("drop",) * 3) as server, pytest.raises(Dropped, match="Gave up after 3 attempts"):
        client(server).run(GRAPH, ["2"])


def test_a_remembered_run_whose_file_is_gone_is_drawn_again():
    with FakeComfyUI() as server:
        client(server).run(GRAPH, ["2"])
        server.files.clear()
        comfy = client(server)
        assert comfy.run(GRAPH, ["2"]).attempts == 1
        assert "drawn again" in comfy.lines[0]


def test_internal_errors_are_asked_again_a_few_times():
    with FakeComfyUI(script=("500", "500")) as server:
        assert client(server).run(GRAPH, ["2"]).attempts == 1
        server.script = ["500"] * 3
        with pytest.raises(Unreachable, match="HTTP 500"):
            client(server).run({"9": GRAPH["2"]}, ["9"])


def test_a_wrong_address_is_reported_at_once():
    with FakeComfyUI() as server:
        url = server.url
    with pytest.raises(Unreachable, match=f"{url} does not answer .*Start it there, or give its address"):
        ComfyUIClient(url, QUICK).check()
    with pytest.raises(ValueError, match="expected ComfyUI's address, e.g. http://127.0.0.1:8188, got 'ftp:"):
        ComfyUIClient("ftp://somewhere")


def test_what_is_no_comfyui_is_said_so():
    with FakeComfyUI() as server:
        server.facts = lambda path, body: ["a web page"]
        with pytest.raises(ComfyUIError, match="Is this the address of a ComfyUI"):
            client(server).check()


def test_a_picture_is_uploaded_once_under_the_name_of_its_contents(tmp_path):
    for name, data in {"a.PNG": b"one", "b.png": b"one", "c.png": b"two"}.items():
        (tmp_path / name).write_bytes(data)
    with FakeComfyUI() as server:
        comfy = client(server)
        names = [comfy.upload(tmp_path / name) for name in ("a.PNG", "b.png", "c.png")]
        assert names[0] == names[1] != names[2] and names[0].endswith(".png")
        assert server.requests.count("POST /upload/image") == 2
        assert b"\r\n\r\none\r\n" in server.uploads[names[0]]


def test_nodes_that_the_server_lacks_are_named():
    with FakeComfyUI() as server:
        graph = {**GRAPH, "3": {"class_type": "RelateSubject", "inputs": {}}}
        assert client(server).missing_nodes(graph) == ["RelateSubject"]
