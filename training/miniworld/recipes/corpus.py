"""The cached renders all recipes train on: drawn once, kept as memory-mapped arrays under `out/miniworld/corpus`.

Every picture is drawn from its own seed (corpus seed, kind, index), so the corpus does not depend on how many
processes draw it. A bank of identities, each with several portraits, feeds the scenes; only seen identities and seen
relations enter.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..world.captions import draw_caption
from ..world.renderer import render
from ..world.scene import ScenePlan, draw_plan, portrait
from ..world.traits import CreatureTraits, draw_traits

PIXELS = 128


@dataclass(frozen=True)
class CorpusSize:
    """How much to draw: `scenes` pictures, `identities` creatures, `portraits` reference views of each; `seed`."""

    scenes: int = 12000
    identities: int = 3600
    portraits: int = 3
    seed: int = 0


def bank(size: CorpusSize) -> list[CreatureTraits]:
    """The seen identities of a corpus; the same list for the same seed."""
    rng = np.random.default_rng((size.seed, 0))
    return [draw_traits(rng) for _ in range(size.identities)]


def _portrait(size: CorpusSize, identities: list[CreatureTraits], index: int) -> tuple[np.ndarray, dict]:
    rng = np.random.default_rng((size.seed, 1, index))
    who = index // size.portraits
    plan = portrait(rng, identities[who])
    drawn = render(plan, PIXELS)
    described = draw_caption(rng, plan.relation, plan.identities, plan.backdrop, described=True)
    return drawn.image, {
        "who": [who],
        "relation": plan.relation,
        "described": described.prompt,
        "place": plan.backdrop.place,
        "boxes": np.round(drawn.boxes, 5).tolist(),
    }


def scene_plan(
    size: CorpusSize, identities: list[CreatureTraits], index: int
) -> tuple[np.random.Generator, list[int], ScenePlan]:
    """What scene `index` of a corpus shows: its generator, as far as it was used, who takes part, and the plan."""
    rng = np.random.default_rng((size.seed, 2, index))
    who = _different_species(rng, identities)
    plan = draw_plan(rng, identities=None)
    chosen = who[: len(plan.staging.poses)]
    plan = draw_plan(
        rng, relation=plan.relation, identities=tuple(identities[w] for w in chosen), backdrop=plan.backdrop
    )
    return rng, chosen, plan


def _scene(size: CorpusSize, identities: list[CreatureTraits], index: int) -> tuple[np.ndarray, dict]:
    rng, chosen, plan = scene_plan(size, identities, index)
    drawn = render(plan, PIXELS)
    described = draw_caption(rng, plan.relation, plan.identities, plan.backdrop, described=True)
    return drawn.image, {
        "who": chosen,
        "relation": plan.relation,
        "prompt": plan.caption.prompt,
        "names": plan.caption.names,
        "predicate": plan.caption.predicate,
        "described": described.prompt,
        "place": plan.backdrop.place,
        "boxes": np.round(drawn.boxes, 5).tolist(),
    }


def _different_species(rng: np.random.Generator, identities: list[CreatureTraits]) -> list[int]:
    found: list[int] = []
    while len(found) < 3:
        who = int(rng.integers(len(identities)))
        if all(identities[who].species != identities[other].species for other in found):
            found.append(who)
    return found


_DRAWERS = {"portraits": _portrait, "scenes": _scene}


def render_corpus(folder: Path, size: CorpusSize, processes: int) -> Iterator[str]:
    """Draws what is missing and yields one line of progress per 500 pictures.

    Args:
        folder: receives `portraits.npy`, `scenes.npy` (N, 128, 128, 3) uint8, `*.jsonl` with one line a picture, and
            `corpus.json`, written last: a folder without it is incomplete.
        size: how much.
        processes: how many draw at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identities = bank(size)
    counts = {"portraits": size.identities * size.portraits, "scenes": size.scenes}
    with ProcessPoolExecutor(processes) as pool:
        for kind, count in counts.items():
            images = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.uint8, (count, PIXELS, PIXELS, 3))
            with open(folder / f"{kind}.jsonl", "w", encoding="utf-8") as lines:
                work = partial(_DRAWERS[kind], size, identities)
                for index, (image, facts) in enumerate(pool.map(work, range(count), chunksize=50)):
                    images[index] = image
                    lines.write(json.dumps(facts) + "\n")
                    if index % 500 == 499:
                        yield f"{kind} {index + 1}/{count}"
            images.flush()
    facts = {**asdict(size), "pixels": PIXELS, "bank": [identity.code for identity in identities]}
    (folder / "corpus.json").write_text(json.dumps(facts), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Corpus:
    """A rendered corpus, opened for reading.

    Attributes:
        size: what it was drawn with.
        scenes, portraits: (N, 128, 128, 3) uint8, memory-mapped.
        scene_facts, portrait_facts: one dict a picture, see `render_corpus`.
    """

    size: CorpusSize
    scenes: np.ndarray
    portraits: np.ndarray
    scene_facts: list[dict]
    portrait_facts: list[dict]

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Opens a finished corpus.

        Raises:
            FileNotFoundError: when the folder holds no finished corpus.
        """
        if not (folder / "corpus.json").exists():
            raise FileNotFoundError(
                f"{folder}: expected a rendered corpus, found none; run python -m training.miniworld render"
            )
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        size = CorpusSize(**{key: facts[key] for key in ("scenes", "identities", "portraits", "seed")})
        lines = {
            kind: [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]
            for kind in ("scenes", "portraits")
        }
        arrays = {kind: np.load(folder / f"{kind}.npy", mmap_mode="r") for kind in ("scenes", "portraits")}
        return cls(size, arrays["scenes"], arrays["portraits"], lines["scenes"], lines["portraits"])
