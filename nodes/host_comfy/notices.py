"""Tell the user something that is no error: in the log, and on the page while it is open."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

EVENT = "relate.notice"  # web/relate_subjects.js shows it


def warn(title: str, message: str) -> None:
    """Log a warning and show it on every open page.

    Args:
        title: the node's name and what it is about, a few words.
        message: what was found and what to do, one or two sentences.
    """
    from server import PromptServer  # at run time: the server does not exist while packs load

    log.warning("Relate: %s: %s", title, message)
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(EVENT, {"title": title, "message": message})
