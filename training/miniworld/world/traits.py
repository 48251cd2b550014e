"""Identity of a creature: species and looks, of which a caption may name only the species.

The hold-out is a function of the traits themselves (a hash), never of chance or of a file: two machines agree on it
without sharing anything. A pair of look-alikes, equal in everything but their emblem, is held out by name.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

Oklch = tuple[float, float, float]

SPECIES = ("bear", "cat", "rabbit", "fox", "mouse", "dog", "frog", "dragon")
# lightness, chroma, hue in turns
FURS: dict[str, Oklch] = {
    "white": (0.955, 0.012, 0.20),
    "gray": (0.700, 0.018, 0.70),
    "brown": (0.560, 0.085, 0.13),
    "red": (0.620, 0.190, 0.07),
    "orange": (0.740, 0.160, 0.155),
    "yellow": (0.890, 0.150, 0.265),
    "green": (0.740, 0.165, 0.395),
    "teal": (0.690, 0.105, 0.520),
    "sky blue": (0.820, 0.095, 0.640),
    "blue": (0.590, 0.165, 0.725),
    "purple": (0.600, 0.165, 0.840),
    "pink": (0.790, 0.125, 0.985),
}
BELLIES: dict[str, Oklch] = {
    "cream": (0.960, 0.040, 0.240),
    "golden": (0.880, 0.135, 0.235),
    "rose": (0.830, 0.105, 0.010),
    "mint": (0.905, 0.095, 0.440),
    "ice": (0.880, 0.070, 0.630),
    "lilac": (0.790, 0.095, 0.850),
}
PATTERNS = ("plain", "spots", "stripes", "patch", "socks")
ACCESSORIES = ("nothing", "scarf", "bow tie", "party hat", "flower", "glasses", "crown", "cape")
ACCENTS: dict[str, Oklch] = {
    "red": (0.590, 0.210, 0.080),
    "yellow": (0.860, 0.170, 0.255),
    "green": (0.610, 0.160, 0.405),
    "blue": (0.540, 0.180, 0.730),
    "purple": (0.530, 0.180, 0.845),
    "white": (0.970, 0.006, 0.250),
}
EMBLEMS = ("star", "heart", "moon", "cross", "diamond", "ring")
EMBLEM_COLOURS: dict[str, Oklch] = {
    "red": (0.560, 0.220, 0.075),
    "blue": (0.500, 0.190, 0.735),
    "green": (0.520, 0.150, 0.400),
    "black": (0.270, 0.030, 0.880),
}
HELD_OUT_PART = 3  # one identity in three is never seen in pretraining
SMALLEST_CONTRAST = 0.12  # between fur and belly, in OKLab


def oklab_distance(first: Oklch, second: Oklch) -> float:
    """Return the Euclidean distance of two OKLCH colours in OKLab."""

    def lab(colour: Oklch) -> tuple[float, float, float]:
        lightness, chroma, hue = colour
        return lightness, chroma * math.cos(2 * math.pi * hue), chroma * math.sin(2 * math.pi * hue)

    return math.dist(lab(first), lab(second))


@dataclass(frozen=True, order=True)
class CreatureTraits:
    """A creature's looks; every field but `species` is beyond the words of a training caption.

    Attributes:
        species: one of SPECIES; decides the outline.
        fur: key of FURS.
        belly: key of BELLIES; also the muzzle, the paws and the inside of the ears.
        pattern: one of PATTERNS.
        accessory: one of ACCESSORIES.
        accent: key of ACCENTS, the accessory's colour; "red" when there is none.
        emblem: one of EMBLEMS, worn on the belly, finer than a patch of the image encoder.
        emblem_colour: key of EMBLEM_COLOURS.
    """

    species: str
    fur: str
    belly: str
    pattern: str
    accessory: str
    accent: str
    emblem: str
    emblem_colour: str

    @property
    def code(self) -> str:
        """A stable name, e.g. `fox-red-cream-spots-crown-blue-star-red`."""
        words = (
            self.species,
            self.fur,
            self.belly,
            self.pattern,
            self.accessory,
            self.accent,
            self.emblem,
            self.emblem_colour,
        )
        return "-".join(word.replace(" ", "_") for word in words)

    @classmethod
    def from_code(cls, code: str) -> "CreatureTraits":
        """Read the traits of a `code`."""
        return cls(*(word.replace("_", " ") for word in code.split("-")))

    @property
    def held_out(self) -> bool:
        """Whether pretraining must never draw this identity."""
        if self in LOOK_ALIKES:
            return True
        return hashlib.sha256(self.code.encode()).digest()[0] % HELD_OUT_PART == 0

    @property
    def distinct(self) -> bool:
        """Whether fur and belly are far enough apart to be seen as two colours."""
        return oklab_distance(FURS[self.fur], BELLIES[self.belly]) >= SMALLEST_CONTRAST

    def describe(self) -> str:
        """Name every trait, e.g. `a red fox with spots and a blue star wearing a green crown` (for CLIP alone)."""
        words = f"{'an' if self.fur[0] in 'aeiou' else 'a'} {self.fur} {self.species} with "
        words += {
            "plain": "",
            "spots": "spots and ",
            "stripes": "stripes and ",
            "patch": "an eye patch and ",
            "socks": "dark socks and ",
        }[self.pattern]
        words += f"a {self.belly} belly and a {self.emblem_colour} {self.emblem}"
        if self.accessory == "nothing":
            return words
        article = "" if self.accessory == "glasses" else "a "
        return f"{words} wearing {article}{self.accent} {self.accessory}"


_TWIN = CreatureTraits("rabbit", "sky blue", "cream", "patch", "scarf", "yellow", "heart", "red")
LOOK_ALIKES = (_TWIN, replace(_TWIN, emblem="star", emblem_colour="blue"))


def draw_traits(rng: np.random.Generator, held_out: bool | None = False) -> CreatureTraits:
    """Draw one identity, uniform over the traits whose fur and belly differ enough.

    Args:
        rng: owner of the randomness.
        held_out: draw among the seen (False), the held-out (True) or all (None).

    Returns:
        Traits on that side of the hold-out.
    """

    def choice(values: tuple[str, ...] | dict[str, Oklch]) -> str:
        return str(rng.choice(tuple(values)))

    while True:
        accessory = choice(ACCESSORIES)
        traits = CreatureTraits(
            species=choice(SPECIES),
            fur=choice(FURS),
            belly=choice(BELLIES),
            pattern=choice(PATTERNS),
            accessory=accessory,
            accent="red" if accessory == "nothing" else choice(ACCENTS),
            emblem=choice(EMBLEMS),
            emblem_colour=choice(EMBLEM_COLOURS),
        )
        if traits.distinct and (held_out is None or traits.held_out == held_out):
            return traits


def draw_cast(rng: np.random.Generator, count: int, held_out: bool | None = False) -> tuple[CreatureTraits, ...]:
    """Draw `count` identities of different species, so that a caption can tell them apart."""
    cast: list[CreatureTraits] = []
    while len(cast) < count:
        traits = draw_traits(rng, held_out)
        if all(traits.species != other.species for other in cast):
            cast.append(traits)
    return tuple(cast)
