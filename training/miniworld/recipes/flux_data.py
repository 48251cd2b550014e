"""What the small Flux trains on: scenes of one or two creatures, their references' latents, and whose each token is.

`encode` has made the scenes' latents. The references' latents and the exact masks, from scenes planned anew from their
seeds, are computed once into `<out>/flux_data`.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...common.atomic_io import atomic_write, write_text
from ...host_diffusers.miniworld.architectures import LATENT_SIDE, VAE
from ...host_diffusers.miniworld.flux_text import PlaceholderWords, with_placeholders
from ..world.renderer import render
from ..world.traits import CreatureTraits
from . import vae
from .corpus import Corpus, CorpusSize, bank, scene_plan
from .encoded_corpus import frozen_vae

TOKEN_SIDE = LATENT_SIDE // 2
SUBJECTS = 2
PLAIN, ALONE = 0.1, 0.1  # steps without references, the negative of guidance; steps on scenes of one creature
NO_TEXT, NO_TEXT_BASE = 0.8, 0.1  # of the scenes of a plain step: of a variant, of the base
WORDED, TURNED = 0.5, 0.5  # prompts with placeholders (DreamO, section 3.3); references in the other order


@dataclass(frozen=True, eq=False)
class FluxBatch:
    """One step's scenes, all with the same number R of references.

    Attributes:
        latents: (B, 4, 16, 16) of unit variance.
        ids: (B, L) of `PlaceholderWords`.
        references: R times (B, 4, 16, 16); None for a plain step.
        targets: (B, R, 8, 8) share of each token that a reference's creature covers.
        places: (B, R) where [ref#1], [ref#2] stand in the prompt; worded: (B,) bool, whether they do.
    """

    latents: Tensor
    ids: Tensor
    references: list[Tensor] | None
    targets: Tensor
    places: Tensor
    worded: Tensor

    def to(self, device: torch.device) -> "FluxBatch":
        references = None if self.references is None else [each.to(device) for each in self.references]
        rest = (self.latents, self.ids, self.targets, self.places, self.worded)
        latents, ids, *others = (each.to(device) for each in rest)
        return FluxBatch(latents, ids, references, *others)


@dataclass(frozen=True, eq=False)
class FluxData:
    """Scenes of one and two creatures.

    Attributes:
        latents: (N, 4, 16, 16) float16; portraits: (identities * views, 4, 16, 16) float16.
        cover: (N, 2, 8, 8) uint8, 255 for a token wholly of that creature.
        who: (N, 2) identities, -1 for none.
        plain, turned, worded: (N, L) ids of the prompt without placeholders, with [ref#2] before [ref#1], and in order.
        views: portraits an identity.
        words: what made the ids.
    """

    latents: np.ndarray
    portraits: np.ndarray
    cover: np.ndarray
    who: np.ndarray
    plain: Tensor
    worded: Tensor
    turned: Tensor
    views: int
    words: PlaceholderWords

    @classmethod
    def open(cls, out: Path) -> "FluxData":
        """Opens what `encode` and `prepare` made.

        Raises:
            FileNotFoundError: not encoded or not prepared yet.
        """
        _check_encoded(out)
        folder = out / "flux_data"
        if _made(folder) != _source(out):
            raise FileNotFoundError(f"{folder}: expected latents and masks of this corpus; prepare them first")
        corpus = Corpus.open(out / "corpus")
        scenes = np.load(out / "encoded" / "scenes.npy")
        facts = [corpus.scene_facts[scene] for scene in scenes]
        kept = [row for row, fact in enumerate(facts) if len(fact["who"]) <= SUBJECTS]
        facts = [facts[row] for row in kept]
        words = PlaceholderWords()
        prompts = [fact["prompt"] for fact in facts]
        ordered, turned = (
            [with_placeholders(fact["prompt"], fact["names"], slots(len(fact["who"]), turn)) for fact in facts]
            for turn in (False, True)
        )
        return cls(
            np.load(out / "encoded" / "latents.npy")[kept],
            np.load(folder / "portraits.npy"),
            np.load(folder / "cover.npy")[scenes[kept]],
            np.array([[*fact["who"], -1][:SUBJECTS] for fact in facts]),
            *map(words.ids, (prompts, ordered, turned)),
            corpus.size.portraits,
            words,
        )

    def draw(self, batch: int, generator: torch.Generator) -> FluxBatch:
        """A step's scenes: pairs, one creature alone, or no references at all; views and order by chance."""
        draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        kind, alone = draw.random(), self.who[:, 1] < 0
        plain, count = kind < PLAIN, 1 if PLAIN <= kind < PLAIN + ALONE and alone.any() else SUBJECTS
        rows = draw.choice(np.flatnonzero(alone == (count == 1)), size=batch)
        if plain:
            return self._plain(rows, NO_TEXT, draw)
        latents = torch.from_numpy(self.latents[rows]).float()
        worded, turned = (torch.from_numpy(draw.random(batch) < share) for share in (WORDED, TURNED))
        turned &= count > 1
        said = torch.where(turned[:, None], self.turned[rows], self.worded[rows])
        ids = torch.where(worded[:, None], said, self.plain[rows])
        order = np.where(turned.numpy()[:, None], [[1, 0]], [[0, 1]])[:, :count]  # which creature each slot has
        who = np.take_along_axis(self.who[rows], order, axis=1)
        views = who * self.views + draw.integers(self.views, size=who.shape)
        cover = np.take_along_axis(self.cover[rows], order[..., None, None], axis=1)
        return FluxBatch(
            latents,
            ids,
            [torch.from_numpy(self.portraits[column]).float() for column in views.T],
            torch.from_numpy(cover).float() / 255,
            self.words.places(ids, count),
            worded,
        )

    def draw_plain(self, batch: int, generator: torch.Generator) -> FluxBatch:
        """A step's scenes without references, most with their prompts: what the base learns."""
        draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        return self._plain(draw.choice(len(self.latents), size=batch), NO_TEXT_BASE, draw)

    def _plain(self, rows: np.ndarray, no_text: float, draw: np.random.Generator) -> FluxBatch:
        silent = torch.from_numpy(draw.random(len(rows)) < no_text)
        ids = torch.where(silent[:, None], self.words.ids([""]), self.plain[rows])
        latents = torch.from_numpy(self.latents[rows]).float()
        nothing = torch.zeros(len(rows), 0, TOKEN_SIDE, TOKEN_SIDE)
        return FluxBatch(latents, ids, None, nothing, torch.zeros(len(rows), 0).long(), torch.zeros(len(rows)).bool())


def slots(count: int, turned: bool) -> tuple[int, ...]:
    """The slots of a caption's creatures: 1, 2 or, turned, 2, 1."""
    ordered = tuple(range(1, count + 1))
    return ordered[::-1] if turned else ordered


@torch.no_grad()
def prepare(out: Path, device: torch.device, processes: int) -> Iterator[str]:
    """Computes `<out>/flux_data` unless it is there; yields lines of progress.

    Raises:
        FileNotFoundError: not encoded yet.
        ValueError: the corpus is not what its seed draws now.
    """
    _check_encoded(out)
    folder, source = out / "flux_data", _source(out)
    if _made(folder) == source:
        return
    corpus = Corpus.open(out / "corpus")
    cover = np.zeros((len(corpus.scenes), SUBJECTS, TOKEN_SIDE, TOKEN_SIDE), np.uint8)
    work = partial(_cover, corpus.size, bank(corpus.size))
    with ProcessPoolExecutor(processes) as pool:  # before torch computes: a forked child must not wait for its threads
        for index, (found, boxes) in enumerate(pool.map(work, range(len(cover)), chunksize=50)):
            if boxes != corpus.scene_facts[index]["boxes"]:
                raise ValueError(f"{out / 'corpus'}: scene {index} is not what its seed draws now; render it again")
            cover[index, : len(found)] = found
            if index % 2000 == 1999:
                yield f"masks {index + 1}/{len(cover)}"
    _save(folder / "cover.npy", cover)
    autoencoder = frozen_vae(out, refined=False).to(device)
    portraits = [
        autoencoder.encode(vae.fold(vae.pictures(corpus.portraits, rows, device))).latent_dist.mean.half().cpu()
        for rows in np.array_split(np.arange(len(corpus.portraits)), max(1, len(corpus.portraits) // 64))
    ]
    _save(folder / "portraits.npy", (torch.cat(portraits) * VAE["scaling_factor"]).numpy())
    yield f"latents of {len(corpus.portraits)} portraits"
    write_text(folder / "made.json", json.dumps(source))


def _cover(size: CorpusSize, identities: list[CreatureTraits], index: int) -> tuple[np.ndarray, list]:
    """(S, 8, 8) uint8 of at most two creatures of a scene, and the boxes of all."""
    drawn = render(scene_plan(size, identities, index)[2])
    cells = rearrange(drawn.masks[:SUBJECTS], "s (h p) (w q) -> s h w (p q)", h=TOKEN_SIDE, w=TOKEN_SIDE)
    return np.round(255 * cells.mean(-1)).astype(np.uint8), np.round(drawn.boxes, 5).tolist()


def _check_encoded(out: Path) -> None:
    folder = out / "encoded"
    if not all((folder / name).exists() for name in ("latents.npy", "scenes.npy", "vae.safetensors")):
        raise FileNotFoundError(f"{folder}: expected encoded scenes; run python -m training.miniworld encode")


def _source(out: Path) -> dict:
    """What the prepared files depend on."""
    digest = hashlib.sha256((out / "encoded" / "vae.safetensors").read_bytes()).hexdigest()
    told = json.loads((out / "corpus" / "corpus.json").read_text(encoding="utf-8"))
    return {"vae": digest, **{name: told[name] for name in ("scenes", "identities", "portraits", "seed")}}


def _made(folder: Path) -> dict | None:
    path = folder / "made.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _save(path: Path, array: np.ndarray) -> None:
    atomic_write(path, lambda temporary: np.save(temporary, array))
