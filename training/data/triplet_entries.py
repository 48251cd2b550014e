"""One entry of a triplets file, checked value by value before anything is opened.

Numbers are fractions of their images. What people write instead, pixels or [x, y, width, height], is recognised and
named, for nothing trained on it would fail by itself: such joints and boxes lie outside, or somewhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor

from ..common.schema import Checked, NeededPath, Words, did_you_mean

Numbers = list[list[FiniteFloat]]
_BEYOND = 0.01  # of an image: as far as a box may stand out; detectors round
_SAME_PLACE = 0.1  # intersection over union of a box and its mask, below which they are of two places
_EQUAL, _CLEAR = 0.9, 0.2  # a box that is its mask's if read otherwise, and clearly less so as it is read
_NO_JOINT = 2.0  # no visible joint of a subject that is in the picture lies farther out than this


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TripletEntry(Checked):
    """One line of ``triplets.jsonl``; further keys are kept, and not read by training."""

    model_config = ConfigDict(extra="allow")

    target: NeededPath = Field(description="the file of the image in which the relation happens")
    concepts: list[NeededPath] = Field(min_length=1, description="one file per subject: an image of it alone")
    prompt: Words = Field(description="a sentence that says what the target shows")
    names: list[Words] = Field(min_length=1, description="the subjects' words in the prompt")
    relation: str | None = Field(None, description="the relation as the prompt words it")
    boxes: Numbers | None = Field(None, description="x0, y0, x1, y1 per subject, fractions of the target")
    masks: list[NeededPath] | None = Field(None, description="one file per subject: white where it is in the target")
    keypoints_target: list[Numbers] | None = Field(None, description="x, y, visibility per joint and subject")
    keypoints_concepts: list[Numbers] | None = Field(None, description="the same joints in each concept")
    kinds: Any = Field(None, description="what each subject is; not read by training")
    skeletons: Any = Field(None, description="the names of the joints; not read by training")
    scores: Any = Field(None, description="measurements of the target; not read by training")
    origin: Any = Field(None, description="engine, models, licence; not read by training")

    def extra(self) -> dict[str, Any]:
        """Return the keys that training does not read, unknown ones among them."""
        unread = {key: getattr(self, key) for key in ("kinds", "skeletons", "scores", "origin")}
        return {key: value for key, value in unread.items() if value is not None} | (self.model_extra or {})

    def contradictions(self) -> list[tuple[str, str]]:
        fields = list(type(self).model_fields)
        close = {key: did_you_mean(key, fields) for key in self.model_extra or {}}
        return [
            (key, f"unknown key. {hint}")
            for key, hint in close.items()
            if hint.startswith("Did") and getattr(self, hint[13:-1]) is None
        ]


class AuthorsEntry(Checked):
    """One entry of the authors' ``prompts.json``."""

    model_config = ConfigDict(extra="allow")

    prompt: Words = Field(description="a sentence that says what the target shows")
    entities: Annotated[list[Words], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=6, description="the subjects' words in the prompt"
    )
    predicate: Annotated[list[str] | None, BeforeValidator(_listed)] = Field(
        None, description="the relation as the prompt words it"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_entity(cls, value: Any) -> Any:
        if isinstance(value, dict) and "entity" in value:
            value = {"entities": value["entity"], **value}
        return value


def box_faults(boxes: Tensor, names: Sequence[str]) -> list[str]:
    """Return what is wrong with (S, 4) boxes, read as x0, y0, x1, y1 in fractions of the target."""
    outside = (boxes < -_BEYOND) | (boxes > 1 + _BEYOND)
    reversed_ = (boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3])
    as_sizes = bool(reversed_.any() and (boxes[:, :2] + boxes[:, 2:] <= 1 + _BEYOND).all() and (boxes > 0).all())
    faults = []
    for name, box, is_outside, is_reversed in zip(names, boxes.tolist(), outside.any(1).tolist(), reversed_.tolist()):
        numbers = "[" + ", ".join(f"{edge:g}" for edge in box) + "]"
        if is_outside:
            hint = (
                " They look like pixels: divide x by the target's width and y by its height."
                if max(box) > _NO_JOINT
                else " Clip them to the picture."
            )
            faults.append(f"{name} {numbers}: expected fractions of the target, 0 to 1.{hint}")
        elif is_reversed or as_sizes:
            hint = (
                " They look like [x, y, width, height]: write [x, y, x + width, y + height]."
                if as_sizes
                else " Write the left top corner first."
            )
            faults.append(f"{name} {numbers}: expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1.{hint}")
    return faults


def box_misfits(name: str, box: Tensor, of_mask: Tensor) -> list[str]:
    """Return what is wrong with a box beside the tight box of its mask, each (4,) fractions of the target."""
    as_size = torch.cat((box[:2], box[:2] + box[2:]))
    overlap, otherwise = _overlap(box, of_mask), _overlap(as_size, of_mask)
    if overlap >= _SAME_PLACE and not (otherwise > _EQUAL > overlap + _CLEAR):
        return []
    hint = (
        "The box looks like [x, y, width, height]: write [x, y, x + width, y + height]."
        if otherwise > _EQUAL
        else "Correct one of them, or leave 'boxes' out: the masks then say it."
    )
    numbers = ([f"{edge:.2f}" for edge in edges.tolist()] for edges in (box, of_mask))
    return [
        "{} is at [{}] by its box, at [{}] by this mask: two different places. {}".format(
            name, *(", ".join(edges) for edges in numbers), hint
        )
    ]


def _overlap(a: Tensor, b: Tensor) -> float:
    """Compute the intersection over union of two (4,) boxes."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    shared = float(sides.prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)


def joint_faults(skeletons: Tensor, of: str) -> list[str]:
    """Return what is wrong with (K, P, 3) skeletons: x, y in fractions of an image, and visibility.

    Args:
        of: what the fractions are of, e.g. "the target".
    """
    if not skeletons.numel():
        return []
    faults = []
    odd = (skeletons[..., 2] < 0) | (skeletons[..., 2] > _NO_JOINT)
    if odd.any():
        k, p = odd.nonzero()[0].tolist()
        faults.append(
            f"skeleton {k + 1}, joint {p + 1}: expected a visibility of 0 (does not count) to 2, got "
            f"{skeletons[k, p, 2]:g}. Joints are [x, y, visibility]."
        )
    far = (skeletons[..., 2] > 0) & ((skeletons[..., :2] - 0.5).abs() > _NO_JOINT).any(-1)
    if far.any():
        k, p = far.nonzero()[0].tolist()
        x, y = skeletons[k, p, :2].tolist()
        faults.append(
            f"skeleton {k + 1}, joint {p + 1} at ({x:g}, {y:g}): expected fractions of {of}, 0 to 1; "
            f"{int(far.sum())} joints are far outside. If they are pixels, divide x by the picture's width "
            "and y by its height; joints nobody saw have visibility 0."
        )
    return faults


def as_tensor(value: Any, shape: tuple[int | None, ...], key: str, where: str, faults: list[str]) -> Tensor | None:
    """Return a nested list of numbers as a tensor; None in ``shape`` is any size."""
    if value is None:
        return None
    try:
        tensor = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        faults.append(f"{where}: '{key}': expected lists of numbers of equal lengths.")
        return None
    if tensor.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape)):
        words = " x ".join("any" if size is None else str(size) for size in shape)
        faults.append(f"{where}: '{key}': expected {words}, got {' x '.join(map(str, tensor.shape))}.")
        return None
    if not torch.isfinite(tensor).all():
        faults.append(f"{where}: '{key}': a number is too large.")
        return None
    return tensor
