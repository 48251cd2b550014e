"""Show the pack's warnings on the page too, as few users read the log."""

from __future__ import annotations

import logging
import sys

EVENT = "relate.notice"  # web/relate_subjects.js shows it


class PageHandler(logging.Handler):
    """Send warnings to every open page of the running server."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        module = sys.modules.get("server")  # loaded where a server runs; a script that samples needs none
        server = getattr(getattr(module, "PromptServer", None), "instance", None)
        if server is not None:
            server.send_sync(EVENT, {"title": "Relate", "message": record.getMessage().removeprefix("Relate: ")})


def show_on_page(package: str) -> None:
    """Show the warnings of a package and all its modules on the page, each once however often this is called."""
    logger = logging.getLogger(package)
    if not any(isinstance(handler, PageHandler) for handler in logger.handlers):
        logger.addHandler(PageHandler())
