"""Who a creature is: five traits, of which a caption may name only the first.

The hold-out is a function of the identity itself (a hash of its traits), never of chance or of a file: two machines
agree on it without sharing anything.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

SPECIES = ("bear", "cat", "rabbit", "fox", "mouse", "dog", "frog", "dragon")
PATTERNS = ("plain", "spots", "stripes", "patch", "socks")
ACCESSORIES = ("nothing", "scarf", "bow tie", "party hat", "flower", "glasses", "crown", "cape")
FUR_NAMES = (
    "pink",
    "red",
    "orange",
    "golden",
    "yellow",
    "lime",
    "green",
    "teal",
    "sky blue",
    "blue",
    "purple",
    "magenta",
)
BELLY_HUES = 6
ACCESSORY_NAMES = ("red", "yellow", "green", "blue", "purple", "white")
HELD_OUT_PART = 3  # one identity in three is never seen in pretraining


@dataclass(frozen=True, order=True)
class CreatureTraits:
    """A creature's looks; every field but `species` is beyond the words of a training caption.

    Attributes:
        species: one of SPECIES; decides the outline.
        fur: 0..11, index of FUR_NAMES, a hue step of 30 degrees.
        belly: 0..5, a hue step of 60 degrees of the belly, muzzle and paws.
        pattern: one of PATTERNS.
        accessory: one of ACCESSORIES.
        accent: 0..5, index of ACCESSORY_NAMES; 0 when there is no accessory.
    """

    species: str
    fur: int
    belly: int
    pattern: str
    accessory: str
    accent: int

    @property
    def code(self) -> str:
        """A stable name, e.g. `fox-3-1-spots-crown-2`."""
        words = (self.species, self.fur, self.belly, self.pattern, self.accessory.replace(" ", "_"), self.accent)
        return "-".join(str(word) for word in words)

    @property
    def held_out(self) -> bool:
        """Whether pretraining must never draw this identity."""
        return hashlib.sha256(self.code.encode()).digest()[0] % HELD_OUT_PART == 0

    @property
    def fur_colour(self) -> tuple[float, float, float]:
        return (0.70, 0.125, self.fur / 12)

    @property
    def belly_colour(self) -> tuple[float, float, float]:
        return (0.91, 0.055, self.belly / BELLY_HUES + 0.03)

    @property
    def accent_colour(self) -> tuple[float, float, float]:
        return (
            (0.60, 0.20, 0.08),
            (0.85, 0.17, 0.25),
            (0.62, 0.16, 0.40),
            (0.55, 0.18, 0.73),
            (0.55, 0.19, 0.84),
            (0.95, 0.01, 0.25),
        )[self.accent]

    def describe(self) -> str:
        """Every trait in words, e.g. `a red fox with spots wearing a blue crown` (only for CLIP's training)."""
        words = f"{'an' if FUR_NAMES[self.fur][0] in 'aeiou' else 'a'} {FUR_NAMES[self.fur]} {self.species}"
        if self.pattern != "plain":
            words += {
                "spots": " with spots",
                "stripes": " with stripes",
                "patch": " with an eye patch",
                "socks": " with dark socks",
            }[self.pattern]
        if self.accessory == "nothing":
            return words
        article = "" if self.accessory == "glasses" else "a "
        return f"{words} wearing {article}{ACCESSORY_NAMES[self.accent]} {self.accessory}"


def draw_traits(rng: np.random.Generator, held_out: bool | None = False) -> CreatureTraits:
    """One identity, uniform over the traits.

    Args:
        rng: owner of the randomness.
        held_out: draw among the seen (False), the held-out (True) or all (None).
    Returns:
        An Identity on the asked side of the hold-out.
    """
    while True:
        accessory = str(rng.choice(ACCESSORIES))
        identity = CreatureTraits(
            species=str(rng.choice(SPECIES)),
            fur=int(rng.integers(len(FUR_NAMES))),
            belly=int(rng.integers(BELLY_HUES)),
            pattern=str(rng.choice(PATTERNS)),
            accessory=accessory,
            accent=0 if accessory == "nothing" else int(rng.integers(len(ACCESSORY_NAMES))),
        )
        if held_out is None or identity.held_out == held_out:
            return identity


def draw_several_traits(
    rng: np.random.Generator, count: int, held_out: bool | None = False
) -> tuple[CreatureTraits, ...]:
    """`count` identities of different species, so that a caption can tell them apart."""
    found: list[CreatureTraits] = []
    while len(found) < count:
        identity = draw_traits(rng, held_out)
        if all(identity.species != other.species for other in found):
            found.append(identity)
    return tuple(found)
