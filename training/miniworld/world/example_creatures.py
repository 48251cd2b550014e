"""Draw the creatures that come with the pack: pictures for people to try, of identities that no training has seen."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...common.atomic_io import atomic_write
from .backdrop import Backdrop
from .renderer import render
from .rng_streams import Stream, generator
from .scene import ScenePlan, draw_plan
from .traits import CreatureTraits

SIDE = 256
_SEED = 2


@dataclass(frozen=True)
class ExampleCreature:
    """A creature with its pose and place.

    Attributes:
        traits: held out of all training.
        pose: a key of SINGLES.
        place: one of PLACES.
        colour: word for the fur in its file name, where saved graphs use another one than FURS; else empty.
    """

    traits: CreatureTraits
    pose: str
    place: str
    colour: str = ""

    @property
    def name(self) -> str:
        """The file's name without its ending, the species first, e.g. `fox-red-cape`."""
        words = (self.traits.species, self.colour or self.traits.fur, self.traits.accessory)
        return "-".join(word.replace(" ", "_") for word in words)


def _creature(code: str, pose: str, place: str, colour: str = "") -> ExampleCreature:
    return ExampleCreature(CreatureTraits.from_code(code), pose, place, colour)


EXAMPLE_CREATURES = (
    _creature("bear-orange-cream-socks-cape-purple-cross-red", "sitting", "meadow"),
    _creature("bear-teal-lilac-spots-crown-green-heart-red", "waving", "city"),
    _creature("cat-blue-cream-spots-bow_tie-red-ring-black", "waving", "room"),
    _creature("cat-red-golden-patch-scarf-purple-diamond-black", "standing", "snow"),
    _creature("dog-teal-cream-stripes-scarf-blue-cross-red", "standing", "desert"),
    _creature("dog-red-ice-patch-cape-yellow-ring-black", "sitting", "city"),
    _creature("dragon-purple-golden-stripes-bow_tie-yellow-star-green", "waving", "forest"),
    _creature("fox-red-cream-stripes-cape-yellow-star-green", "sitting", "meadow"),
    _creature("fox-purple-ice-stripes-cape-yellow-diamond-red", "standing", "snow"),
    _creature("frog-green-golden-spots-bow_tie-red-diamond-black", "sitting", "beach", "lime"),
    _creature("mouse-pink-cream-socks-flower-white-cross-blue", "sitting", "meadow", "magenta"),
    _creature("rabbit-pink-ice-spots-crown-red-moon-green", "waving", "forest"),
)


def plan_of(number: int) -> ScenePlan:
    """Plan the picture of the creature with this number."""
    creature = EXAMPLE_CREATURES[number]
    backdrop = Backdrop(creature.place, "day", side=-1.0, seed=number)
    rng = generator(_SEED, Stream.EXAMPLE, number)
    return draw_plan(rng, relation=creature.pose, cast=(creature.traits,), backdrop=backdrop)


def write_creatures(folder: Path) -> list[Path]:
    """Write a PNG of 256 x 256 in 256 colours for each creature (they show nowhere and halve the file), named by it.

    Args:
        folder: receives them.

    Returns:
        The files.
    """
    paths = []
    for number, creature in enumerate(EXAMPLE_CREATURES):
        picture = Image.fromarray(render(plan_of(number), SIDE).image).quantize(dither=Image.Dither.NONE)
        paths.append(folder / f"{creature.name}.png")
        atomic_write(paths[-1], lambda path, picture=picture: picture.save(path, "PNG", optimize=True))
    return paths
