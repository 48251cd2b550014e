"""What every command shares: its exit codes, its messages, its stops."""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from .errors import UserErrors
from .folder_lock import FolderInUse

_stopped_at = -math.inf  # when the last stop was asked for, in `time.monotonic`
_requested_stop: type[KeyboardInterrupt] | None = None  # the stop that the command was asked for
_AGAIN = 2.0  # seconds in which further Ctrl-C are taken for the same one: fingers press twice, shells send twice


class TrainingAborted(Exception):
    """A run that began and cannot go on; what happened and how to go on. It ends with exit code 1."""


class Terminated(KeyboardInterrupt):
    """A stop by the system, as by Ctrl-C: a job's time is over, a container is shut down."""


def say(text: str) -> None:
    """Print one message to the user at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def command(run: Callable[[], object], log_format: str = "%(message)s") -> int:
    """Run a command and return its exit code: 0 done, 1 stopped on the way, 2 bad input, 130 Ctrl-C, 143 terminated."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows no Chinese gets \\u62e5, not a traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format=log_format, datefmt="%H:%M:%S", stream=sys.stdout)
    for noisy in ("httpx", "transformers", "diffusers", "accelerate", "PIL"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        with _one_stop_at_a_time():
            run()
    except UserErrors as faults:
        sys.stderr.write(f"{faults}\n")
        return 2
    except TrainingAborted as stopped:
        sys.stderr.write(f"{stopped}\n")
        return _code_of(stopped.__cause__)
    except OSError as error:
        sys.stderr.write(f"Reading or writing failed: {error}. Mend that, and start the same command again.\n")
        return 1
    except KeyboardInterrupt as stop:
        sys.stderr.write("Stopped; the same command begins again.\n")
        return _code_of(stop)
    return 0


def leave(code: int) -> NoReturn:
    """End the process with an exit code; a Ctrl-C that comes while Python shuts down no longer changes the code.

    Python gives signals their default handlers back before it ends, but leaves those alone that are ignored.
    """
    if code in (130, 143):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def going_on(run: Callable[[], object], again: str) -> None:
    """Run a command that trains in a folder; whatever stops it, the message names the command that resumes it.

    Args:
        run: the command.
        again: the command that resumes it.

    Raises:
        UserErrors: something that `run` needs is not there, or in use.
        TrainingAborted: Ctrl-C, or reading or writing failed.
    """
    try:
        run()
    except (FileNotFoundError, FolderInUse) as error:
        raise UserErrors(str(error)) from error
    except KeyboardInterrupt as stop:
        raise TrainingAborted(
            f"Stopped; what is finished, and the last checkpoint, stay. Go on with: {again}"
        ) from stop
    except OSError as error:
        raise TrainingAborted(
            f"Reading or writing failed: {error}. What is finished, and the last checkpoint, stay. Go on with: {again}"
        ) from error


def _code_of(cause: BaseException | None) -> int:
    if isinstance(cause, KeyboardInterrupt):
        return 143 if isinstance(cause, Terminated) else 130
    return 1


@contextmanager
def _one_stop_at_a_time() -> Iterator[None]:
    """Let Ctrl-C and a terminating system interrupt once, so that the message about it is not interrupted too."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    global _requested_stop
    _requested_stop = None
    handlers = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():  # not after a stop: the second of two comes while Python ends
        signal.signal(number, handler)


def stop_if_asked() -> None:
    """Raise a stop that was lost: Python drops what a signal raises in a finaliser or a weak reference's callback.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; as Terminated, by the system.
    """
    if _requested_stop is not None:
        raise _requested_stop


def _stop(number: int, _frame: object) -> None:
    global _stopped_at, _requested_stop
    if time.monotonic() - _stopped_at < _AGAIN:
        return
    _stopped_at = time.monotonic()
    _requested_stop = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    raise _requested_stop


def shell_command(module: str, arguments: Sequence[str], processes: int = 1) -> str:
    """Return a command as it can be typed here, quoted where it must be.

    Args:
        module: e.g. ``training.finetune``.
        arguments: of it.
        processes: more than one are started by accelerate.
    """
    start = [_python(), "-m"] if processes == 1 else ["accelerate", "launch", f"--num_processes={processes}", "-m"]
    words = [*start, module, *map(str, arguments)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _python() -> str:
    """Return the interpreter that runs now, as short as the shell finds it."""
    on_path, current = shutil.which("python"), Path(sys.executable)
    if on_path and os.path.abspath(on_path) == os.path.abspath(current):
        return "python"
    return str(current.relative_to(Path.cwd())) if current.is_relative_to(Path.cwd()) else str(current)


class Progress:
    """One line per second: step, losses, learning rate, steps per second, time left.

    Args:
        first, last: steps of this process: from ``first`` (0-based) to ``last``.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.started = self.last_shown = time.monotonic()

    def due(self, done: int) -> bool:
        """Tell whether a second has passed or this was the last step, without waiting for the GPU."""
        return time.monotonic() - self.last_shown >= 1 or done == self.last

    def tell(self, done: int, losses: Mapping[str, float], rate: float) -> None:
        """Show the line after ``done`` steps."""
        self.last_shown = time.monotonic()
        speed = (done - self.first) / max(self.last_shown - self.started, 1e-9)
        seconds_left = (self.last - done) / max(speed, 1e-9)
        parts = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        say(f"step {done}/{self.last}  {parts}  lr {rate:.2e}  {speed:.2f} steps/s  {clock(seconds_left)} left")


def clock(seconds: float) -> str:
    """Format seconds: 65 as 1:05, 3700 as 1:01:40."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
