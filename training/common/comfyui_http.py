"""HTTP to a ComfyUI with patience: requests that fail or answer 5xx are repeated, those that answer 4xx are not."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .comfyui_errors import ComfyUIError, HttpRefusal, Unreachable

_LONGEST_PAUSE = 5.0  # seconds between two attempts


@dataclass(frozen=True)
class Patience:
    """How long a client waits for what.

    Attributes:
        request_seconds: for the answer to one request.
        absent_seconds: for a server that cannot be reached to come back; a restart with large models takes minutes.
        run_seconds: for a graph to end, and before that for its turn in the queue.
        poll_seconds: between two looks at a running graph.
        attempts: how often a graph that hangs, is lost or dropped is queued; and a request that answers 5xx is sent.
    """

    request_seconds: float = 30.0
    absent_seconds: float = 300.0
    run_seconds: float = 1800.0
    poll_seconds: float = 0.5
    attempts: int = 3


class Connection:
    """Requests to one server; see `ComfyUIClient` for the arguments."""

    def __init__(self, url: str, patience: Patience, headers: dict[str, str], say: Callable[[str], None]) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected ComfyUI's address, e.g. http://127.0.0.1:8188, got {url!r}")
        self.patience, self.headers, self.say = patience, headers, say
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")  # a proxy cannot reach this machine
        self.opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))

    def json(
        self, method: str, path: str, body: Any = None, once: bool = False, sent: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """Send a `request` and read its answer as a JSON object.

        Raises:
            ComfyUIError: as `request`, or the answer is no JSON object.
        """
        return self._object(path, self.request(method, path, body, once=once, sent=sent))

    def _object(self, path: str, data: bytes) -> dict[str, Any]:
        if not data.strip():
            return {}
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ComfyUIError(
                f"{self.url}{path}: expected ComfyUI's JSON, got {data[:80]!r}. Is this the address of a ComfyUI?"
            )
        return answer

    def upload(self, path: str, name: str, data: bytes) -> dict[str, Any]:
        """POST a file as the browser does; an existing one of that name is overwritten."""
        edge = uuid.uuid4().hex
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        tail = f'\r\n--{edge}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{edge}--\r\n'
        answer = self.request(
            "POST", path, head.encode() + data + tail.encode(), kind=f"multipart/form-data; boundary={edge}"
        )
        return self._object(path, answer)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        once: bool = False,
        sent: Callable[[], bool] | None = None,
    ) -> bytes:
        """Send one request, repeated while the server is away or answers 5xx.

        Args:
            method, path: as HTTP has them.
            body: bytes, or what is sent as JSON; None sends nothing.
            kind: content type of the body.
            once: do not repeat.
            sent: called after a broken connection: whether the request arrived all the same; then it is not repeated.

        Raises:
            HttpRefusal: 400 to 499.
            Unreachable: no answer within `patience.absent_seconds`, or 5xx `patience.attempts` times.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {**self.headers, **({"Content-Type": kind} if data is not None else {})}
        away_since, errors, pause = None, 0, 0.1
        while True:  # an answer of 5xx counts attempts, a server that is away counts seconds
            call = urllib.request.Request(self.url + path, data, headers, method=method)
            try:
                with self.opener.open(call, timeout=self.patience.request_seconds) as response:
                    return response.read()
            except urllib.error.HTTPError as error:
                answer = error.read()
                if error.code < 500:
                    raise HttpRefusal(f"{self.url}{path}", error.code, answer) from error
                errors, away_since = errors + 1, None
                trouble = f"HTTP {error.code}"
                give_up = once or errors >= self.patience.attempts
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                now = time.monotonic()
                trouble = str(getattr(error, "reason", error)) or type(error).__name__
                if away_since is None:
                    away_since = now
                    if not once:
                        self.say(f"ComfyUI at {self.url} does not answer ({trouble}); waiting for it.")
                give_up = once or now - away_since >= self.patience.absent_seconds
            if give_up:
                raise Unreachable(
                    f"ComfyUI at {self.url} does not answer ({trouble}). Start it there, or give its address."
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if sent is not None and sent():
                return b""
