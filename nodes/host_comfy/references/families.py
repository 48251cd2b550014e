"""The families that take reference latents, one row each. Adding one is a file beside this one and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ....core.routing.call_layout import Stage
from . import boogu, joyimage, krea2, lumina, mage_flow, omnigen2, qwen_image, wan
from . import flux as flux_family
from .call import Call


@dataclass(frozen=True)
class Family:
    """Models whose calls are laid out alike.

    Attributes:
        name: for messages.
        network: module and class of its diffusion model. Subclasses are other models.
        stages: the attentions of a call.
        limit: references that its class can take, or None.
        step: what the latent sides of a reference must be a multiple of.
        negative: the negative conditioning carries the references as well.
        latents: the key of its reference latents in the conditioning, and in a call.
        method: the reference method without which its class ignores references, or None.
        conds: changes a call's conditions to fit so many tokens, or None.
        models: its models for people, where `name` is not enough.
    """

    name: str
    network: str
    stages: Callable[[Call], list[Stage]]
    limit: int | None = None
    step: int = 1
    negative: bool = True
    latents: tuple[str, str] = ("reference_latents", "ref_latents")
    method: str | None = None
    conds: Callable[[dict, int], dict] | None = None
    models: str = ""


FAMILIES = (
    Family(
        "Flux",
        "comfy.ldm.flux.model.Flux",
        flux_family.stages,
        conds=flux_family.padded,
        models="Flux.2, FLUX.1 Kontext, LongCat",
    ),
    Family("Qwen-Image-Edit", "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel", qwen_image.stages),
    Family("Krea 2", "comfy.ldm.krea2.model.SingleStreamDiT", krea2.stages, method="index"),
    Family("Mage-Flow", "comfy.ldm.mage_flow.model.MageFlowTransformer2DModel", mage_flow.stages),
    Family("JoyImage", "comfy.ldm.joyimage.model.JoyImageTransformer3DModel", joyimage.stages),
    Family(
        "OmniGen2", "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel", omnigen2.stages, limit=5, negative=False
    ),
    Family("Boogu", "comfy.ldm.boogu.model.BooguTransformer2DModel", boogu.stages, limit=5),
    Family("Z-Image Omni", "comfy.ldm.lumina.model.NextDiT", lumina.stages, step=2),
    Family("Bernini", "comfy.ldm.wan.model.WanModel", wan.stages, latents=("context_latents", "context_latents")),
)
NAMES = ", ".join(family.models or family.name for family in FAMILIES) + ", or FLUX.1-dev with DreamO"
REFUSED = {
    "comfy.ldm.hidream_o1.model.HiDreamO1Transformer": (
        "HiDream-O1's prompt reads the references in an attention that nodes cannot reach; they would leak through it"
    ),
    "comfy.ldm.minimax.model.MiniMaxH3Model": (
        "MiniMax H3 packs references, sound and video into one sequence, which is not supported yet"
    ),
}


def network_of(base: Any) -> Any:
    """Return the diffusion model of a BaseModel, without torch.compile's wrapper."""
    network = base.diffusion_model
    return getattr(network, "_orig_mod", network)


def family_of(base: torch.nn.Module) -> Family:
    """Look up the family of a BaseModel.

    Raises:
        ValueError: it takes no references, or another pack's class stands for ComfyUI's.
    """
    kind = type(network_of(base))
    name = f"{kind.__module__}.{kind.__qualname__}"
    family = next((family for family in FAMILIES if family.network == name), None)
    if family is not None:
        return family
    if not kind.__module__.startswith("comfy."):
        raise ValueError(f"model: its network is {name}, not ComfyUI's. Load the model with Load Diffusion Model.")
    reason = REFUSED.get(name, f"{type(base.model_config).__name__} has no references that could be kept in place")
    raise ValueError(f"model: {reason}. Expected {NAMES}.")


def check_latents(family: Family, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Check that the family's class can take the reference latents; ComfyUI itself would fail inside the network.

    Raises:
        ValueError: too many, or of sides that it cannot read.
    """
    if family.limit is not None and len(shapes) > family.limit:
        raise ValueError(
            f"references: {family.name} takes at most {family.limit} reference latents, got "
            f"{len(shapes)}. Leave some out, or join two pictures."
        )
    for number, shape in enumerate(shapes, start=1):
        if shape[-2] % family.step or shape[-1] % family.step:
            raise ValueError(
                f"references: {family.name} needs latents whose sides are multiples of {family.step}, got "
                f"{shape[-2]} x {shape[-1]} for reference {number}. Scale the picture to multiples of 16 "
                "pixels before it is encoded."
            )
