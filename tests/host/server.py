"""A real ComfyUI server for the tests: started on a free port with its own empty folders, spoken to over HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 180
RUN_SECONDS = 300


@dataclass(frozen=True)
class Run:
    """What became of one queued graph."""

    status: str  # success | error | interrupted | refused
    outputs: dict = field(default_factory=dict)  # node id -> what the node showed
    executed: frozenset = frozenset()  # ids of the nodes that ran, not taken from the cache
    error: str = ""  # one text with everything the user would be shown
    seconds: float = 0.0


class ComfyServer:
    """One `python main.py --cpu`; use as a context manager. `log` is everything it has printed."""

    def __init__(self, comfyui: Path, base: Path, packs: dict[str, Path], flags: tuple[str, ...] = ()):
        """Lay out `base` (models, input, output) and link `packs` (folder name -> folder) into its custom_nodes."""
        self.comfyui, self.base, self.flags = comfyui, base, flags
        for folder in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, folder in packs.items():
            link = base / "custom_nodes" / name
            if not link.exists():
                link.symlink_to(folder, target_is_directory=True)
        self.log_path = base / "comfyui.log"
        self.process: subprocess.Popen | None = None
        self.url = ""
        self.start_log = ""  # what it printed until it was ready
        self._queued_at: dict[str, int] = {}  # by prompt, the length of the log when it was queued

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> ComfyServer:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        database = f"sqlite:///{self.base / 'user' / 'comfyui.db'}"  # else ComfyUI's own folder gets one
        command = [sys.executable, "main.py", "--port", str(port), "--base-directory", str(self.base),
                   "--database-url", database, *self.flags]  # fmt: skip
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.comfyui,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/queue")
                self.start_log = self.log
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        self.__exit__()
        raise RuntimeError(f"ComfyUI did not start within {START_SECONDS} s. The end of its log:\n{self.log[-4000:]}")

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def get(self, path: str) -> dict:
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return response.read()

    def post(self, path: str, value: object) -> dict:
        """POST JSON; an answer that refuses (400) is returned like any other."""
        request = urllib.request.Request(
            self.url + path, json.dumps(value).encode(), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as refused:
            text = refused.read()
        return json.loads(text) if text.strip() else {}

    def upload(self, name: str, png: bytes) -> str:
        """Store an image where LoadImage finds it, as the browser does; returns the name to put in the graph."""
        edge = uuid.uuid4().hex
        disposition = f'form-data; name="image"; filename="{name}"'
        head = f"--{edge}\r\nContent-Disposition: {disposition}\r\nContent-Type: image/png\r\n\r\n"
        tail = f'\r\n--{edge}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{edge}--\r\n'
        request = urllib.request.Request(
            self.url + "/upload/image",
            head.encode() + png + tail.encode(),
            headers={"Content-Type": f"multipart/form-data; boundary={edge}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["name"]

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def free(self) -> None:
        """Ask ComfyUI to unload every model and forget every cached output."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def object_info(self) -> dict:
        return self.get("/object_info")

    def queue(self, graph: dict) -> str:
        """Queue an API-format graph and return its id without waiting.

        Raises:
            ValueError: it is refused, or a part of it is: ComfyUI then still runs the outputs that need no such node.
        """
        before = len(self.log)
        answer = self.post("/prompt", {"prompt": graph})
        if "prompt_id" not in answer or answer.get("node_errors"):
            raise ValueError(_refusal(answer))
        self._queued_at[answer["prompt_id"]] = before
        return answer["prompt_id"]

    def wait_for_step(self, prompt_id: str, steps: int) -> None:
        """Wait until the sampler of a queued graph has done a step, as its progress bar in the log says."""
        self.wait_for_log(prompt_id, rf"\| [1-9]\d*/{steps} \[")

    def wait_for_log(self, prompt_id: str, pattern: str) -> None:
        """Wait until the log says something, from the moment on when a graph was queued.

        Raises:
            TimeoutError: it does not.
        """
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            if re.search(pattern, self.log[self._queued_at[prompt_id] :]):
                return
            time.sleep(0.1)
        raise TimeoutError(f"no {pattern!r} in {RUN_SECONDS} s. The end of the log:\n{self.log[-4000:]}")

    def wait(self, prompt_id: str, graph: dict) -> Run:
        """Wait for a queued graph and say what happened to it."""
        start = time.monotonic()
        while time.monotonic() - start < RUN_SECONDS:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return _run_of(entry, graph, time.monotonic() - start)
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI died. The end of its log:\n{self.log[-4000:]}")
            time.sleep(0.05)
        raise TimeoutError(f"the graph did not finish in {RUN_SECONDS} s. The end of the log:\n{self.log[-4000:]}")

    def run(self, graph: dict) -> Run:
        """Queue a graph and wait; a refused graph comes back with status `refused`."""
        try:
            prompt_id = self.queue(graph)
        except ValueError as refused:
            return Run("refused", error=str(refused))
        return self.wait(prompt_id, graph)

    def images(self, run: Run, nodes: list[str] | None = None) -> list[bytes]:
        """The files that SaveImage and PreviewImage nodes of a run wrote: all of them, or those of some nodes."""
        outputs = [output for node_id, output in run.outputs.items() if nodes is None or node_id in nodes]
        shown = [image for output in outputs for image in output.get("images", [])]
        query = "/view?filename={filename}&subfolder={subfolder}&type={type}"
        return [self.get_bytes(query.format(**image).replace(" ", "%20")) for image in shown]


def device_flags() -> tuple[str, ...]:
    """What ComfyUI must be told where there is no GPU."""
    import torch

    return () if torch.cuda.is_available() else ("--cpu",)


def _refusal(answer: dict) -> str:
    """Everything the page shows when a graph, or a part of it, is refused before it runs."""
    lines = [str(answer.get("error", {}).get("message", "Some outputs cannot be made"))]
    for node in answer.get("node_errors", {}).values():
        lines += [f"{node['class_type']}: {error['message']}: {error['details']}" for error in node["errors"]]
    return "\n".join(lines)


def _run_of(entry: dict, graph: dict, seconds: float) -> Run:
    messages = dict(entry["status"]["messages"])
    cached = frozenset(messages.get("execution_cached", {}).get("nodes", ()))
    if "execution_success" in messages:
        return Run("success", entry["outputs"], frozenset(graph) - cached, "", seconds)
    stopped = messages.get("execution_interrupted") or messages.get("execution_error", {})
    error = f"{stopped.get('node_type')}: {stopped.get('exception_message', '')}".strip()
    status = "interrupted" if "execution_interrupted" in messages else "error"
    return Run(status, entry["outputs"], frozenset(stopped.get("executed", ())) - cached, error, seconds)
