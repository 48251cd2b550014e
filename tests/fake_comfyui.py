"""A ComfyUI that draws nothing and misbehaves on command: it refuses, hangs, restarts, drops files, loses answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


def saved(graph: dict) -> list[str]:
    """Ids of a graph's SaveImage nodes."""
    return [node for node, value in graph.items() if value["class_type"] == "SaveImage"]


class FakeComfyUI:
    """A server on a free port; use as a context manager.

    Args:
        picture: makes the file that every SaveImage of a graph writes.
        script: what becomes of each POST /prompt in turn; "ok" when it is used up. "refuse": 400. "error": a node
            fails. "hang": runs until it is interrupted. "drop": the file is gone. "silent": no file is named.
            "restart": everything is forgotten, and nothing answered for a moment. "deaf": queued, but the connection
            breaks before the answer. "500": an internal error, nothing is queued.
            "partial": 200 with node_errors, the rest of the graph is drawn. "late": a node fails after others have
            written pictures. "slow": ends after `slow` seconds.

    Attributes:
        queued: graphs accepted, in order; drawn: those that ended with a picture.
        requests: every "METHOD path".
    """

    def __init__(self, picture: Callable[[dict], bytes] = lambda graph: b"picture", script: tuple[str, ...] = ()):
        self.picture, self.script = picture, list(script)
        self.queued: list[dict] = []
        self.drawn: list[dict] = []
        self.requests: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.history: dict[str, dict] = {}
        self.running: dict[str, dict] = {}
        self.nodes = ("SaveImage", "LoadImage", "KSampler")
        self.info: dict[str, dict] = {}  # of nodes whose inputs matter
        self.rename = ""  # what is put before the names of uploads
        self.slow = 0.2
        self.down_until = 0.0
        self.lock = threading.RLock()
        self.server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FakeComfyUI:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                fake.answer(self, "GET")

            def do_POST(self) -> None:
                fake.answer(self, "POST")

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def forget(self) -> None:
        """What a restart does: queue and history are gone, files stay."""
        with self.lock:
            self.history, self.running = {}, {}

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        with self.lock:
            self.requests.append(f"{method} {parts.path}")
            if time.monotonic() < self.down_until:
                handler.close_connection = True
                return handler.connection.close()
            status, data = self.route(method, parts.path, parse_qs(parts.query), body)
        if status == 0:
            handler.close_connection = True
            return handler.connection.close()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def route(self, method: str, path: str, query: dict, body: bytes) -> tuple[int, bytes]:
        if path == "/view":
            data = self.files.get(query["filename"][0])
            return (404, b"") if data is None else (200, data)
        if path == "/upload/image":
            name = body.split(b'filename="')[1].split(b'"')[0].decode()
            self.uploads[name] = body
            return 200, json.dumps({"name": self.rename + name, "subfolder": "", "type": "input"}).encode()
        if path == "/prompt":
            return self.prompt(json.loads(body))
        return 200, json.dumps(self.facts(path, json.loads(body) if body else {})).encode()

    def facts(self, path: str, body: dict) -> dict:
        if path.startswith("/history/"):
            prompt_id = path.removeprefix("/history/")
            return {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
        if path == "/history":
            for prompt_id in body.get("delete", ()):
                self.history.pop(prompt_id, None)
        if path == "/queue":
            return {
                "queue_running": [[0, prompt_id, graph] for prompt_id, graph in self.running.items()],
                "queue_pending": [],
            }
        if path == "/interrupt":
            for prompt_id in list(self.running):
                self.end(prompt_id, "execution_interrupted", {})
        if path.startswith("/object_info"):
            return {name: self.info.get(name, {}) for name in self.nodes}
        return {"system": {"comfyui_version": "fake"}} if path == "/system_stats" else {}

    def prompt(self, body: dict) -> tuple[int, bytes]:
        act = self.script.pop(0) if self.script else "ok"
        prompt_id, graph = body["prompt_id"], body["prompt"]
        if act == "500":
            return 500, b"internal error"
        if act == "refuse":
            faults = {
                "2": {
                    "class_type": "LoraLoader",
                    "errors": [{"message": "Value not in list", "details": "lora_name: 'hug.safetensors' not in []"}],
                }
            }
            return 400, json.dumps(
                {"error": {"message": "Prompt outputs failed validation", "details": ""}, "node_errors": faults}
            ).encode()
        self.queued.append(graph)
        self.running[prompt_id] = graph
        if act == "error":
            self.end(
                prompt_id,
                "execution_error",
                {"node_id": "3", "node_type": "KSampler", "exception_message": "mat1 and mat2 do not fit"},
            )
        elif act == "late":
            self.draw(prompt_id, graph, "silent")
            outputs = {node: {"images": [{"filename": "part.png"}]} for node in saved(graph)[:1]}
            failure = {"node_id": "9", "node_type": "SaveImage", "exception_message": "the disk is full"}
            self.history[prompt_id] = {"status": {"messages": [["execution_error", failure]]}, "outputs": outputs}
        elif act == "slow":
            threading.Timer(self.slow, self.finish, (prompt_id, graph)).start()
        elif act == "restart":
            self.forget()
            self.down_until = time.monotonic() + 0.2
            return 0, b""
        elif act != "hang":
            self.draw(prompt_id, graph, act)
        faults = {
            "7": {
                "class_type": "PreviewImage",
                "errors": [{"message": "Required input is missing", "details": "images"}],
            }
        }
        answer = {"prompt_id": prompt_id, "node_errors": faults if act == "partial" else {}}
        return (0, b"") if act == "deaf" else (200, json.dumps(answer).encode())

    def finish(self, prompt_id: str, graph: dict) -> None:
        """End a slow run, unless it was interrupted meanwhile."""
        with self.lock:
            if prompt_id in self.running:
                self.draw(prompt_id, graph, "ok")

    def draw(self, prompt_id: str, graph: dict, act: str) -> None:
        outputs = {}
        for node in saved(graph):
            name = f"{prompt_id}-{node}.png"
            self.files[name] = self.picture(graph)
            outputs[node] = {"images": [{"filename": name, "subfolder": "", "type": "output"}]}
            if act == "drop":
                del self.files[name]
        self.running.pop(prompt_id)
        self.history[prompt_id] = {
            "status": {"messages": [["execution_success", {}]]},
            "outputs": {} if act == "silent" else outputs,
        }
        if act not in ("drop", "silent"):
            self.drawn.append(graph)

    def end(self, prompt_id: str, kind: str, message: dict) -> None:
        self.running.pop(prompt_id)
        self.history[prompt_id] = {"status": {"messages": [[kind, message]]}, "outputs": {}}
