"""The miniworld's renderer draws: exact pictures in milliseconds, to try everything with nothing to download.

The only module of this package that imports the miniworld.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ...common.errors import UserErrors
from ...miniworld.world.captions import plain_prompt
from ...miniworld.world.relations import PAIRS
from ...miniworld.world.renderer import render
from ...miniworld.world.rng_streams import Stream, generator
from ...miniworld.world.scene import ScenePlan, draw_plan, portrait
from ...miniworld.world.traits import SPECIES, CreatureTraits, draw_traits
from ..request import PANELS, Request, request_hash
from ..scenes import Scene

_GUTTER = 0.015  # of the width of a panelled picture


class MiniworldEngine:
    """See `request.Engine`. Creatures are those that trainings may see; the held-out ones are for evaluation."""

    size = 128

    @property
    def facts(self) -> dict[str, Any]:
        """See `request.Engine`."""
        models = [{"file": "miniworld renderer", "licence": "MIT"}]
        return {"engine": "miniworld", "template_sha256": "", "models": models, "licence": "MIT"}

    def check(self, roles: Mapping[str, int], relation: str, groups: list[tuple[str, ...]]) -> None:
        """See `request.Engine.check`: the world's own relations of two, and its species."""
        faults = []
        if relation not in PAIRS:
            faults.append(f"--relation {relation}: the miniworld draws {', '.join(PAIRS)}.")
        odd = sorted({name for names in groups for name in names if name not in SPECIES})
        if odd:
            faults.append(f"--subjects {', '.join(odd)}: the miniworld draws {', '.join(SPECIES)}.")
        if any(len(names) != 2 for names in groups):
            faults.append("--subjects: the miniworld draws relations of two; expected two subjects in each group.")
        if faults:
            raise UserErrors(faults)

    def key(self, request: Request) -> str:
        """See `request.Engine.key`."""
        return request_hash(request, name="miniworld")

    def draw(self, request: Request) -> bytes:
        """See `request.Engine.draw`."""
        side = request.height
        if request.role == PANELS:
            pixels = self._panels(request.scene, side)
        elif request.subject is None:
            pixels = render(plan_of(request.scene), side).image
        else:
            pixels = render(portrait_of(request.scene, request.subject), side).image
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        return file.getvalue()

    def caption(self, scene: Scene) -> str:
        """See `request.Engine.caption`: the renderer draws places of its own."""
        return plain_prompt(scene.relation, scene.names, plan_of(scene).backdrop.place)

    def _panels(self, scene: Scene, side: int) -> np.ndarray:
        """Draw the relation and each subject alone side by side, with white lines between."""
        plans = [plan_of(scene), *(portrait_of(scene, index) for index in range(len(scene.names)))]
        line = np.full((side, max(round(_GUTTER * side * len(plans)), 1), 3), 255, np.uint8)
        parts = [part for plan in plans for part in (line, render(plan, side).image)]
        return np.concatenate(parts[1:], axis=1)


def plan_of(scene: Scene) -> ScenePlan:
    """Plan what the renderer draws for a scene: the same for the same seed."""
    rng = generator(scene.seed, Stream.GENERATED)
    cast = tuple(_creature(rng, name) for name in scene.names)
    return draw_plan(rng, scene.relation, cast)


def portrait_of(scene: Scene, subject: int) -> ScenePlan:
    """Plan one of a scene's creatures alone, in another pose and place."""
    plan, rng = plan_of(scene), generator(scene.seed, Stream.GENERATED, 1, subject)
    return portrait(rng, plan.cast[subject], plan.backdrop.place)


def _creature(rng: np.random.Generator, species: str) -> CreatureTraits:
    while (traits := draw_traits(rng)).species != species:
        pass
    return traits
