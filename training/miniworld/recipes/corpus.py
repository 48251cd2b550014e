"""Renders that all recipes train on: drawn once, each from its own random stream, stored under `<out>/corpus`.

The corpus does not depend on how many processes draw it. A bank of identities, each with several portraits, feeds the
scenes; only seen identities and seen relations enter. Every scene is stored with its boxes, its keypoints and the share
of each latent cell that each creature covers, so no recipe has to draw it again.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np

from ..world.captions import draw_caption
from ..world.renderer import Render, render
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan, draw_plan, portrait
from ..world.traits import CreatureTraits, draw_traits
from .packed_images import PackedImages, compress, write_packed

PIXELS, PORTRAIT_PIXELS = 128, 256
CELLS = 16  # latent cells along each side
MOST_SUBJECTS = 3


@dataclass(frozen=True)
class CorpusSize:
    """Size of a corpus: `scenes` pictures, `identities` creatures, `portraits` reference views of each; `seed`."""

    scenes: int = 12000
    identities: int = 3600
    portraits: int = 3
    seed: int = 0


def bank(size: CorpusSize) -> list[CreatureTraits]:
    """Draw the seen identities of a corpus; the same list for the same seed."""
    rng = generator(size.seed, Stream.BANK)
    return [draw_traits(rng) for _ in range(size.identities)]


def _portrait(size: CorpusSize, identities: list[CreatureTraits], index: int) -> tuple[bytes, dict, None]:
    rng = generator(size.seed, Stream.PORTRAIT, index)
    who = index // size.portraits
    plan = portrait(rng, identities[who])
    rendering = render(plan, PORTRAIT_PIXELS)
    described = draw_caption(rng, plan.relation, plan.cast, plan.backdrop, described=True)
    facts = {"who": [who], "relation": plan.relation, "described": described.prompt}
    return compress(rendering.image), facts | _place(plan, rendering), None


def scene_plan(
    size: CorpusSize, identities: list[CreatureTraits], index: int
) -> tuple[np.random.Generator, list[int], ScenePlan]:
    """Plan scene `index` of a corpus: its generator, as far as it was used, the identities, and the plan."""
    rng = generator(size.seed, Stream.SCENE, index)
    who = _different_species(rng, identities)
    first = draw_plan(rng)
    chosen = who[: len(first.staging.poses)]
    cast = tuple(identities[index] for index in chosen)
    return rng, chosen, draw_plan(rng, relation=first.relation, cast=cast, backdrop=first.backdrop)


def _scene(size: CorpusSize, identities: list[CreatureTraits], index: int) -> tuple[bytes, dict, Render]:
    rng, chosen, plan = scene_plan(size, identities, index)
    rendering = render(plan, PIXELS)
    described = draw_caption(rng, plan.relation, plan.cast, plan.backdrop, described=True)
    facts = {
        "who": chosen,
        "relation": plan.relation,
        "prompt": plan.caption.prompt,
        "names": plan.caption.names,
        "predicate": plan.caption.predicate,
        "described": described.prompt,
    }
    return compress(rendering.image), facts | _place(plan, rendering), rendering


def _place(plan: ScenePlan, rendering: Render) -> dict:
    return {"place": plan.backdrop.place, "boxes": np.round(rendering.boxes, 5).tolist()}


def cover_of(masks: np.ndarray, cells: int = CELLS) -> np.ndarray:
    """Average (S, H, W) bool masks to (S, cells, cells) uint8, 255 where a cell is wholly covered."""
    subjects, height, width = masks.shape
    blocks = masks.reshape(subjects, cells, height // cells, cells, width // cells)
    return np.round(255 * blocks.mean((2, 4))).astype(np.uint8)


def _different_species(rng: np.random.Generator, identities: list[CreatureTraits]) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < MOST_SUBJECTS:
        who = int(rng.integers(len(identities)))
        if all(identities[who].species != identities[other].species for other in chosen):
            chosen.append(who)
    return chosen


def render_corpus(folder: Path, size: CorpusSize, processes: int) -> Iterator[str]:
    """Draw a corpus, portraits first, and yield a line after each kind of picture; nothing to do if it exists.

    Args:
        folder: receives `portraits.pack`, `scenes.pack`, `*.jsonl` with a line for each picture, `scenes.npz` and,
            written last, `corpus.json`: a folder without it is incomplete.
        size: of the corpus.
        processes: that draw at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "corpus.json"
    if done.exists() and _size_of(json.loads(done.read_text(encoding="utf-8"))) == size:
        return
    done.unlink(missing_ok=True)
    identities = bank(size)
    jobs = {
        "portraits": (size.identities * size.portraits, _portrait, PORTRAIT_PIXELS),
        "scenes": (size.scenes, _scene, PIXELS),
    }
    with ProcessPoolExecutor(processes) as pool:
        for kind, (count, draw, side) in jobs.items():
            truth = _Truth(count)
            results = pool.map(partial(draw, size, identities), range(count), chunksize=50)
            with open(folder / f"{kind}.jsonl", "w", encoding="utf-8") as lines:
                steps = _collected(results, lines, truth)
                write_packed(folder / f"{kind}.pack", steps, side)
            yield f"{kind}: {count} drawn"
            if kind == "scenes":
                np.savez_compressed(folder / "scenes.npz", **truth.arrays)
    facts = {**asdict(size), "pixels": PIXELS, "bank": [traits.code for traits in identities]}
    done.write_text(json.dumps(facts), encoding="utf-8")


def _size_of(facts: dict) -> CorpusSize:
    return CorpusSize(**{name: facts[name] for name in vars(CorpusSize())})


class _Truth:
    """Arrays filled while scenes are drawn."""

    def __init__(self, count: int) -> None:
        self.arrays = {
            "who": np.full((count, MOST_SUBJECTS), -1, np.int32),
            "boxes": np.zeros((count, MOST_SUBJECTS, 4), np.float32),
            "keypoints": np.zeros((count, MOST_SUBJECTS, 17, 3), np.float32),
            "cover": np.zeros((count, MOST_SUBJECTS, CELLS, CELLS), np.uint8),
        }

    def add(self, index: int, who: list[int], rendering: Render) -> None:
        count = len(who)
        self.arrays["who"][index, :count] = who
        self.arrays["boxes"][index, :count] = rendering.boxes
        self.arrays["keypoints"][index, :count] = rendering.keypoints
        self.arrays["cover"][index, :count] = cover_of(rendering.masks)


def _collected(results: Iterator[tuple[bytes, dict, Render | None]], lines: TextIO, truth: _Truth) -> Iterator[bytes]:
    """Pass pictures on to the packed file; write facts and truth aside."""
    for index, (picture, facts, rendering) in enumerate(results):
        lines.write(json.dumps(facts) + "\n")
        if rendering is not None:
            truth.add(index, facts["who"], rendering)
        yield picture


@dataclass(frozen=True, eq=False)
class Corpus:
    """A rendered corpus, opened for reading.

    Attributes:
        size: of the corpus.
        bank: its identities.
        scenes: N pictures of 128 pixels; portraits: of 256 pixels, identity by identity.
        scene_facts, portrait_facts: a dict for each picture, see `render_corpus`.
        who: (N, 3) identities, -1 for none; boxes: (N, 3, 4); keypoints: (N, 3, 17, 3); cover: (N, 3, 16, 16) uint8.
    """

    size: CorpusSize
    bank: list[CreatureTraits]
    scenes: PackedImages
    portraits: PackedImages
    scene_facts: list[dict]
    portrait_facts: list[dict]
    who: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    cover: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Open a finished corpus.

        Raises:
            FileNotFoundError: the folder holds no finished corpus.
        """
        if not (folder / "corpus.json").exists():
            raise FileNotFoundError(
                f"{folder}: expected a rendered corpus, got none; run python -m training.miniworld render"
            )
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        lines = [
            [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]
            for kind in ("scenes", "portraits")
        ]
        packs = [PackedImages(folder / f"{kind}.pack") for kind in ("scenes", "portraits")]
        identities = [CreatureTraits.from_code(code) for code in facts["bank"]]
        arrays = dict(np.load(folder / "scenes.npz"))
        return cls(_size_of(facts), identities, *packs, *lines, **arrays)
