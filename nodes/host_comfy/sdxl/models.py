"""Identity models under ComfyUI's memory manager, and the sizes and parts of ComfyUI's own models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention_for_device

from ....core.cross_attention_layers import UNetSpec
from ....core.identity.files import load_identity
from ....core.identity.local_tokens import VisionTower
from ....core.identity.model import IdentityConfig, IdentityModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedIdentityModel:
    """The value of a RELATE_IDENTITY_MODEL socket.

    Attributes:
        patcher: owns the weights for ComfyUI's memory manager; its model is a core ``IdentityModel``.
        config: its sizes.
        file: its name, for messages.
    """

    patcher: comfy.model_patcher.ModelPatcher
    config: IdentityConfig
    file: str

    def ready(self) -> IdentityModel:
        """Return the model, on its device."""
        comfy.model_management.load_models_gpu([self.patcher])
        return self.patcher.model


def load_identity_model(path: str) -> LoadedIdentityModel:
    """Read a file of ``models/relate``; weights keep the file's dtype, are computed with in float32.

    Raises:
        ValueError: the file is not an identity model; see ``core.identity.files.load_identity``.
    """
    state, config = load_identity(path)
    dtype = state["image_proj.proj_in.weight"].dtype
    with torch.device("meta"):
        model = IdentityModel(config, comfy.ops.manual_cast)
    model.load_state_dict(state, assign=True)
    model.eval().requires_grad_(False)
    patcher = managed(model)
    log.info(
        "Relate: identity model %s, %d tensors, %s, for %d cross-attentions of context width %d",
        Path(path).name,
        len(state),
        str(dtype).removeprefix("torch."),
        len(config.widths),
        config.resampler.context_width,
    )
    return LoadedIdentityModel(patcher, config, Path(path).name)


def managed(module: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    """Put a module under ComfyUI's memory manager, for its device of diffusion models."""
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher_class(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def unet_layout(model, expected: str = "an SDXL model (a UNet with text cross-attention)") -> UNetSpec:
    """Describe where the UNet of a MODEL has cross-attentions.

    Args:
        expected: the models that the caller takes, for the message.

    Raises:
        ValueError: the MODEL is no UNet with text cross-attention (Flux, SD3 and the like).
    """
    config = model.model.model_config.unet_config
    if not config.get("transformer_depth") or config.get("context_dim") is None:
        raise ValueError(f"model: expected {expected}, got {base_of(model)}. Load such a checkpoint.")
    resnets = tuple(config["num_res_blocks"])
    context = config["context_dim"]
    return UNetSpec(
        widths=tuple(config["model_channels"] * factor for factor in config["channel_mult"]),
        resnets=resnets,
        down=_split(config["transformer_depth"], resnets),
        up=_split(config["transformer_depth_output"][::-1], tuple(count + 1 for count in reversed(resnets))),
        middle=max(0, config.get("transformer_depth_middle") or 0),
        context_width=context[0] if isinstance(context, (list, tuple)) else context,
    )


def _split(depths: list[int], counts: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Group the depths of residual blocks by level."""
    blocks = iter(depths)
    return tuple(tuple(next(blocks) for _ in range(count)) for count in counts)


def base_of(model) -> str:
    """Return ComfyUI's name of a MODEL's family, e.g. SDXL, SD15, Flux."""
    return type(model.model.model_config).__name__


def check_fits(identity_widths: tuple[int, ...], context_width: int, layout: UNetSpec, base: str) -> None:
    """Check that identity tokens were made for this UNet.

    Raises:
        ValueError: another number of cross-attentions, other widths, or another context width.
    """
    widths = tuple(site.width for site in layout.sites())
    if widths != identity_widths or context_width != layout.context_width:
        raise ValueError(
            f"identity: made for a model with {len(identity_widths)} cross-attentions of context width "
            f"{context_width}, but the model is {base} with {len(widths)} of context width {layout.context_width}. "
            "Choose the identity model that belongs to this checkpoint (MS-Diffusion's belongs to SDXL)."
        )


def vision_tower(clip_vision) -> VisionTower:
    """Return the parts of a ComfyUI CLIP vision encoder; load it first.

    Raises:
        ValueError: it is no CLIP (SigLIP and DINOv2 have no class token or other blocks).
    """
    vision = getattr(clip_vision.model, "vision_model", None)
    if vision is None or getattr(vision.embeddings, "class_embedding", None) is None:
        raise ValueError(
            "local_clip_vision: expected a CLIP vision encoder (ViT-bigG/14 distilled with CLIPSelf), "
            f"got {type(clip_vision.model).__name__}."
        )
    attention = optimized_attention_for_device(clip_vision.load_device)
    return VisionTower.of(vision, lambda layer, x: layer(x, None, attention))
