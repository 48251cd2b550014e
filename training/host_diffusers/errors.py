"""What is wrong with model files, in sentences that name the key of the config."""

from __future__ import annotations

from collections.abc import Iterable


class ModelFileErrors(ValueError):
    """One or more model files that cannot be used.

    Attributes:
        messages: one sentence each: which file, what was expected, what came, what to do.
    """

    def __init__(self, messages: Iterable[str] | str) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__("\n".join(self.messages))


def one_line(error: BaseException) -> str:
    """Return a library's message without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
