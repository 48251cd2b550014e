"""Stages that ask a reader for the kind of a subject, for the relation, and for the place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..common.image_files import open_image
from .annotated import Annotated, SeenPicture
from .backends import Backends
from .options import ANIMAL, AnnotateOptions
from .sentence import known_kind, predicate_of
from .store import Store

DECOY = "standing next to"
# Relations that are the same the other way round: the sentence with the names exchanged is no decoy.
SYMMETRIC = (
    "hugging",
    "kissing",
    "shaking hands",
    "holding hands",
    "high-fiving",
    "dancing",
    "wrestling",
    "back to back",
    "sitting back to back",
    "playing with",
    "talking to each other",
)


def kinds(triplets: Sequence[Annotated], backends: Backends, options: AnnotateOptions, store: Store) -> None:
    """Decide what each subject is: by options, its own annotation, its word, as the reader sees it, else an animal."""

    def known(one: Annotated, index: int) -> str:
        name, own = one.raw.names[index], one.raw.kinds[index] if one.raw.kinds else ""
        return own if own and name not in options.kinds else known_kind(name, options.kinds)

    subjects = [(one, index) for one in triplets for index in range(len(one.raw.names))]
    unknown = [(one, index) for one, index in subjects if not known(one, index)]
    answers: dict[tuple[str, int], str] = {}
    if backends.reader is not None and unknown:
        jobs = [_kind_job(one.pictures[index + 1], one.raw.names[index]) for one, index in unknown]
        for (one, index), kind in zip(unknown, store.run("kind", backends.reader, jobs)):
            answers[one.raw.name, index] = kind
    for one in triplets:
        one.kinds = [
            known(one, index) or answers.get((one.raw.name, index)) or ANIMAL for index in range(len(one.raw.names))
        ]


def _kind_job(picture: SeenPicture, name: str) -> tuple[dict, Callable]:
    return {"picture": picture.digest, "name": name}, lambda reader: reader.is_kind(open_image(picture.path), name)


def read(triplets: Sequence[Annotated], backends: Backends, options: AnnotateOptions, store: Store) -> dict[str, str]:
    """Ask whether the relation is to be seen, against decoys; returns where each target is, by triplet."""
    if backends.reader is None:
        return {}
    relation = predicate_of(options.relation)
    directed = not relation.lower().startswith(SYMMETRIC)

    def job(one: Annotated) -> tuple[dict, Callable]:
        names = list(one.raw.names)

        def look(reader: Any) -> dict:
            image = open_image(one.target.path)
            decoys = [reader.shows(image, names, DECOY)]
            if directed and len(names) == 2 and names[0] != names[1]:
                decoys.append(reader.shows(image, names[::-1], relation))
            shows = reader.shows(image, names, relation)
            return {"relation": shows, "decoys": decoys, "place": reader.place(image)}

        return {"picture": one.target.digest, "names": names, "relation": relation, "directed": directed}, look

    places = {}
    for one, answer in zip(triplets, store.run("read", backends.reader, [job(one) for one in triplets])):
        decoy_scores = [score for score in answer["decoys"] if score is not None]
        one.reader_scores = {"relation": answer["relation"], "decoy": max(decoy_scores, default=None)}
        places[one.raw.name] = answer["place"]
    return places
