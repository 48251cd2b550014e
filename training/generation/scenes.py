"""Relation and groups of subjects of an order, and the scene of every attempt at a triplet."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..common.errors import UserErrors

MOST_SUBJECTS = 3
_NAME = re.compile(r"[^\W_]+(?:[ '-][^\W_]+)*")
_NUMBERED = re.compile(r"\d+[ -].*|.*[ -]\d+|\d+|target", re.IGNORECASE)  # file names that mean something else
_SEEDS = 2**48  # of all seeds: whole in the numbers of JavaScript, where ComfyUI's page reads them


@dataclass(frozen=True)
class Scene:
    """One attempt at one triplet.

    Attributes:
        slot: which of the wanted triplets, from 1.
        attempt: at it, from 1.
        relation: what happens, as the sentence says it: "hugging".
        names: of the subjects, in the order of the sentence.
        seed: of everything drawn for it.
    """

    slot: int
    attempt: int
    relation: str
    names: tuple[str, ...]
    seed: int

    @property
    def folder(self) -> str:
        """Name of its folder of raw pictures: "03-2" is the second attempt at the third triplet."""
        return f"{self.slot:02d}-{self.attempt}"


def scene_of(relation: str, groups: Sequence[tuple[str, ...]], slot: int, attempt: int, seed: int) -> Scene:
    """Plan an attempt: groups take turns over the slots; the seed is a hash of seed, slot and attempt.

    Args:
        relation: what happens.
        groups: subjects that appear together.
        slot, attempt: from 1.
        seed: of the whole command.
    """
    return Scene(
        slot, attempt, relation, groups[(slot - 1) % len(groups)], text_hash(f"{seed} {slot} {attempt}") % _SEEDS
    )


def slot_of(folder: str) -> int:
    """Read the slot from the name of a scene's folder; 0 for a folder of another origin."""
    match = re.fullmatch(r"(\d+)-\d+", folder)
    return int(match[1]) if match else 0


def text_hash(text: str) -> int:
    """Make a whole number of 64 bits that depends on a text alone, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pick(choices: Sequence[str], count: int, seed: int, what: str) -> tuple[str, ...]:
    """Draw without repeats; begins again when the choices are used up."""
    order = sorted(choices, key=lambda choice: text_hash(f"{seed} {what} {choice}"))
    return tuple(order[index % len(order)] for index in range(count))


def read_groups(text: str) -> list[tuple[str, ...]]:
    """Read subjects that appear together: "wolf, leopard; bear, tiger" to [("wolf", "leopard"), ("bear", "tiger")].

    Raises:
        UserErrors: no subjects, too many, two of one name, or a name that cannot name a file; all of them.
    """
    groups, faults = [], []
    for part in filter(str.strip, text.split(";")):
        composed = unicodedata.normalize("NFC", part)
        names = tuple(" ".join(name.split()) for name in composed.split(",") if name.strip())
        where = f'--subjects "{part.strip()}"'
        odd = [name for name in names if not _NAME.fullmatch(_without_marks(name)) or _NUMBERED.fullmatch(name)]
        twice = sorted({name for name in names if [other.lower() for other in names].count(name.lower()) > 1})
        if not 1 <= len(names) <= MOST_SUBJECTS:
            faults.append(f"{where}: expected 1 to {MOST_SUBJECTS} subjects with commas between, got {len(names)}.")
        faults += [
            f'{where}: "{name}": expected a name of words, without a number before or after them.' for name in odd
        ]
        if twice:
            faults.append(f'{where}: two subjects are named "{twice[0]}"; name them apart, e.g. "black {twice[0]}".')
        groups.append(names)
    if not groups:
        faults.append(f'--subjects "{text}": expected names, e.g. "wolf, leopard; bear, tiger".')
    if faults:
        raise UserErrors(faults)
    return groups


def _without_marks(name: str) -> str:
    """Leave out vowel signs and accents that stand apart from their letters, as in Hindi and Thai."""
    return "".join(letter for letter in name if not unicodedata.category(letter).startswith("M"))


def read_relation(text: str) -> str:
    """Read the relation in one line, without needless spaces.

    Raises:
        UserErrors: nothing in it.
    """
    words = " ".join(text.split())
    if not re.search(r"\w", words):
        raise UserErrors(f'--relation "{text}": expected words as in the sentence, e.g. "hugging".')
    return words
