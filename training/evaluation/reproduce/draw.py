"""Draw the missing pictures one by one; a kill loses at most the one in work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...common.cli import TrainingAborted, clock
from ...common.comfyui_client import ComfyUIError, Refused, Unreachable
from .engines import Engine
from .jobs import Job, save_job

_EVERY = 5.0  # seconds between two lines of progress


@dataclass(frozen=True)
class DrawResult:
    """Counts of one run of the loop.

    Attributes:
        pictures: number of pictures drawn.
        seconds: spent on them.
        failures: one line for each picture that could not be drawn.
    """

    pictures: int
    seconds: float
    failures: tuple[str, ...]


def draw_all(jobs: Sequence[Job], engine: Engine, say: Callable[[str], None]) -> DrawResult:
    """Draw jobs one after the other and save each at once.

    Raises:
        TrainingAborted: Ctrl-C, or the server cannot be reached or refuses every graph; says how to go on.
    """
    began = last_line = time.monotonic()
    failures: list[str] = []
    done = 0
    for number, job in enumerate(jobs, 1):
        try:
            save_job(job, engine.draw(job))
            done += 1
        except KeyboardInterrupt as error:
            raise TrainingAborted(f"Stopped: {done} of {len(jobs)} pictures were drawn now. {GO_ON}") from error
        except (Unreachable, Refused) as error:  # the next picture would end the same way
            raise TrainingAborted(
                f"{job.file.name}: {error} {done} of {len(jobs)} pictures were drawn now. {GO_ON}"
            ) from error
        except (ComfyUIError, ValueError) as error:
            failures.append(f"{job.method}/{job.file.name}: {error}")
            say(f"not drawn: {failures[-1]}")
        now = time.monotonic()
        if now - last_line >= _EVERY or number == len(jobs):
            last_line = now
            each = (now - began) / number
            say(
                f"picture {number}/{len(jobs)}  {job.method}/{job.file.name}  {each:.1f} s each  "
                f"{clock(each * (len(jobs) - number))} left"
            )
    return DrawResult(done, time.monotonic() - began, tuple(failures))


GO_ON = "The same command goes on where it stopped."
