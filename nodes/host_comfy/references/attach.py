"""Regions onto a clone of a MODEL and the CONDITIONING of both sides, for references that any node put there."""

from __future__ import annotations

import logging

import torch
from comfy.patcher_extension import WrappersMP

from ....core.routing.call_layout import Span
from ....core.routing.reference_regions import ReferenceRegions
from ..flux import attach as flux_attach
from ..scene.recording_clip import TEXT_KEY
from .families import Family, check_latents, family_of
from .steer import KEY, Placed, PlacedCond, begin_run, steer_references

log = logging.getLogger(__name__)


def attach_regions(
    model, positive: list, negative: list, regions: ReferenceRegions, names: tuple[str, ...] = (), last: bool = False
) -> tuple:
    """Keep reference latents inside their regions, on a clone of the MODEL and new CONDITIONING.

    Both sides are steered wherever they carry references: guidance multiplies the difference between them. Maps are
    taken from the positive side. Entries without references, and everything where nothing is steered or recorded, stay
    as they are. Regions of an earlier call are replaced, or kept where these are only recorded.

    Args:
        regions: one for each reference latent of the positive side, in order.
        names: of each reference, to find it in the text as well; () where they are not known.
        last: they are for the last latents of each entry, not for the first ones.

    Raises:
        ValueError: a model that takes no references, or more or other latents than it can take.
    """
    family = family_of(model.model)
    for side in (positive, negative):
        for _, entry in side:
            check_latents(family, tuple(tuple(latent.shape) for latent in entry.get(family.latents[0], ())))
    clone = model.clone()
    if not regions.steers and regions.recorder is None:
        return clone, positive, negative
    if not clone.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, steer_references)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, begin_run(regions))
    recorded_regions: dict[int, ReferenceRegions] = {}
    sides = [
        _placed(clone, side, family, regions, names, side is positive, last, recorded_regions)
        for side in (positive, negative)
    ]
    return clone, *sides


def placed_before(entry: dict) -> Placed | None:
    """Return what an earlier call has put into a conditioning entry."""
    cond = entry.get("model_conds", {}).get(KEY)
    return None if cond is None else cond.cond[0]


def _placed(
    clone,
    side: list,
    family: Family,
    regions: ReferenceRegions,
    names: tuple[str, ...],
    records: bool,
    last: bool,
    recorded_regions: dict[int, ReferenceRegions],
) -> list:
    """Add the regions to a side's entries that have references; DreamO's keep their own rows and positions.

    Args:
        recorded_regions: copies of earlier regions that are only recorded, by the id of these; both sides share them.
    """
    placed = []
    for embedding, entry in side:
        count = len(entry.get(family.latents[0], ()))
        dreamo = flux_attach.with_regions(entry, regions, records)
        if dreamo is not None:
            entry, own = dreamo
            clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, begin_run(own))
        elif count:
            if count < len(regions.regions):
                raise ValueError(
                    f"{'positive' if records else 'negative'}: expected {len(regions.regions)} reference "
                    f"latents, one for each region, got {count}. Give both sides the same references."
                )
            before = placed_before(entry)
            if before is not None and last and records:
                log.warning(
                    "Relate: a node before keeps references in place; they may act everywhere now, as one call holds "
                    "the regions of one node. Give all references to one of them."
                )
            if before is not None and not last and not regions.steers:
                own = recorded_regions.setdefault(id(before.regions), before.regions.recorded(regions))
                value = before.recorded(own, records)
            else:
                ours = range(count)[-len(regions.regions) :] if last else range(len(regions.regions))
                copies = copies_of(entry, regions, names, ours[0], count)
                value = Placed(regions, tuple(ours), copies, embedding.shape[1], records)
            conds = {**entry.get("model_conds", {}), KEY: PlacedCond((value, None))}
            entry = {**entry, "model_conds": conds}
        placed.append([embedding, entry])
    return placed


def copies_of(
    entry: dict, regions: ReferenceRegions, names: tuple[str, ...], first: int, references: int
) -> tuple[tuple[Span, ...], ...]:
    """Find each reference's vision tokens and its name in the text, where the text encoder's clone recorded them.

    Pictures that the encoder saw are the references in their order, if there are as many; ours begin with ``first``.
    The name of a reference of weight 0 is left readable: it is a word of the prompt.
    """
    text = entry.get(TEXT_KEY)
    count = len(regions.regions)
    if text is None:
        return ((),) * count
    pictures = text.images if len(text.images) == references else ()
    words = text.find(names) if names else [()] * count
    copies = []
    for index in range(count):
        spans = list(pictures[first + index : first + index + 1])
        if regions.weights[index] > 0:
            spans += [(place, place + 1) for place in words[index]]
        copies.append(tuple((start, stop) for start, stop in spans if 0 <= start < stop <= text.length))
    return tuple(copies)


def count_references(model, side: list) -> int:
    """Count the reference latents that a conditioning carries for a model.

    Raises:
        ValueError: none, or other numbers in its parts; or a model that takes no references.
    """
    key = family_of(model.model).latents[0]
    counts = sorted({len(entry.get(key, ())) for _, entry in side} - {0})
    if len(counts) != 1:
        actual = "none" if not counts else f"parts with {' and '.join(map(str, counts))}"
        raise ValueError(
            f"positive: expected a conditioning with reference latents, got {actual}. Connect it after "
            "Reference Latent, Apply References or the model's own edit encoder, before conditionings are "
            "combined."
        )
    return counts[0]


def zeroed(side: list) -> list:
    """Set a conditioning's embeddings to zero and keep everything else, as ComfyUI's Conditioning Zero Out does.

    But for DreamO's references: guidance is published with these on the positive side only.
    """
    zeros = []
    for embedding, entry in side:
        pooled = entry.get("pooled_output")
        empty = {} if pooled is None else {"pooled_output": torch.zeros_like(pooled)}
        zeros.append([torch.zeros_like(embedding), {**flux_attach.without_ours(entry), **empty}])
    return zeros
