"""The creatures that come with the pack: pictures for people to try, of identities that no training has seen."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...common.atomic_io import atomic_write
from .backdrop import Backdrop
from .renderer import render
from .scene import ScenePlan, draw_plan
from .traits import FUR_NAMES, CreatureTraits

SIDE = 256


@dataclass(frozen=True)
class ExampleCreature:
    """Who is drawn, doing what, where.

    Attributes:
        identity: held out of all training.
        pose: a key of SOLOS.
        place: one of PLACES.
    """

    identity: CreatureTraits
    pose: str
    place: str

    @property
    def name(self) -> str:
        """The file's name without its ending, the species first, e.g. `fox-red-cape`."""
        words = (self.identity.species, FUR_NAMES[self.identity.fur], self.identity.accessory)
        return "-".join(word.replace(" ", "_") for word in words)


EXAMPLE_CREATURES = (
    ExampleCreature(CreatureTraits("bear", 2, 0, "socks", "cape", 4), "sitting", "meadow"),
    ExampleCreature(CreatureTraits("bear", 7, 3, "spots", "crown", 2), "waving", "city"),
    ExampleCreature(CreatureTraits("cat", 9, 0, "spots", "bow tie", 0), "waving", "room"),
    ExampleCreature(CreatureTraits("cat", 1, 1, "patch", "scarf", 4), "standing", "snow"),
    ExampleCreature(CreatureTraits("dog", 7, 0, "stripes", "scarf", 3), "standing", "desert"),
    ExampleCreature(CreatureTraits("dog", 1, 3, "patch", "cape", 1), "sitting", "city"),
    ExampleCreature(CreatureTraits("dragon", 10, 1, "stripes", "bow tie", 1), "waving", "forest"),
    ExampleCreature(CreatureTraits("fox", 1, 3, "stripes", "cape", 1), "sitting", "meadow"),
    ExampleCreature(CreatureTraits("fox", 10, 5, "stripes", "cape", 1), "standing", "snow"),
    ExampleCreature(CreatureTraits("frog", 5, 1, "spots", "bow tie", 0), "sitting", "beach"),
    ExampleCreature(CreatureTraits("mouse", 11, 1, "socks", "flower", 5), "sitting", "meadow"),
    ExampleCreature(CreatureTraits("rabbit", 0, 4, "spots", "crown", 0), "waving", "forest"),
)


def plan_of(number: int) -> ScenePlan:
    """What is drawn of the sitter with this number."""
    sitter, rng = EXAMPLE_CREATURES[number], np.random.default_rng((2, number))
    backdrop = Backdrop(sitter.place, "day", side=-1.0, seed=number)
    return draw_plan(rng, relation=sitter.pose, identities=(sitter.identity,), backdrop=backdrop)


def write_creatures(folder: Path) -> list[Path]:
    """One PNG of 256 x 256 a sitter in 256 colours (they show nowhere and halve the file), named by `Sitter.name`.

    Args:
        folder: receives them.

    Returns:
        The files.
    """
    paths = []
    for number, sitter in enumerate(EXAMPLE_CREATURES):
        picture = Image.fromarray(render(plan_of(number), SIDE).image).quantize(dither=Image.Dither.NONE)
        paths.append(folder / f"{sitter.name}.png")
        atomic_write(paths[-1], lambda path, picture=picture: picture.save(path, "PNG", optimize=True))
    return paths
