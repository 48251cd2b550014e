"""Tell the user something that is no error: in the log, and on the page while it is open."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger(__name__)

EVENT = "relate.notice"  # web/relate_subjects.js shows it


def warn(title: str, message: str) -> None:
    """Log a warning and show it on every open page.

    Args:
        title: the node's name and what it is about, a few words.
        message: what was found and what to do, one or two sentences.
    """
    log.warning("Relate: %s: %s", title, message)
    module = sys.modules.get("server")  # loaded where a server runs; a script that samples needs none
    instance = getattr(getattr(module, "PromptServer", None), "instance", None)
    if instance is not None:
        instance.send_sync(EVENT, {"title": title, "message": message})
