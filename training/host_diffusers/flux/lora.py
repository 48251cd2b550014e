"""attach_lora: a relation LoRA on the attention of a Flux-class transformer, through peft.

    T     attn.add_q_proj, add_k_proj, add_v_proj, to_add_out of the double blocks: they see text tokens only
    Tkv   its keys and values, what SDXL's to_k and to_v of the text are            Tm   T and the text's MLP
    I     to_q, to_k, to_v, to_out.0 of the double blocks: picture and references   QK   queries and keys of both
    S     all attention of the single blocks                                        DS   all attention, as DreamO's

References are spared by T alone: what their keys and values become changes only through what they read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig
from torch import Tensor, nn

from core.relation.lora import LowRank

_ADAPTER, _READ = "relation", "read"
_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_PICTURE = ("to_q", "to_k", "to_v", "to_out.0")
_DOUBLE = {
    "T": _TEXT,
    "Tkv": ("add_k_proj", "add_v_proj"),
    "Tm": _TEXT,
    "I": _PICTURE,
    "QK": ("to_q", "to_k", "add_q_proj", "add_k_proj"),
    "S": (),
    "DS": (*_TEXT, *_PICTURE),
}
SITES = tuple(_DOUBLE)


def site_modules(transformer: nn.Module, sites: str) -> list[str]:
    """List the linear layers that a LoRA of these sites changes, in the order of the blocks.

    Args:
        transformer: of diffusers, with or without LoRA layers.
        sites: one of SITES.

    Raises:
        ValueError: another name.
    """
    if sites not in _DOUBLE:
        raise ValueError(f"lora.sites: expected one of {', '.join(SITES)}, got {sites!r}.")
    fused = len(transformer.config.axes_dims_rope) == 4
    double = [f"attn.{name}" for name in _DOUBLE[sites]]
    if sites == "Tm":
        double += [f"ff_context.{name}" for name in (("linear_in", "linear_out") if fused else ("net.0.proj", "net.2"))]
    single: list[str] = []
    if sites in ("S", "DS"):
        single = ["attn.to_qkv_mlp_proj", "attn.to_out"] if fused else [*(f"attn.to_{x}" for x in "qkv"), "proj_out"]
    elif sites == "QK" and not fused:  # Flux.2's single blocks have query and key in one layer with value and MLP
        single = ["attn.to_q", "attn.to_k"]
    counts = (len(transformer.transformer_blocks), double), (len(transformer.single_transformer_blocks), single)
    return [
        f"{blocks}.{index}.{name}"
        for blocks, (count, names) in zip(("transformer_blocks", "single_transformer_blocks"), counts)
        for index in range(count)
        for name in names
    ]


def attach_lora(
    transformer: nn.Module, sites: str, rank: int, alpha: float, generator: torch.Generator
) -> dict[str, nn.Parameter]:
    """Add fresh trainable pairs in float32; nothing else has gradients afterwards.

    ``down`` is drawn from N(0, 1/rank^2), ``up`` is zero, so the output does not change yet.

    Args:
        transformer: of diffusers, frozen.
        sites: one of SITES.
        rank, alpha: of every pair; the delta is alpha / rank * up @ down.
        generator: on the CPU, owner of the randomness.

    Returns:
        What is trained, by ``<module>.down`` and ``<module>.up``.
    """
    transformer.requires_grad_(False)
    names = site_modules(transformer, sites)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=_exactly(names)), _ADAPTER)
    parameters: dict[str, nn.Parameter] = {}
    for name in names:
        layer = transformer.get_submodule(name)
        for half, pairs in (("down", layer.lora_A), ("up", layer.lora_B)):
            weight = pairs[_ADAPTER].to(torch.float32).requires_grad_(True).weight
            if not weight.is_meta:
                with torch.no_grad():
                    fresh = torch.randn(weight.shape, generator=generator) / rank if half == "down" else 0.0
                    weight.copy_(torch.as_tensor(fresh).expand(weight.shape))
            parameters[f"{name}.{half}"] = weight
    return parameters


def _exactly(names: list[str]) -> str:
    """Make a pattern of these names and no other; peft takes names of a list as endings."""
    return "|".join(name.replace(".", r"\.") for name in names)


def pairs_of(parameters: Mapping[str, Tensor], alpha: float) -> dict[str, LowRank]:
    """Copy trained pairs to the CPU as the file format knows them, by diffusers' module name."""
    copies = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}
    modules = dict.fromkeys(name.rpartition(".")[0] for name in copies)
    return {module: LowRank(copies[f"{module}.down"], copies[f"{module}.up"], alpha) for module in modules}


@contextmanager
def merged(transformer: nn.Module, pairs: Mapping[str, LowRank], strength: float = 1.0) -> Iterator[None]:
    """Draw with pairs in the weights of a transformer that does not train; the very weights come back afterwards."""
    originals = []
    with torch.no_grad():
        for module, pair in pairs.items():
            weight = transformer.get_submodule(module).weight
            originals.append((weight, weight.detach().clone()))
            weight.add_((strength * pair.delta()).to(weight))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, original in originals:
                weight.copy_(original)


def read_with_diffusers(path: str, transformer: nn.Module, pairs: Mapping[str, LowRank]) -> int:
    """Count the pairs that diffusers' own loader attaches to such a transformer with the deltas that were trained.

    Args:
        path: of the file.
        transformer: whose config counts; an empty one is made, on the meta device.
        pairs: as they were trained.
    """
    from diffusers import Flux2Pipeline, FluxPipeline

    fused = len(transformer.config.axes_dims_rope) == 4
    with torch.device("meta"):
        empty = type(transformer).from_config(transformer.config)
    pipeline = Flux2Pipeline if fused else FluxPipeline
    state = pipeline.lora_state_dict(path)
    state = state[0] if isinstance(state, tuple) else state
    options = {"transformer": empty, "adapter_name": _READ, "low_cpu_mem_usage": True}
    pipeline.load_lora_into_transformer(dict(state), **options, **({} if fused else {"network_alphas": None}))
    layers = {name: layer for name, layer in empty.named_modules() if _READ in getattr(layer, "lora_A", {})}

    def same(name: str, pair: LowRank) -> bool:
        down, up = (state.get(f"transformer.{name}.lora_{half}.weight") for half in "AB")
        if name not in layers or down is None or up is None:
            return False
        return torch.allclose(layers[name].scaling[_READ] * up.float() @ down.float(), pair.delta())

    return sum(same(name, pair) for name, pair in pairs.items())
