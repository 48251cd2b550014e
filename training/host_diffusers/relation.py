"""attach_relation: a relation LoRA on every text cross-attention of a diffusers UNet, through peft."""

from __future__ import annotations

from collections.abc import Callable

import torch
from peft import LoraConfig
from torch import nn

from core.cross_attention_layers import PROJECTIONS
from core.relation.lora import LowRank, RelationLoRA

from .unet import cross_attentions, unet_layout

_ADAPTER = "relation"
_TARGETS = r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)"


def attach_relation(unet: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> Callable[[], None]:
    """Add fresh trainable pairs, float32 whatever the UNet's precision; everything else is left as it is.

    ``down`` is drawn from N(0, 1/rank^2), ``up`` is zero, so the UNet's output does not change yet.

    Args:
        unet: of SDXL's architecture.
        rank, alpha: of every pair; the delta is alpha / rank * up @ down.
        generator: on the CPU, owner of the randomness.

    Returns:
        detach: takes them away again.
    """
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=_TARGETS), adapter_name=_ADAPTER)
    for _, _, layer in _layers(unet):
        down = layer.lora_A[_ADAPTER].to(torch.float32).requires_grad_(True).weight
        up = layer.lora_B[_ADAPTER].to(torch.float32).requires_grad_(True).weight
        with torch.no_grad():
            down.copy_(torch.randn(down.shape, generator=generator) / rank)
            up.zero_()

    def detach() -> None:
        if set(unet.peft_config) == {_ADAPTER}:
            unet.unload_lora()  # nobody else's LoRA is on it: the plain layers come back
        else:
            unet.delete_adapters(_ADAPTER)

    return detach


def _layers(unet: nn.Module):
    """Yield (site's diffusers path, projection, peft layer), in the published order."""
    for site, attention, _ in cross_attentions(unet):
        for projection in PROJECTIONS:
            yield site.diffusers, projection, attention.get_submodule(projection)


def relation_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained, by ``<site>.<projection>.down`` or ``.up``, in the published order."""
    parameters = {}
    for site, projection, layer in _layers(unet):
        parameters[f"{site}.{projection}.down"] = layer.lora_A[_ADAPTER].weight
        parameters[f"{site}.{projection}.up"] = layer.lora_B[_ADAPTER].weight
    return parameters


def relation_of(unet: nn.Module, alpha: float) -> RelationLoRA:
    """Return the attached pairs as the file format knows them: copies on the CPU."""
    parameters = {name: parameter.detach().cpu().clone() for name, parameter in relation_parameters(unet).items()}
    pairs = {
        (site, projection): LowRank(
            parameters[f"{site}.{projection}.down"], parameters[f"{site}.{projection}.up"], alpha
        )
        for site, projection, _ in _layers(unet)
    }
    return RelationLoRA(pairs, unet_layout(unet))


def set_relation(model: nn.Module, enabled: bool) -> None:
    """Switch the relation on a UNet or a Flux-class transformer on or off; off is the untouched model."""
    if enabled:
        model.enable_adapters()
    else:
        model.disable_adapters()


def merge_relation(unet: nn.Module, lora: RelationLoRA, strength: float = 1.0) -> Callable[[], None]:
    """Add a relation to the weights of a UNet that only draws; no layer is left in its way.

    Args:
        unet: without adapters, laid out as the LoRA is.
        lora: as `core.relation.lora.load_relation` reads it.
        strength: its share.

    Returns:
        restore: puts the very weights back that were there before.

    Raises:
        ValueError: the file holds more than pairs (DoRA, LoHa, ...).
    """
    if lora.beside or lora.magnitudes:
        raise ValueError(
            f"expected a relation of plain pairs, got {lora.report()}; its further parts are not merged "
            "here. Use ComfyUI for it."
        )
    originals = []
    for site, attention, _ in cross_attentions(unet):
        for projection in PROJECTIONS:
            pair = lora.pairs.get((site.diffusers, projection))
            if pair is not None:
                weight = attention.get_submodule(projection).weight
                originals.append((weight, weight.detach().clone()))
                with torch.no_grad():
                    weight.add_(strength * pair.delta().to(weight))

    def restore() -> None:
        with torch.no_grad():
            for weight, original in originals:
                weight.copy_(original)

    return restore


def read_with_diffusers(path: str, unet: nn.Module) -> int:
    """Count the file's pairs that diffusers' own LoRA loader recognises for this UNet."""
    from diffusers import StableDiffusionXLPipeline

    state = StableDiffusionXLPipeline.lora_state_dict(path, unet_config=unet.config)[0]
    return sum(key.endswith((".down.weight", ".lora_A.weight")) for key in state)
