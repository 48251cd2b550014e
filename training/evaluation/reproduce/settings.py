"""Settings that draw a benchmark's pictures: published ones for SDXL, the miniworld's own for the miniworld."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...common.errors import UserErrors

METHODS = {
    "ms-diffusion": "identity branch alone: the published baseline, the same without a relation",
    "relate": "identity branch and one relation LoRA for each predicate",
}


@dataclass(frozen=True)
class DrawingSettings:
    """Settings of all pictures of a run.

    Attributes:
        world: `sdxl` or `miniworld`.
        width, height: pixels.
        steps, guidance, sampler, scheduler: of the sampler, as ComfyUI's KSampler names them.
        strength: of the identity branch.
        relation_strength: of the relation LoRA.
        local_grid: of the local tokens.
        negative: the negative prompt.
        first_seed: seed of the first picture of every case; further ones count up.
        checkpoint, identity, clip_vision, local_clip_vision: file names as ComfyUI lists them, or paths for diffusers.
        relation_files: name of a predicate's LoRA; `{relation}` is the predicate with underscores.
    """

    world: str
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    scheduler: str
    strength: float
    relation_strength: float
    local_grid: int
    negative: str
    first_seed: int
    checkpoint: str
    identity: str
    clip_vision: str
    local_clip_vision: str
    relation_files: str

    def relation_file(self, relation: str) -> str:
        """Return the LoRA of a predicate."""
        return self.relation_files.replace("{relation}", relation.strip().replace(" ", "_"))


# MS-Diffusion's and DreamRelation's released inference: scale .6, EulerDiscrete, 30 steps, guidance 5, 1024 x 1024.
SDXL = DrawingSettings(
    "sdxl",
    1024,
    1024,
    30,
    5.0,
    "euler",
    "normal",
    0.6,
    1.0,
    4,
    "monochrome, lowres, bad anatomy, worst quality, low quality",
    42,
    "sd_xl_base_1.0.safetensors",
    "ms_adapter.bin",
    "clip_vision_g.safetensors",
    "",
    "{relation}.safetensors",
)
MINIWORLD = DrawingSettings(
    "miniworld",
    128,
    128,
    30,
    4.0,
    "ddim",
    "ddim_uniform",
    0.6,
    1.0,
    4,
    "",
    42,
    "",
    "",
    "",
    "",
    "miniworld_{relation}.safetensors",
)
WORLDS = {"sdxl": SDXL, "miniworld": MINIWORLD}
_CHANGEABLE = {field: type(getattr(SDXL, field)) for field in DrawingSettings.__dataclass_fields__ if field != "world"}


def with_changes(settings: DrawingSettings, changes: list[str]) -> DrawingSettings:
    """Return settings with some of them changed, each given as `name=value`.

    Raises:
        UserErrors: unknown names and values of the wrong kind, all of them.
    """
    values, faults = {}, []
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in _CHANGEABLE:
            faults.append(f"--set {change}: expected name=value with one of {', '.join(_CHANGEABLE)}.")
            continue
        try:
            values[name] = _CHANGEABLE[name](text)
        except ValueError:
            faults.append(f"--set {change}: expected {name} to be a {_CHANGEABLE[name].__name__}.")
    if values.get("relation_files", "{relation}").count("{relation}") != 1:
        faults.append(f"--set relation_files={values['relation_files']}: expected {{relation}} in it, once.")
    if faults:
        raise UserErrors(faults)
    return replace(settings, **values)
