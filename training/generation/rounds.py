"""Draw, annotate, and draw again what was rejected, until enough triplets are accepted or the tries are used up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.cli import TrainingAborted, clock
from ..common.comfyui_client import ComfyUIError, Refused, Unreachable
from .picture_store import PictureStore
from .raw_folder import is_written, write_raw
from .recipes import RECIPES
from .request import Engine, NotUsable
from .scenes import Scene, scene_of, slot_of
from .wording import Wording, caption

GO_ON = "The same command goes on where it stopped; no picture is drawn twice."
MOST_FAILURES = 3  # attempts in a row that cannot be drawn, before the engine is given up


@dataclass(frozen=True)
class Order:
    """Relation, subjects and number of the triplets to draw.

    Attributes:
        relation: words of the relation, e.g. "hugging".
        groups: subjects that appear together; they take turns.
        count: of accepted triplets.
        tries: attempts at each.
        seed: of everything.
        size: pixels along a side of a picture.
        recipe: a key of RECIPES.
        words: prompts, poses and places.
    """

    relation: str
    groups: Sequence[tuple[str, ...]]
    count: int
    tries: int
    seed: int
    size: int
    recipe: str
    words: Wording


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of the annotation on folders of raw pictures.

    Attributes:
        accepted: names of folders.
        rejected: name to the gates it failed.
    """

    accepted: frozenset[str]
    rejected: Mapping[str, tuple[str, ...]]


Annotate = Callable[[Path, Path], Verdicts]


@dataclass
class Progress:
    """Counts of a run.

    Attributes:
        attempts: begun, each slot's first, second ...
        accepted: slots that have a triplet.
        failed: gate to the attempts that failed it.
        failures: one line for each attempt that could not be drawn.
        failures_in_a_row: attempts since the last one that could be drawn.
    """

    attempts: int = 0
    accepted: set[int] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    failures_in_a_row: int = 0

    def yields(self) -> str:
        """Sum up why attempts failed, e.g. `14 failed "alone", 9 "pose differs"`."""
        parts = [f'{number} failed "{gate}"' for gate, number in self.failed.most_common()]
        return ", ".join([*parts, *([f"{len(self.failures)} could not be drawn"] if self.failures else [])])


def run_rounds(
    order: Order, engine: Engine, annotate: Annotate, out: Path, store: PictureStore, say: Callable[[str], None]
) -> Progress:
    """Draw and annotate in rounds until `order.count` slots are accepted or have had `order.tries` attempts.

    Args:
        order: relation, subjects and number of triplets.
        engine: draws; checked already.
        annotate: judges a folder of raw pictures; called once per round, with more of them each time.
        out: receives `raw/` and the annotation's files.
        store: cache of the pictures.
        say: receives progress.

    Raises:
        TrainingAborted: Ctrl-C, or the engine cannot be reached or refuses; says how to go on.
    """
    progress, unusable = Progress(), {}
    try:
        for attempt in range(1, order.tries + 1):
            if len(progress.accepted) >= order.count:
                break
            waiting = [slot for slot in range(1, order.count + 1) if slot not in progress.accepted]
            for place, slot in enumerate(waiting):
                scene = scene_of(order.relation, order.groups, slot, attempt, order.seed)
                progress.attempts += 1
                _draw_attempt(scene, order, engine, out, store, progress, unusable)
                _say_time(store, order, len(waiting) - place - 1, say)
            _judge(annotate, out, progress, unusable)
            say(
                f"round {attempt}: {len(progress.accepted)} of {order.count} triplets accepted after "
                f"{progress.attempts} attempts" + (f"; {progress.yields()}" if progress.yields() else "")
            )
    except KeyboardInterrupt as stop:
        raise TrainingAborted(
            f"Stopped: {store.drawn} pictures drawn now, {len(progress.accepted)} of {order.count} triplets accepted. "
            f"{GO_ON} What ComfyUI still draws is fetched then."
        ) from stop
    return progress


def _draw_attempt(
    scene: Scene,
    order: Order,
    engine: Engine,
    out: Path,
    store: PictureStore,
    progress: Progress,
    unusable: dict[str, str],
) -> None:
    """Make one folder of raw pictures; faults of single pictures are counted, not raised."""
    origin = origin_of(engine, order, scene)
    if is_written(out / "raw", scene, origin):
        return
    try:
        pictures = RECIPES[order.recipe].draw(scene, order.words, order.size, store.picture)
        sentence = engine.caption(scene) or caption(order.words, scene)
        write_raw(out / "raw", scene, pictures, sentence, origin, store.folder)
        progress.failures_in_a_row = 0
    except NotUsable as error:
        unusable[scene.folder] = error.gate
        progress.failures_in_a_row = 0
        store.say(f"{scene.folder}: {error}")
    except (Unreachable, Refused) as error:  # the next picture would end the same way
        raise TrainingAborted(f"{scene.folder}: {error} {GO_ON}") from error
    except (ComfyUIError, ValueError) as error:
        progress.failures.append(f"{scene.folder}: {error}")
        store.say(f"not drawn: {progress.failures[-1]}")
        progress.failures_in_a_row += 1
        if progress.failures_in_a_row >= MOST_FAILURES:
            raise TrainingAborted(
                f"{MOST_FAILURES} attempts in a row could not be drawn:\n"
                + "\n".join(progress.failures[-MOST_FAILURES:])
                + f"\n{GO_ON}"
            ) from error


def _judge(annotate: Annotate, out: Path, progress: Progress, unusable: Mapping[str, str]) -> None:
    """Annotate everything drawn so far, and count."""
    raw = out / "raw"
    verdicts = annotate(raw, out) if raw.is_dir() else Verdicts(frozenset(), {})
    progress.accepted = {slot for name in verdicts.accepted if (slot := slot_of(name))}
    progress.failed = Counter(gate for gates in verdicts.rejected.values() for gate in gates)
    progress.failed.update(unusable.values())


def origin_of(engine: Engine, order: Order, scene: Scene) -> dict[str, Any]:
    """Describe the origin of an attempt's pictures; its line of `triplets.jsonl` repeats it."""
    return {**engine.facts, "recipe": order.recipe, "size": order.size, "seed": scene.seed}


def _say_time(store: PictureStore, order: Order, remaining: int, say: Callable[[str], None]) -> None:
    """Print the time that the rest of the round takes, once it can be estimated."""
    if remaining and store.drawn and store.seconds > 1:
        roles = RECIPES[order.recipe].roles(len(order.groups[0]))
        pictures = 1 if len(roles) == 1 else 1 + len(order.groups[0])
        seconds = remaining * pictures * store.seconds / store.drawn
        say(f"{remaining} attempts of this round left, about {clock(seconds)}")
