"""Options of an annotation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NONE = "none"
ANIMAL, PERSON, HUMANOID, OBJECT = "animal", "person", "humanoid", "object"
KINDS = (ANIMAL, PERSON, HUMANOID, OBJECT)
XANYLABELING, LABELME = "xanylabeling", "labelme"


@dataclass(frozen=True)
class AnnotateOptions:
    """Options of `python -m training.annotate`, by the same names.

    Attributes:
        relation: as the sentence says it, e.g. "hugging".
        kinds: what a subject is, by its name: animal, person, humanoid (a toy person) or object.
        say: the sentence with {a}, {b}, {relation} and {place} in it; empty writes one.
        backend: transformers or miniworld; the latter ignores the names of models.
        detector, segmenter, pose_animal, pose_person, reader, embedder: models; "none" does without. Without
            `pose_animal` animals have no joints.
        device: of torch; "auto" takes the GPU.
        thresholds: TOML file that changes the gates' numbers.
        hide_others: paint the other subjects over before joints are looked for.
        keep_rejected: write rejected triplets that are whole to rejected/triplets.jsonl as well.
        editor: whose rectangles are written: xanylabeling (4 points) or labelme (2 points).
        origin: by triplet: engine, models and licence of its pictures.
        given: folder of triplets whose own annotation stands for the models; set where RAW is one.
    """

    relation: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    say: str = ""
    backend: str = "transformers"
    detector: str = "IDEA-Research/grounding-dino-tiny"
    segmenter: str = ""
    pose_animal: str = ""
    pose_person: str = "usyd-community/vitpose-base-simple"
    reader: str = NONE
    embedder: str = "facebook/dinov2-base"
    device: str = "auto"
    thresholds: Path | None = None
    hide_others: bool = False
    keep_rejected: bool = False
    editor: str = XANYLABELING
    origin: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    given: str = ""
