"""Put references onto a clone of a Flux MODEL and its CONDITIONING."""

from __future__ import annotations

from dataclasses import replace

from comfy.patcher_extension import WrappersMP

from ....core.routing.reference_regions import ReferenceRegions
from ....core.routing.routing import Routing
from ..references.steer import begin_run
from .wrapper import KEY, WORDS_KEY, Diagonal, ReferenceCond, apply_references


def attach_references(model, positive: list, routing: Routing) -> tuple:
    """Put references onto a clone of the MODEL and new CONDITIONING; both untouched if there are none.

    Reference latents of other nodes (Kontext's), set before this or after it, stay first, under their own position
    rule. Our own from an earlier Apply References are replaced.
    """
    clone = model.clone()
    if not routing.references:
        return clone, positive
    if not clone.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_references)
    routings = [replace(routing, words=entry[WORDS_KEY]) if entry.get(WORDS_KEY) else routing for _, entry in positive]
    for regions in {id(each): each.regions for each in routings}.values():
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, begin_run(regions))
    return clone, [[embedding, _with_references(entry, each)] for (embedding, entry), each in zip(positive, routings)]


def _with_references(entry: dict, routing: Routing) -> dict:
    """Copy a conditioning entry's dictionary and add the references."""
    before = without_ours(entry)
    others = before.get("reference_latents", [])
    added = {
        "reference_latents": [*others, *(reference.latent for reference in routing.references)],
        "model_conds": {**before.get("model_conds", {}), KEY: ReferenceCond((routing, None))},
    }
    if not others:
        added["reference_latents_method"] = Diagonal("uxo")  # the diagonal, also for a MODEL that lost its wrapper
    return {**before, **added}


def with_regions(entry: dict, regions: ReferenceRegions, records: bool) -> tuple[dict, ReferenceRegions] | None:
    """Move the references of a conditioning entry of Apply References to other regions; None for any other entry.

    Args:
        entry: a conditioning entry's dictionary.
        regions: one for each of its references; weights multiply theirs. Where they steer nothing, only their recorder
            is taken.
        records: maps are taken from it.

    Raises:
        ValueError: another number of references.
    """
    cond = entry.get("model_conds", {}).get(KEY)
    if cond is None:
        return None
    routing = cond.cond[0]
    if len(routing.references) != len(regions.regions):
        raise ValueError(
            f"positive: expected {len(regions.regions)} references of Apply References, one for a region, "
            f"got {len(routing.references)} beside latents of other nodes. Keep those in place first, and "
            "add Apply References afterwards."
        )
    recorder = regions.recorder if records else None
    if not regions.steers:
        routing = replace(routing, recorder=recorder)
        return {**entry, "model_conds": {**entry["model_conds"], KEY: ReferenceCond((routing, None))}}, routing.regions
    weights = (reference.weight * weight for reference, weight in zip(routing.references, regions.weights))
    placed = tuple(
        replace(reference, region=region, weight=weight)
        for reference, region, weight in zip(routing.references, regions.regions, weights)
    )
    routing = replace(
        routing,
        references=placed,
        strength=regions.strength,
        isolation=regions.isolation,
        window=regions.window,
        recorder=recorder,
    )
    conds = {**entry["model_conds"], KEY: ReferenceCond((routing, None))}
    return {**entry, "model_conds": conds}, routing.regions


def without_ours(entry: dict) -> dict:
    """Remove the references of an earlier Apply References from a conditioning entry."""
    conds = entry.get("model_conds", {})
    if KEY not in conds:
        return entry
    ours = [reference.latent for reference in conds[KEY].cond[0].references]
    remaining = [latent for latent in entry.get("reference_latents", []) if not any(latent is each for each in ours)]
    entry = {
        key: value for key, value in entry.items() if key != "reference_latents" and not isinstance(value, Diagonal)
    }
    return {
        **entry,
        "model_conds": {key: value for key, value in conds.items() if key != KEY},
        **({"reference_latents": remaining} if remaining else {}),
    }
