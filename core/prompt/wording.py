"""Name the references of a scene in its prompt, so that the text binds each subject to its picture.

Models that take several references know them by order only: "image 2" is the second latent. Black Forest Labs documents
"The person from image 1 is petting the cat from image 2" (docs.bfl.ai, FLUX.2), Alibaba "The girl in Image 1 wears the
black dress from Image 2"; DreamO's placeholders read the same way, "A woman from [ref#1]" (arXiv:2504.16915). Nothing
published says how best to add such words to a prompt that has none, so the algorithm below is ours:

1. Each name is found as whole words, in any case, longest names first; a place in the text serves one subject only, and
   subjects of one name take their places in reading order. " from LABEL" is put behind it.
2. A name that the prompt lacks adds a sentence: "The NAME is from LABEL."
3. Boxes that say something add one last sentence: "The cat from image 1 is on the left and ...".
4. A prompt that already names a reference by number is left as written, so applying it twice changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ..scene import WHOLE_PICTURE, Box

PLACES, REFERENCES, AS_WRITTEN = "references and places", "references", "as written"
WORDINGS = (PLACES, REFERENCES, AS_WRITTEN)

# Letters of scripts without spaces between words (Thai to Khmer, kana, Chinese characters), and of Korean, whose
# particles follow a word without one.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff\u1100-\u11ff\uac00-\ud7af"
)
_SPACED = rf"[^\W{_UNSPACED}]"  # a letter or digit that would make another word of the one beside it
# "image 1", "Picture #2", "<image3>", "<ref_image_0>", "[ref#1]"; of "photo 35mm" and "2 pictures" in Chinese neither
_NUMBERED_REFERENCE = re.compile(
    rf"<?(?<!{_SPACED})(?:image|picture|photo|figure|ref_image_)\s*#?\d+(?!{_SPACED})|\[ref#\d+\]"
    r"|(?:\u56fe[\u50cf\u7247]?|\u753b\u50cf)\s*\d+(?![\d\u5f20\u5e45\u679a])",
    re.IGNORECASE,
)
_ENDS_A_SENTENCE = (".", "!", "?", ":", ";", ",", "…", "\u3002", "\uff01", "\uff1f")
_WIDE = 2 / 3  # a box larger than this says nothing about its place on that axis
_LOW, _HIGH = 0.4, 0.6  # the middle third of centres, rounded


@dataclass(frozen=True)
class Mention:
    """One subject as the prompt shall name it.

    Attributes:
        name: the words that name it in the prompt.
        label: what the model calls its reference, e.g. "image 1".
        box: where it stands in the output picture.
    """

    name: str
    label: str
    box: Box = WHOLE_PICTURE


@dataclass(frozen=True)
class BoundPrompt:
    """A prompt with its references named.

    Attributes:
        text: the prompt.
        missing: names that the prompt as written lacks; none where it names its references by number.
        added: the sentences that were put behind it for them, one for each missing name, or none.
    """

    text: str
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def bind(prompt: str, mentions: Sequence[Mention], wording: str = PLACES) -> BoundPrompt:
    """Write into the prompt which reference each subject comes from, and its place.

    Args:
        prompt: as the user wrote it.
        mentions: the subjects that have references, in the order of these.
        wording: one of WORDINGS.

    Raises:
        ValueError: an unknown wording.
    """
    if wording not in WORDINGS:
        raise ValueError(f"wording: expected one of {', '.join(WORDINGS)}, got {wording!r}.")
    if _NUMBERED_REFERENCE.search(prompt):
        return BoundPrompt(prompt)
    places = find_names(prompt, [mention.name for mention in mentions])
    missing = tuple(mention.name for mention, place in zip(mentions, places) if place is None)
    if wording == AS_WRITTEN:
        return BoundPrompt(prompt, missing)

    # from the last place to the first, so that earlier places stay where they are
    text = prompt
    for mention, place in sorted(zip(mentions, places), key=lambda pair: pair[1] or (0, 0), reverse=True):
        if place is not None:
            text = f"{text[: place[1]]} from {mention.label}{text[place[1] :]}"

    added = tuple(
        f"The {mention.name} is from {mention.label}." for mention, place in zip(mentions, places) if place is None
    )
    sentences = [*added, *([_places_sentence(mentions)] if wording == PLACES else [])]
    return BoundPrompt(_followed_by(text, [sentence for sentence in sentences if sentence]), missing, added)


def find_names(text: str, names: Sequence[str]) -> list[tuple[int, int] | None]:
    """Find each name in a text.

    Args:
        text: to search.
        names: in any case; longer names are looked for first, equal ones share their places in reading order.

    Returns:
        For each name its (start, end) in characters, or None; no two overlap.
    """
    return [places[0] if places else None for places in find_all_names(text, names)]


def find_all_names(text: str, names: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Find every place of each name in a text; equal names share their places in turn, in reading order.

    Returns:
        For each name its (start, end)s in characters, in reading order; no two overlap.
    """
    used_spans: list[tuple[int, int]] = []
    places: list[list[tuple[int, int]]] = [[] for _ in names]
    sharing: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        sharing.setdefault(unicodedata.normalize("NFC", name.strip().lower()), []).append(index)
    for name in sorted(sharing, key=lambda name: -len(name)):
        spans = [match.span() for match in _whole_words(name).finditer(text)] if name else []
        free = [span for span in spans if all(span[1] <= start or span[0] >= end for start, end in used_spans)]
        used_spans += free
        for order, span in enumerate(free):
            places[sharing[name][order % len(sharing[name])]].append(span)
    return places


def place_of(box: Box) -> str:
    """Describe the place of a box: "at the top on the left", or nothing if it spans most of both axes."""
    across = _side(box.x0, box.x1, ("on the left", "in the middle", "on the right"))
    down = _side(box.y0, box.y1, ("at the top", "", "at the bottom"))
    return " ".join(word for word in (down, across) if word)


def _side(low: float, high: float, words: tuple[str, str, str]) -> str:
    """One axis of a box in words: low, middle, high; nothing if it spans most of the axis."""
    centre = (low + high) / 2
    if high - low > _WIDE:
        return ""
    return words[0] if centre < _LOW else words[2] if centre > _HIGH else words[1]


def _places_sentence(mentions: Sequence[Mention]) -> str:
    """One sentence about all boxes that say something; empty if none does."""
    clauses = [
        f"the {mention.name} from {mention.label} is {place_of(mention.box)}"
        for mention in mentions
        if place_of(mention.box)
    ]
    if not clauses:
        return ""
    joined = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
    return f"{joined[0].upper()}{joined[1:]}."


def _followed_by(text: str, sentences: Sequence[str]) -> str:
    """Return a prompt and further sentences, parted by a full stop where the prompt ends without one."""
    if not sentences:
        return text
    text = text.rstrip()
    stop = "" if not text or text.endswith(_ENDS_A_SENTENCE) else "."
    return f"{text}{stop} {' '.join(sentences)}".lstrip()


def _whole_words(name: str) -> re.Pattern:
    """Return the name as whole words, however a prompt may write it.

    Any space stands between its words, with ComfyUI's brackets and weights ("(red:1.2) fox"), or none beside
    punctuation: CLIP's tokenizer writes "St. Bernard" as "st . bernard". Accents may be composed or not.
    """
    parts = re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFC", name))
    pattern = "".join(
        _letters(part) if index == 0 else _gap(parts[index - 1], part) + _letters(part)
        for index, part in enumerate(parts)
    )
    return re.compile(rf"{between_words(pattern, name.strip())}(?![\u0300-\u036f])", re.IGNORECASE)


def between_words(pattern: str, phrase: str) -> str:
    """Return a phrase's regular expression so that it matches no part of a word.

    In a script without spaces a phrase may stand anywhere: nothing shows where words end.
    """
    first, last = (re.match(f"[{_UNSPACED}]", letter) for letter in (phrase[:1], phrase[-1:]))
    return ("" if first else f"(?<!{_SPACED})") + pattern + ("" if last else f"(?!{_SPACED})")


def _letters(part: str) -> str:
    """Each letter as it is, or as a letter and its accents."""
    ways = ((letter, unicodedata.normalize("NFD", letter)) for letter in part)
    return "".join(
        re.escape(one) if one == other else f"(?:{re.escape(one)}|{re.escape(other)})" for one, other in ways
    )


def _gap(before: str, after: str) -> str:
    if before[-1].isalnum() and after[0].isalnum():
        return r"(?::[-+]?[\d.]+)?[()]*\s[\s()]*"
    return r"\s*"
