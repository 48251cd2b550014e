"""Training data of the small Flux: scenes of one or two creatures, references' latents, and each token's owner."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from ...host_diffusers.miniworld.architectures import LATENT_SIDE, Words
from ...host_diffusers.miniworld.flux_text import PlaceholderWords, with_placeholders
from .corpus import Corpus
from .encoded_corpus import FOLDER, Extent, encoded

TOKEN_SIDE = LATENT_SIDE // 2
SUBJECTS = 2
PLAIN, ALONE = 0.1, 0.1  # steps without references, the negative of guidance; steps on scenes of one creature
NO_TEXT, NO_TEXT_BASE = 0.8, 0.1  # of the scenes of a plain step: of a variant, of the base
WORDED, TURNED = 0.5, 0.5  # prompts with placeholders (DreamO, section 3.3); references in the other order


@dataclass(frozen=True, eq=False)
class FluxBatch:
    """One step's scenes, all with the same number R of references.

    Attributes:
        latents: (B, C, 16, 16) of unit variance.
        ids: (B, L) of `PlaceholderWords`.
        references: R times (B, C, 16, 16); None for a plain step.
        targets: (B, R, 8, 8) share of each token that a reference's creature covers.
        places: (B, R) positions of [ref#1], [ref#2] in the prompt; worded: (B,) bool, whether it has them.
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
        latents: (N, C, 16, 16) float16; portraits: (identities * views, C, 16, 16) float16.
        cover: (N, 2, 8, 8) uint8, 255 for a token wholly of that creature.
        who: (N, 2) identities, -1 for none.
        plain, worded, turned: (N, L) ids of the prompt without placeholders, with them, with [ref#2] before [ref#1].
        views: portraits of each identity.
        words: tokenizer of the ids.
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
        """Open the scenes of one and two creatures of an encoded corpus.

        Raises:
            FileNotFoundError: the latents are not encoded yet.
        """
        if not encoded(out, "latents"):
            raise FileNotFoundError(
                f"{out / FOLDER}: expected encoded latents, got none; run python -m training.miniworld encode"
            )
        corpus, extent = Corpus.open(out / "corpus"), Extent.of(out)
        few = (corpus.who >= 0).sum(1) <= SUBJECTS
        rows = extent.scenes(corpus)
        scene_rows = rows[few[rows]]
        facts = [corpus.scene_facts[row] for row in scene_rows]
        words = PlaceholderWords(Words())
        ordered, turned = (
            [with_placeholders(fact["prompt"], fact["names"], slots(len(fact["who"]), turn)) for fact in facts]
            for turn in (False, True)
        )
        cover = corpus.cover[scene_rows, :SUBJECTS].astype(np.float32)
        cover = reduce(cover, "n s (h p) (w q) -> n s h w", "mean", p=2, q=2)
        return cls(
            np.load(out / FOLDER / "scenes.npy")[few[rows]],
            np.load(out / FOLDER / "portraits.npy"),
            np.round(cover).astype(np.uint8),
            corpus.who[scene_rows, :SUBJECTS],
            words.ids([fact["prompt"] for fact in facts]),
            words.ids(ordered),
            words.ids(turned),
            min(extent.views or corpus.size.portraits, corpus.size.portraits),
            words,
        )

    def draw(self, batch: int, generator: torch.Generator) -> FluxBatch:
        """Draw a step's scenes: pairs, one creature alone, or no references at all; views and order by chance."""
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        kind, alone = rng.random(), self.who[:, 1] < 0
        plain, count = kind < PLAIN, 1 if PLAIN <= kind < PLAIN + ALONE and alone.any() else SUBJECTS
        rows = rng.choice(np.flatnonzero(alone == (count == 1)), size=batch)
        if plain:
            return self._plain(rows, NO_TEXT, rng)
        latents = torch.from_numpy(self.latents[rows]).float()
        worded, turned = (torch.from_numpy(rng.random(batch) < share) for share in (WORDED, TURNED))
        turned &= count > 1
        worded_ids = torch.where(turned[:, None], self.turned[rows], self.worded[rows])
        ids = torch.where(worded[:, None], worded_ids, self.plain[rows])
        order = np.where(turned.numpy()[:, None], [[1, 0]], [[0, 1]])[:, :count]  # which creature each slot has
        who = np.take_along_axis(self.who[rows], order, axis=1)
        views = who * self.views + rng.integers(self.views, size=who.shape)
        cover = np.take_along_axis(self.cover[rows], order[..., None, None], axis=1)
        return FluxBatch(
            latents,
            ids,
            [torch.from_numpy(self.portraits[column]).float() for column in views.T],
            torch.from_numpy(cover).float() / 255,
            self.words.places(ids, count),
            worded,
        )

    def draw_without_placeholders(self, batch: int, generator: torch.Generator) -> FluxBatch:
        """Draw a step's scenes with plain prompts, where the order alone names a reference."""
        scenes = self.draw(batch, generator)
        rows = []
        for row in scenes.ids:  # a placeholder is a token of its own: take it out and close the gap
            tokens = row[row < self.words.first]
            rows.append(torch.cat((tokens, torch.zeros(len(row) - len(tokens), dtype=row.dtype))))
        return replace(scenes, ids=torch.stack(rows), worded=torch.zeros_like(scenes.worded))

    def draw_plain(self, batch: int, generator: torch.Generator) -> FluxBatch:
        """Draw a step's scenes without references, most with their prompts, to train the base."""
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        return self._plain(rng.choice(len(self.latents), size=batch), NO_TEXT_BASE, rng)

    def _plain(self, rows: np.ndarray, no_text: float, rng: np.random.Generator) -> FluxBatch:
        silent = torch.from_numpy(rng.random(len(rows)) < no_text)
        ids = torch.where(silent[:, None], self.words.ids([""]), self.plain[rows])
        latents = torch.from_numpy(self.latents[rows]).float()
        nothing = torch.zeros(len(rows), 0, TOKEN_SIDE, TOKEN_SIDE)
        return FluxBatch(latents, ids, None, nothing, torch.zeros(len(rows), 0).long(), torch.zeros(len(rows)).bool())


def slots(count: int, turned: bool) -> tuple[int, ...]:
    """Return the slots of a caption's creatures: 1, 2 or, turned, 2, 1."""
    ordered = tuple(range(1, count + 1))
    return ordered[::-1] if turned else ordered
