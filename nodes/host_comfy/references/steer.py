"""One model call with references that are kept in their regions: the APPLY_MODEL wrapper and its override."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import comfy.conds
from torch import Tensor

from ....core.routing.call_layout import Span, Stage, length
from ....core.routing.reference_regions import ReferenceRegions
from ....core.routing.steered_attention import SteeredAttention
from .call import Call
from .families import Family, check_latents, family_of, network_of
from .override import Override

log = logging.getLogger(__name__)

KEY = "relate_reference_regions"
PICTURE = "relate_picture"  # (h, w) of the whole latent, in transformer_options while a sampler runs
SLOT = "optimized_attention_override"


@dataclass(frozen=True, eq=False)
class Placed:
    """Regions of one conditioning, and its own positions.

    Attributes:
        regions: shared by all conditionings that one node made.
        ours: which of its reference latents they are for.
        copies: for each of those, where the text repeats it, in the conditioning's own positions.
        text: tokens of the conditioning; a family may put padding before them, nodes more text behind (Concat, Redux).
        records: maps are taken from it; the negative's are not.
    """

    regions: ReferenceRegions
    ours: tuple[int, ...]
    copies: tuple[tuple[Span, ...], ...]
    text: int
    records: bool

    def __deepcopy__(self, memo: dict) -> Placed:
        return self

    def recorded(self, regions: ReferenceRegions, records: bool) -> Placed:
        """Copy with its regions' copy for a recorder, which may have further references."""
        more = range(len(self.ours), len(regions.regions))
        return replace(
            self, regions=regions, ours=(*self.ours, *more), copies=(*self.copies, *(() for _ in more)), records=records
        )

    def fits(self, other: Placed) -> bool:
        """Whether one call can hold both."""
        return (
            self.regions is other.regions
            and self.ours == other.ours
            and (self.text, self.copies) == (other.text, other.copies)
        )


class RegionsCond(comfy.conds.CONDConstant):
    """Something with regions and the area its conditioning is computed on; DreamO has one of its own."""

    @property
    def regions(self) -> ReferenceRegions:
        return self.cond[0].regions


class PlacedCond(RegionsCond):
    """A Placed and the area its conditioning is computed on. A call gets (placed, area, whether each chunk records)."""

    def process_cond(self, batch_size, area=None, **kwargs):
        return self._copy_with((self.cond[0], None if area is None else tuple(area)))

    def can_concat(self, other):
        return self.cond[1] == other.cond[1] and self.cond[0].fits(other.cond[0])

    def concat(self, others):
        return (*self.cond, tuple(each.cond[0].records for each in (self, *others)))


def steer_references(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **conds):
    """Run one call of the model: the APPLY_MODEL wrapper."""
    cond = conds.pop(KEY, None)
    options = transformer_options or {}
    if cond is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)
    placed, area, records = cond

    # how the family lays this call out
    base = executor.class_obj
    family = family_of(base)
    shapes = tuple(tuple(latent.shape) for latent in conds.get(family.latents[1]) or ())
    check_latents(family, shapes)
    assert c_crossattn is not None, "every family reads text"
    text = c_crossattn.shape[1]
    call = Call(
        network_of(base), tuple(x.shape), text, shapes, placed.ours, shifted(placed.copies, text - placed.text), conds
    )
    stages = stages_of(placed.regions, family, call)
    if not stages:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)

    # run it with the override
    override = override_of(placed.regions, stages, options, base.model_sampling, area, records, x)
    if override is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)
    if family.conds is not None:
        conds = family.conds(conds, stages[-1].size)
    out = executor(x, t, c_concat, c_crossattn, control, {**options, SLOT: override}, **conds)
    finish(placed.regions, family.name, override)
    return out


def shifted(copies: tuple[tuple[Span, ...], ...], padding: int) -> tuple[tuple[Span, ...], ...]:
    """Shift a conditioning's places by the ``padding`` tokens that a call puts before it (Flux.2)."""
    return tuple(tuple((start + padding, stop + padding) for start, stop in spans) for spans in copies)


def stages_of(regions: ReferenceRegions, family: Family, call: Call) -> list[Stage] | None:
    """List the attentions of a call; None, with a warning, where its layout is not known."""
    if any(index >= len(call.latents) for index in call.ours):
        warn(
            regions,
            family.name,
            f"expected at least {max(call.ours) + 1} reference latents, the conditioning has {len(call.latents)}",
        )
        return None
    try:
        return family.stages(call)
    except ValueError as error:
        warn(regions, family.name, str(error).rstrip("."))
        return None


def override_of(
    regions: ReferenceRegions,
    stages: list[Stage],
    options: dict,
    sampling,
    area: tuple | None,
    records: tuple[bool, ...],
    x: Tensor,
) -> Override | None:
    """Make the override of a call; None where nothing is steered and nothing is recorded.

    Args:
        stages: its attentions.
        options: its transformer_options.
        sampling: the model's, which knows the schedule.
        area: the part of the picture it is computed on, or None.
        records: for each chunk of its batch whether maps are taken.
        x: what is denoised.
    """
    recorded = chunks(records, x.shape[0]) if regions.recorder is not None else ()
    if not regions.steers and not recorded:
        return None
    inside = is_inside(options, regions.window, sampling)
    picture = options.get(PICTURE)

    def forms(stage: Stage) -> dict[int, SteeredAttention | None]:
        if stage.layout is None:
            return {}
        possible = [(0, stage.size)] + ([stage.cached] if stage.cached is not None else [])
        return {
            length([queries]): regions.attention(stage.layout, queries, area, picture, inside, x.device)
            if regions.steers
            else None
            for queries in possible
        }

    part = None if area is None or picture is None else (area, picture)
    return Override(stages, [forms(stage) for stage in stages], options.get(SLOT), recorded, part)


def chunks(records: tuple[bool, ...], batch: int) -> tuple[slice, ...]:
    """Select the rows of the batch that are recorded; ComfyUI stacks conditionings whole."""
    size = batch // len(records)
    return tuple(slice(at * size, (at + 1) * size) for at, is_recorded in enumerate(records) if is_recorded)


def is_inside(options: dict, window: tuple[float, float], sampling) -> bool:
    """Whether this step is in the window: its first sigma included, its last excluded; open at the schedule's ends.

    Sigmas are asked for in each call, so that a node that changes the schedule may stand on either side of ours.
    """
    start, end = window
    sigmas = options.get("sigmas")
    if sigmas is None or (start <= 0 and end >= 1):
        return True
    now = float(sigmas.max())
    begun = start <= 0 or now <= sampling.percent_to_sigma(start)
    return begun and (end >= 1 or now > sampling.percent_to_sigma(end))


def finish(regions: ReferenceRegions, family: str, override: Override) -> None:
    """Add a call's maps to the recorder, and warn once of what did not fit.

    A cache of whole steps (EasyCache) leaves the network out of later calls; the first one it never does.
    """
    regions.reached = regions.reached or override.called
    if override.mismatch is not None and (override.called or not regions.reached):
        warn(regions, family, override.mismatch)
    if regions.recorder is not None and override.records:
        expected = sum(stage.count for stage in override.stages if stage.recorded)
        kinds = dict.fromkeys(kind for kind, _ in override.maps)
        for kind in kinds:
            maps = [each for other, each in override.maps if other == kind]
            for at in range(len(override.records)):
                regions.recorder.take(maps[at :: len(override.records)], expected, kind)


def warn(regions: ReferenceRegions, family: str, what: str) -> None:
    """Warn once per run that references are not kept in place, with the two numbers that differ."""
    if what not in regions.warnings:
        regions.warnings.add(what)
        log.warning("Relate: the references of this %s model are not kept in place: %s.", family, what)


def begin_run(regions: ReferenceRegions):
    """Forget the maps and warnings of the run before, and note the sizes of picture and texts: an OUTER_SAMPLE wrapper.

    Conditionings may come from another branch than the MODEL, so theirs begin as well.
    """

    def wrapper(executor, *args, **kwargs):
        noise = args[0] if args else kwargs["noise"]
        guider = executor.class_obj
        if isinstance(noise, Tensor):
            guider.model_options["transformer_options"][PICTURE] = tuple(noise.shape[-2:])
        regions.begin()
        for group in (getattr(guider, "conds", None) or {}).values():
            for cond in group or []:
                _begin_conditioning(cond)
        return executor(*args, **kwargs)

    return wrapper


def _begin_conditioning(cond: dict) -> None:
    """Begin the regions of a conditioning, the guider's own copy, and note how long its text has become by now."""
    conds, text = cond.get("model_conds", {}), cond.get("cross_attn")
    for value in conds.values():
        if isinstance(value, RegionsCond):
            value.regions.begin()
    if KEY in conds and text is not None:
        placed = replace(conds[KEY].cond[0], text=text.shape[1])
        cond["model_conds"] = {**conds, KEY: PlacedCond((placed, None))}
