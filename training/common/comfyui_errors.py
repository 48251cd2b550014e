"""What can go wrong between a client and a ComfyUI, and how the server's answers read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Graph = Mapping[str, Mapping[str, Any]]


class ComfyUIError(Exception):
    """Something went wrong with a ComfyUI; the message says what and, where that is known, what to do."""


class Unreachable(ComfyUIError):
    """No answer."""


class HttpRefusal(ComfyUIError):
    """An answer of 400 to 499.

    Attributes:
        status: the HTTP status.
        body: the answer.
    """

    def __init__(self, what: str, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        super().__init__(f"{what}: HTTP {status}, {body[:200].decode(errors='replace')}")


class Refused(ComfyUIError):
    """The graph was not accepted: a missing node, a missing file, a value out of range. Asking again does not help."""


class Failed(ComfyUIError):
    """A node of the graph raised an error, or the run was interrupted on the server."""


class TimedOut(ComfyUIError):
    """The graph ran longer than allowed; it was interrupted."""


class Lost(ComfyUIError):
    """The server does not know the graph any more: it was restarted or its queue was cleared."""


class Dropped(ComfyUIError):
    """The graph ended well but a picture that it should have written is not there."""


def refusal_text(refusal: HttpRefusal, graph: Graph) -> str:
    """List everything that the server has against a graph, node by node."""
    try:
        answer = json.loads(refusal.body)
    except ValueError:
        return f"HTTP {refusal.status}, {refusal.body[:200].decode(errors='replace')!r}"
    return fault_text(answer, graph, f"HTTP {refusal.status}")


def fault_text(answer: Mapping[str, Any], graph: Graph, otherwise: str) -> str:
    """Read the errors in an answer to POST /prompt.

    Args:
        answer: with `error`, `node_errors` or both.
        graph: that was sent.
        otherwise: what to say where there is no `error`.
    """
    error = answer.get("error", {})
    head = error if isinstance(error, str) else " ".join(filter(None, (error.get("message"), error.get("details"))))
    lines = [head or otherwise]
    for node, own in answer.get("node_errors", {}).items():
        title = own.get("class_type") or graph.get(node, {}).get("class_type", "?")
        lines += [
            f"node {node} ({title}): {fault.get('message', '')}: {fault.get('details', '')}"
            for fault in own.get("errors", ())
        ]
    return "; ".join(lines)


def failure_text(kind: str, message: Mapping[str, Any]) -> str:
    """Read an `execution_error` or `execution_interrupted` message of the history."""
    if kind == "execution_interrupted":
        return "the run was interrupted on the server."
    text = str(message.get("exception_message", "")).strip() or str(message.get("exception_type", "an error"))
    return f"node {message.get('node_id')} ({message.get('node_type')}) failed: {text}"
