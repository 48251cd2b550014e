"""Everything the commands say goes through here."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping

from .errors import Faults


class Stopped(Exception):
    """A run that began and cannot go on; what happened and how to go on. It ends with exit code 1."""


def say(text: str) -> None:
    """One message to the user, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def command(run: Callable[[], None]) -> int:
    """Run a command; its exit code: 0 done, 1 stopped on the way, 2 bad input, 130 Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("httpx", "transformers", "diffusers", "accelerate", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        run()
    except Faults as faults:
        sys.stderr.write(f"{faults}\n")
        return 2
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        return 130 if isinstance(stopped.__cause__, KeyboardInterrupt) else 1
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped before the first step; nothing was lost.\n")
        return 130
    return 0


class Progress:
    """One line a second: step, losses, learning rate, steps a second, time left.

    Args:
        first, last: steps of this process: from ``first`` (0-based) to ``last``.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.started = self.spoken = time.monotonic()
        self.quiet = False

    def due(self, done: int) -> bool:
        """Whether a second has passed or this was the last step; asking costs nothing on the GPU."""
        return not self.quiet and (time.monotonic() - self.spoken >= 1 or done == self.last)

    def tell(self, done: int, losses: Mapping[str, float], rate: float) -> None:
        """The line after ``done`` steps."""
        self.spoken = time.monotonic()
        a_second = (done - self.first) / max(self.spoken - self.started, 1e-9)
        left = (self.last - done) / max(a_second, 1e-9)
        parts = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        say(f"step {done}/{self.last}  {parts}  lr {rate:.2e}  {a_second:.2f} steps/s  {clock(left)} left")


def clock(seconds: float) -> str:
    """65 to 1:05, 3700 to 1:01:40."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
