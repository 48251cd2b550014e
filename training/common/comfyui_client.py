"""A client of a running ComfyUI: upload, queue, wait, fetch; survives restarts, hangs and dropped files.

A graph is queued under an id that is a hash of its contents, so asking again for a graph that the server still runs or
remembers runs nothing twice: a command that was killed takes up where it stopped. One graph is queued at a time.
Routes (ComfyUI 0.3.64 and later): POST /prompt, GET /history/{id}, GET /queue, GET /view, POST /upload/image,
POST /interrupt, POST /free, GET /object_info. Standard library only.
"""

from __future__ import annotations

import hashlib
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .comfyui_errors import (
    ComfyUIError,
    Dropped,
    Failed,
    Graph,
    HttpRefusal,
    Lost,
    Refused,
    TimedOut,
    Unreachable,
    failure_text,
    fault_text,
    refusal_text,
)
from .comfyui_graph import Finished, choices_of, graph_hash, images_of
from .comfyui_http import Connection, Patience

__all__ = [
    "ComfyUIClient",
    "ComfyUIError",
    "Dropped",
    "Failed",
    "Finished",
    "Lost",
    "Patience",
    "Refused",
    "TimedOut",
    "Unreachable",
    "graph_hash",
]

_IDS = uuid.UUID("6f0c1a52-3a60-4f0e-9d0c-3f5f3f1d2b7a")  # namespace of this client's prompt ids
_IN_QUEUE = ("queue_running", "queue_pending")


class ComfyUIClient:
    """One ComfyUI.

    Args:
        url: e.g. `http://127.0.0.1:8188`; `http://` may be left out.
        patience: time limits and numbers of attempts.
        headers: sent with every request, e.g. `Authorization` of a proxy before the server.
        say: receives one line about every trouble that is survived.
    """

    def __init__(
        self,
        url: str,
        patience: Patience | None = None,
        headers: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.patience, self.say = patience or Patience(), say
        self.connection = Connection(url, self.patience, dict(headers or {}), say)
        self.url = self.connection.url
        self._uploaded: dict[str, str] = {}

    def check(self) -> dict[str, Any]:
        """Request the server's versions once (`/system_stats`).

        Raises:
            Unreachable: no answer; nothing is tried again, so that a wrong address is reported at once.
        """
        return self.connection.json("GET", "/system_stats", once=True)

    def missing_nodes(self, graph: Graph) -> list[str]:
        """List the class types of a graph that the server does not have."""
        available = self.connection.json("GET", "/object_info")
        return sorted({value["class_type"] for value in graph.values()} - set(available))

    def choices(self, class_type: str, name: str) -> list[str]:
        """Return what a combo input offers, e.g. the files of `LoraLoader`'s `lora_name`; empty without one."""
        info = self.connection.json("GET", f"/object_info/{urllib.parse.quote(class_type)}").get(class_type, {})
        return choices_of(info, name) or []

    def upload(self, path: Path) -> str:
        """Store a picture among the server's inputs under a name made of its contents, once for each client.

        Returns:
            What LoadImage's `image` is to be set to.

        Raises:
            OSError: the file cannot be read.
            ComfyUIError: the server did not take it.
        """
        data = path.read_bytes()
        name = f"relate-{hashlib.sha256(data).hexdigest()[:24]}{path.suffix.lower()}"
        if name not in self._uploaded:
            answer = self.connection.upload("/upload/image", name, data)
            if not isinstance(answer.get("name"), str):
                raise ComfyUIError(f"ComfyUI at {self.url}: expected the name of the uploaded picture, got {answer}.")
            folder = answer.get("subfolder", "")
            self._uploaded[name] = f"{folder}/{answer['name']}" if folder else answer["name"]
        return self._uploaded[name]

    def run(self, graph: Graph, nodes: Sequence[str]) -> Finished:
        """Run a graph and fetch the pictures of some nodes; what hangs, is lost or dropped is queued again.

        Args:
            graph: in API format.
            nodes: ids of the nodes (SaveImage, PreviewImage) whose pictures are wanted.

        Raises:
            Refused: the server does not accept the graph; lists every reason.
            Failed: a node failed; repeats its message.
            TimedOut, Lost, Dropped: still so after `patience.attempts` attempts.
            Unreachable: the server did not come back.
        """
        remembered = self._outputs(self._id(graph, 0))
        if isinstance(remembered, Mapping):
            try:
                return Finished(self._id(graph, 0), remembered, self._pictures(remembered, nodes), 0)
            except Dropped as error:
                self.say(f"{error} It is drawn again.")
                self.free()
        for attempt in range(1, self.patience.attempts + 1):
            prompt_id = self._id(graph, attempt - 1)
            try:
                self._queue(graph, prompt_id)
                outputs = self._wait(prompt_id)
                return Finished(prompt_id, outputs, self._pictures(outputs, nodes), attempt)
            except (Dropped, Lost, TimedOut) as error:
                if attempt == self.patience.attempts:
                    raise type(error)(f"{error} Gave up after {attempt} attempts.") from error
                self.say(f"{error} Attempt {attempt + 1} of {self.patience.attempts}.")
                if isinstance(error, Dropped):
                    self.free()
        raise ValueError(f"patience.attempts = {self.patience.attempts}: expected at least 1")

    def free(self) -> None:
        """Let the server forget its models and cached outputs."""
        self.connection.request("POST", "/free", {"unload_models": True, "free_memory": True})

    @staticmethod
    def _id(graph: Graph, attempt: int) -> str:
        return str(uuid.uuid5(_IDS, f"{graph_hash(graph)} {attempt}"))

    def _queue(self, graph: Graph, prompt_id: str) -> None:
        """Queue a graph unless the server has it queued already: an answer that got lost queues nothing twice."""
        if self._in_queue(prompt_id):
            return
        self.connection.request("POST", "/history", {"delete": [prompt_id]})  # an old failure is not an answer
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": "relate"}
        try:
            answer = self.connection.json("POST", "/prompt", body, sent=lambda: self._has(prompt_id))
        except HttpRefusal as refusal:
            raise Refused(f"ComfyUI at {self.url} refused the graph: {refusal_text(refusal, graph)}") from refusal
        if answer.get("node_errors"):  # accepted without the outputs that are not valid
            self._stop(prompt_id)
            self.connection.request("POST", "/history", {"delete": [prompt_id]})
            reasons = fault_text(answer, graph, "some outputs are not valid")
            raise Refused(f"ComfyUI at {self.url} refused a part of the graph: {reasons}")

    def _in_queue(self, prompt_id: str) -> str:
        """Return `queue_running`, `queue_pending`, or nothing."""
        queue = self.connection.json("GET", "/queue")
        return next((state for state in _IN_QUEUE if any(item[1] == prompt_id for item in queue.get(state, ()))), "")

    def _has(self, prompt_id: str) -> bool:
        """Tell whether the server runs, has queued or remembers a graph."""
        return bool(self._in_queue(prompt_id) or self.connection.json("GET", f"/history/{prompt_id}"))

    def _outputs(self, prompt_id: str) -> Mapping[str, Any] | Failed | None:
        """Return what a run ended with: its outputs, its failure, or None if it has not ended."""
        entry = self.connection.json("GET", f"/history/{prompt_id}").get(prompt_id)
        if entry is None:
            return None
        messages = dict(entry.get("status", {}).get("messages", ()))
        for kind in ("execution_error", "execution_interrupted"):
            if kind in messages:
                return Failed(f"ComfyUI at {self.url}: {failure_text(kind, messages[kind])}")
        return entry.get("outputs", {})

    def _wait(self, prompt_id: str) -> Mapping[str, Any]:
        """Poll until a queued graph has ended; its time limit starts again when it leaves the waiting line."""
        state, since, pause = "queue_pending", time.monotonic(), 0.02
        while True:
            outputs = self._outputs(prompt_id)
            if outputs is None:
                place = self._in_queue(prompt_id)
                if not place:  # it may have ended between the two questions
                    outputs = self._outputs(prompt_id)
                if not place and outputs is None:
                    raise Lost(
                        f"ComfyUI at {self.url} no longer knows the graph: it was restarted, or its queue was cleared."
                    )
            if isinstance(outputs, Failed):
                raise outputs
            if outputs is not None:
                return outputs
            # the time limit counts from the last change of place
            if place != state:
                state, since = place, time.monotonic()
            if time.monotonic() - since > self.patience.run_seconds:
                self._stop(prompt_id)
                raise TimedOut(
                    f"ComfyUI at {self.url}: the graph has been "
                    f"{'running' if state == 'queue_running' else 'waiting in the queue'} for "
                    f"{self.patience.run_seconds:g} s and was stopped."
                )
            time.sleep(pause)
            pause = min(2 * pause, self.patience.poll_seconds)

    def _stop(self, prompt_id: str) -> None:
        """Interrupt a graph and take it out of the queue."""
        self.connection.request("POST", "/interrupt", {"prompt_id": prompt_id})
        self.connection.request("POST", "/queue", {"delete": [prompt_id]})

    def _pictures(self, outputs: Mapping[str, Any], nodes: Sequence[str]) -> tuple[bytes, ...]:
        """Download what some nodes wrote.

        Raises:
            Dropped: a node wrote nothing, or a file is gone or empty.
        """
        silent = [node for node in nodes if not images_of(outputs, [node])]
        if silent:
            raise Dropped(f"ComfyUI at {self.url}: no picture came from node {', '.join(silent)}.")
        pictures = []
        for image in images_of(outputs, nodes):
            query = {key: image.get(key, "") for key in ("filename", "subfolder", "type")}
            try:
                data = self.connection.request("GET", f"/view?{urllib.parse.urlencode(query)}")
            except HttpRefusal as refusal:
                raise Dropped(
                    f"ComfyUI at {self.url}: {image.get('filename')} cannot be fetched ({refusal.status})."
                ) from refusal
            if not data:
                raise Dropped(f"ComfyUI at {self.url}: {image.get('filename')} is empty.")
            pictures.append(data)
        return tuple(pictures)
