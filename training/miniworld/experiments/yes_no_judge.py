"""The miniworld's classifiers as a judge that answers yes-or-no questions, to test the protocol of
`training/evaluation/judge` where the truth is known. It says nothing about judges of photographs.

It can answer: does a relation happen (the classifier of relations); is a creature there (the detector); do two touch
(the relations whose renders always touch); and who is the agent, where its middle is always above or below the other's.
Other questions stay unanswered, which is not No.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

import torch
from PIL import Image

from ...annotation.choose import Candidate, choose
from ...evaluation.judge.answers import CannotAnswer
from ...host_diffusers.miniworld.architectures import FOLDER
from ..recipes import classifiers
from ..recipes.find_creatures import FAINTEST, MiniworldDetector, load_detector
from ..recipes.labelled_scenes import RELATIONS
from ..recipes.pictures import picture_tensor
from ..world.traits import SPECIES

TOUCHING = (
    "back to back",
    "carrying",
    "kissing",
    "dancing with",
    "high-fiving",
    "pushing",
    "lying beside",
    "jumping with",
    "hiding behind",
    "leaning on",
    "whispering to",
    "giving a piggyback to",
    "lifting",
    "hugging",
    "shaking hands with",
    "riding",
    "leapfrogging",
)
AGENT_ABOVE, AGENT_BELOW = ("carrying", "riding", "leapfrogging"), ("giving a piggyback to", "lifting")
DIRECTED = AGENT_ABOVE + AGENT_BELOW  # the relations whose direction this judge can see
_SIDE = 128
_LEAST = 1e-6
_HAPPENS = re.compile(
    r"Is (?:the|an?) (.+?) ("
    + "|".join(sorted(RELATIONS, key=len, reverse=True))
    + r") (?:the|another) (.+?) in this picture\?"
)
_PRESENT = re.compile(r"Is there an? (.+?) in this picture\?")
_TOUCH = re.compile(r"Do .+ touch each other in this picture\?")


class ClassifierJudge:
    """See the module; satisfies `evaluation.judge.answers.Judge`."""

    def __init__(self, judges: classifiers.Classifiers, detector: MiniworldDetector) -> None:
        self.judges, self.detector = judges, detector
        weights = b"".join((FOLDER / name).read_bytes() for name in (classifiers.FILE, "detector.safetensors"))
        self.facts = {"judge": "miniworld", "revision": hashlib.sha256(weights).hexdigest()[:12], "dtype": "float32"}

    def yes_no(self, images: Sequence[Image.Image], question: str) -> tuple[float, float]:
        """Return the log-probabilities of Yes and No.

        Raises:
            CannotAnswer: another kind of question.
        """
        p = min(max(self._probability(images[-1], question), _LEAST), 1 - _LEAST)
        return math.log(p), math.log(1 - p)

    def answer(self, images: Sequence[Image.Image], text: str, longest: int = 256) -> str:
        """Return nothing: it has no words, so its grades are unparsable."""
        return ""

    def _probability(self, image: Image.Image, question: str) -> float:
        if match := _PRESENT.fullmatch(question):
            return max((one.score for one in self.detector.detect(image, [match[1]])), default=0.0)
        if _TOUCH.fullmatch(question):
            return sum(self._relations(image)[RELATIONS.index(name)] for name in TOUCHING)
        if match := _HAPPENS.fullmatch(question):
            agent, relation, other = match.groups()
            p = self._relations(image)[RELATIONS.index(relation)]
            return p * self._agrees(image, agent, relation, other)
        raise CannotAnswer(question)

    @torch.no_grad()
    def _relations(self, image: Image.Image) -> list[float]:
        return self.judges.relation(picture_tensor(image, _SIDE)).softmax(-1)[0].tolist()

    def _agrees(self, image: Image.Image, agent: str, relation: str, other: str) -> float:
        """Return 1 if the agent is where the relation puts it, or if heights do not show the direction.

        The two creatures are named together: one that the other covers is often taken for another species by itself.
        """
        species = [name.lower().split()[-1] for name in (agent, other)]
        if relation not in DIRECTED or species[0] == species[1]:
            return 1.0
        if not set(species) <= set(SPECIES):
            return 0.0
        creatures = self.detector.creatures(picture_tensor(image, _SIDE))
        boxes = [[Candidate(one.box, one.score_as(name)) for one in creatures] for name in species]
        first, second = choose(boxes, FAINTEST / 2)
        if first is None or second is None:
            return 0.0
        above = first.box[1] + first.box[3] < second.box[1] + second.box[3]
        return float(above == (relation in AGENT_ABOVE))


def open_judge() -> ClassifierJudge:
    """Open the judge of the shipped weights.

    Raises:
        ValueError: their files are missing.
    """
    return ClassifierJudge(classifiers.load_shipped(), load_detector())
