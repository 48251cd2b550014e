"""Captions of scenes, in varied words that name no trait but the species."""

from dataclasses import dataclass

import numpy as np

from .backdrop import Backdrop
from .single_and_group_poses import SINGLES, TRIOS
from .traits import ACCENTS, ACCESSORIES, BELLIES, EMBLEM_COLOURS, EMBLEMS, FURS, SPECIES, CreatureTraits

# each: (template, the predicate as it stands in the template)
PAIR_WORDS = {
    "standing next to": (
        ("{a} is standing next to {b}", "standing next to"),
        ("{a} stands beside {b}", "stands beside"),
    ),
    "facing": (("{a} is facing {b}", "facing"), ("{a} and {b} face each other", "face each other")),
    "back to back": (
        ("{a} and {b} are standing back to back", "back to back"),
        ("{a} is back to back with {b}", "back to back"),
    ),
    "sitting beside": (("{a} is sitting beside {b}", "sitting beside"), ("{a} sits next to {b}", "sits next to")),
    "carrying": (("{a} is carrying {b}", "carrying"), ("{a} carries {b} in its arms", "carries")),
    "kissing": (("{a} is kissing {b}", "kissing"), ("{a} kisses {b}", "kisses")),
    "chasing": (("{a} is chasing {b}", "chasing"), ("{a} chases {b}", "chases")),
    "dancing with": (("{a} is dancing with {b}", "dancing with"), ("{a} and {b} are dancing", "dancing")),
    "feeding": (("{a} is feeding {b}", "feeding"), ("{a} feeds {b} an apple", "feeds")),
    "high-fiving": (("{a} is high-fiving {b}", "high-fiving"), ("{a} and {b} give a high five", "give a high five")),
    "pushing": (("{a} is pushing {b}", "pushing"), ("{a} pushes {b}", "pushes")),
    "waving at": (("{a} is waving at {b}", "waving at"), ("{a} waves to {b}", "waves to")),
    "lying beside": (("{a} is lying beside {b}", "lying beside"), ("{a} and {b} lie side by side", "lie side by side")),
    "jumping with": (("{a} is jumping with {b}", "jumping with"), ("{a} and {b} jump together", "jump together")),
    "hiding behind": (("{a} is hiding behind {b}", "hiding behind"), ("{a} hides behind {b}", "hides behind")),
    "leaning on": (("{a} is leaning on {b}", "leaning on"), ("{a} leans on {b}", "leans on")),
    "whispering to": (("{a} is whispering to {b}", "whispering to"), ("{a} whispers to {b}", "whispers to")),
    "giving a piggyback to": (
        ("{a} is giving a piggyback to {b}", "giving a piggyback to"),
        ("{a} carries {b} on its back", "on its back"),
    ),
    "lifting": (("{a} is lifting {b}", "lifting"), ("{a} lifts {b} up", "lifts")),
    "hugging": (("{a} is hugging {b}", "hugging"), ("{a} hugs {b}", "hugs"), ("{a} and {b} are hugging", "hugging")),
    "shaking hands with": (
        ("{a} is shaking hands with {b}", "shaking hands"),
        ("{a} and {b} shake hands", "shake hands"),
    ),
    "riding": (("{a} is riding {b}", "riding"), ("{a} rides {b}", "rides"), ("{a} is riding on {b}", "riding")),
    "leapfrogging": (("{a} is leapfrogging over {b}", "leapfrogging"), ("{a} leapfrogs over {b}", "leapfrogs")),
}
_PLACE_WORDS = {
    "meadow": ("in a meadow", "on the grass"),
    "beach": ("on a beach", "by the sea"),
    "snow": ("in the snow", "in the mountains"),
    "forest": ("in a forest", "among the trees"),
    "room": ("in a room", "at home"),
    "desert": ("in a desert", "on the sand"),
    "night": ("under the stars", "at night"),
    "city": ("in a city", "on the street"),
}
_LIGHT_WORDS = {"day": "", "sunset": " at sunset", "moonlight": " in the moonlight"}


@dataclass(frozen=True)
class Caption:
    """A prompt and the words in it that matter.

    Attributes:
        prompt: the sentence.
        names: the subjects' nouns, in the order of the identities.
        predicate: the words of the relation as they stand in the prompt.
    """

    prompt: str
    names: tuple[str, ...]
    predicate: str


def draw_caption(
    rng: np.random.Generator,
    relation: str,
    cast: tuple[CreatureTraits, ...],
    backdrop: Backdrop,
    described: bool = False,
) -> Caption:
    """Draw one of the wordings of a scene.

    Args:
        rng: owner of the randomness.
        relation: a key of PAIRS, SINGLES or TRIOS.
        cast: who takes part.
        backdrop: where.
        described: name every trait (CLIP's captions, never the diffusion models').

    Returns:
        A Caption whose prompt contains every name and the predicate literally.
    """
    names = tuple(traits.species for traits in cast)
    article = str(rng.choice(("a", "a", "the")))
    subjects = [traits.describe() for traits in cast] if described else [f"{article} {name}" for name in names]
    if len(names) == 2:
        words = PAIR_WORDS[relation]
        template, predicate = words[int(rng.integers(len(words)))]
    else:
        template, predicate = _template(relation, len(names)), relation
    sentence = template.format(**dict(zip("abc", subjects)))
    if rng.random() < 0.75:
        places = _PLACE_WORDS[backdrop.place]
        sentence += f" {places[int(rng.integers(len(places)))]}{_LIGHT_WORDS[backdrop.light]}"
    opening = str(rng.choice(("", "", "a picture of ", "plush toys, ")))
    return Caption(prompt=opening + sentence, names=names, predicate=predicate)


def plain_prompt(relation: str, names: tuple[str, ...], place: str | None = None) -> str:
    """Return the first wording of a relation, e.g. `a fox is hugging a bear in a meadow` (evaluation prompts)."""
    subjects = dict(zip("abc", (f"a {name}" for name in names)))
    return _template(relation, len(names)).format(**subjects) + (f" {_PLACE_WORDS[place][0]}" if place else "")


def _template(relation: str, count: int) -> str:
    if count == 2:
        return PAIR_WORDS[relation][0][0]
    return "{a} is " + relation if count == 1 else "{a}, {b} and {c} are " + relation


def vocabulary_texts() -> list[str]:
    """List texts with every word that captions use (held-out relations and CLIP's descriptions too)."""
    words = [template for wordings in PAIR_WORDS.values() for template, _ in wordings]
    words += [*SINGLES, *TRIOS, *SPECIES, *FURS, *BELLIES, *ACCESSORIES, *ACCENTS, *EMBLEMS, *EMBLEM_COLOURS]
    words += [text for texts in _PLACE_WORDS.values() for text in texts] + list(_LIGHT_WORDS.values())
    words += [
        "an a the is are and , . with spots stripes an eye patch dark socks belly wearing",
        "a picture of",
        "plush toys, toy",
        "a photo of",
        "creature animal subject emblem badge another two three both",
        "hug shake rides leap hands together each other over on around arms behind in front of left right",
    ]
    return [text.replace("{a}", "").replace("{b}", "").replace("{c}", "") for text in words]
