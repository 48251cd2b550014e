"""How a scene is said, in varied words that never tell an identity beyond its species."""

from dataclasses import dataclass

import numpy as np

from .backdrop import Backdrop
from .traits import CreatureTraits

# each: (template, the predicate as it stands in the template)
_PAIR_WORDS = {
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
    "carrying": (("{a} is carrying {b}", "carrying"), ("{a} carries {b} overhead", "carries")),
    "kissing": (("{a} is kissing {b}", "kissing"), ("{a} kisses {b}", "kisses")),
    "chasing": (("{a} is chasing {b}", "chasing"), ("{a} chases {b}", "chases")),
    "dancing with": (("{a} is dancing with {b}", "dancing with"), ("{a} and {b} are dancing", "dancing")),
    "feeding": (("{a} is feeding {b}", "feeding"), ("{a} feeds {b} an apple", "feeds")),
    "high-fiving": (("{a} is high-fiving {b}", "high-fiving"), ("{a} and {b} give a high five", "give a high five")),
    "pushing": (("{a} is pushing {b}", "pushing"), ("{a} pushes {b}", "pushes")),
    "waving at": (("{a} is waving at {b}", "waving at"), ("{a} waves to {b}", "waves to")),
    "lying beside": (("{a} is lying beside {b}", "lying beside"), ("{a} and {b} lie side by side", "lie side by side")),
    "jumping with": (("{a} is jumping with {b}", "jumping with"), ("{a} and {b} jump together", "jump together")),
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
    identities: tuple[CreatureTraits, ...],
    backdrop: Backdrop,
    described: bool = False,
) -> Caption:
    """One of the ways to say a scene.

    Args:
        rng: owner of the randomness.
        relation: a key of PAIRS, SOLOS or TRIOS.
        identities: who takes part.
        backdrop: said in three captions of four.
        described: tell fur, pattern and accessory too (CLIP's training only, never the UNet's).
    Returns:
        A Caption whose prompt contains every name and the predicate literally.
    """
    names = tuple(identity.species for identity in identities)
    article = str(rng.choice(("a", "a", "the")))
    subjects = (
        [identity.describe() for identity in identities] if described else [f"{article} {name}" for name in names]
    )
    if len(names) == 2:
        words = _PAIR_WORDS[relation]
        template, predicate = words[int(rng.integers(len(words)))]
    elif len(names) == 1:
        template, predicate = "{a} is " + relation, relation
    else:
        template, predicate = "{a}, {b} and {c} are " + relation, relation
    sentence = template.format(**dict(zip("abc", subjects)))
    if rng.random() < 0.75:
        places = _PLACE_WORDS[backdrop.place]
        sentence += f" {places[int(rng.integers(len(places)))]}{_LIGHT_WORDS[backdrop.light]}"
    opening = str(rng.choice(("", "", "a picture of ", "plush toys, ")))
    return Caption(prompt=opening + sentence, names=names, predicate=predicate)


def plain_prompt(relation: str, names: tuple[str, ...], place: str | None = None) -> str:
    """The first wording of a relation, e.g. `a fox is hugging a bear in a meadow` (evaluation prompts)."""
    subjects = dict(zip("abc", (f"a {name}" for name in names)))
    template = (
        _PAIR_WORDS[relation][0][0]
        if len(names) == 2
        else "{a} is " + relation
        if len(names) == 1
        else "{a}, {b} and {c} are " + relation
    )
    return template.format(**subjects) + (f" {_PLACE_WORDS[place][0]}" if place else "")


def vocabulary_texts() -> list[str]:
    """Texts that together contain every word any caption can use (also held-out relations and CLIP's descriptions)."""
    from . import traits as who
    from .single_and_group_poses import GROUP_POSES, SINGLE_POSES

    words = [template for pair in _PAIR_WORDS.values() for template, _ in pair]
    words += [
        *SINGLE_POSES,
        *GROUP_POSES,
        *who.SPECIES,
        *who.FUR_NAMES,
        *who.PATTERNS,
        *who.ACCESSORIES,
        *who.ACCESSORY_NAMES,
    ]
    words += [text for pair in _PLACE_WORDS.values() for text in pair] + list(_LIGHT_WORDS.values())
    words += [
        "an a the is are and , . with an eye patch dark socks wearing",
        "a picture of",
        "plush toys, toy",
        "a photo of",
        "creature animal subject",
        "hug shake rides leap hands together each other over on",
    ]
    return [text.replace("{a}", "").replace("{b}", "").replace("{c}", "") for text in words]
