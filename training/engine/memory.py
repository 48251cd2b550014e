"""How much memory a training step takes, found without one: the step is traced on the meta device.

Counted: the frozen weights in their precision, LoRA with gradients and optimiser state, what the backward pass keeps
(every distinct tensor that autograd saves, weights excluded), and, under gradient checkpointing, the largest block
that is computed a second time. Fused attention keeps its inputs, its output and a row sum; that is what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..host_diffusers import (
    CrossAttentionExtras,
    IdentityBatch,
    attach_identity,
    attach_relation,
    cross_attentions,
    grid_of,
    relation_parameters,
)

# The largest temporary buffers: a few activations of the finest level.
_WORKSPACE = 1.05
_IDENTITY_TOKENS = 4 + 2 * 16


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step.

    Attributes:
        weights: the frozen UNet.
        trained: LoRA, its gradients and the optimiser's state.
        activations: what the backward pass keeps.
    """

    weights: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        return round((self.weights + self.trained + self.activations) * _WORKSPACE)

    def sentence(self) -> str:
        gib = 1024**3
        return (
            f"about {self.total / gib:.2f} GiB a process: {self.weights / gib:.2f} frozen UNet, "
            f"{self.trained / gib:.2f} LoRA and optimiser, {self.activations / gib:.2f} kept for the backward pass"
        )


class _Fused(torch.autograd.Function):
    """Stands for fused attention: saves what its kernels save."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        rows = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, rows)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class FusedAttention(TorchFunctionMode):
    """On the meta device torch would spell attention out and save the whole matrix."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _Fused.apply(*(args[:3] or (kwargs[name] for name in ("query", "key", "value"))))
        return func(*args, **kwargs)


def estimate(
    unet: nn.Module,
    latent: int,
    batch: int,
    dtype: torch.dtype,
    rank: int,
    checkpointing: bool,
    eight_bit: bool,
    with_identity: bool,
) -> MemoryEstimate:
    """Estimate the memory of one step of a relation LoRA.

    Args:
        unet: on the meta device, without LoRA; it is changed.
        latent: side of the latents.
        batch: pictures at once.
        dtype: of the frozen UNet.
        rank: of the LoRA.
        checkpointing: whether blocks are computed twice.
        eight_bit: optimiser state in 8 bits.
        with_identity: image cross-attention at every site, of two subjects.
    """
    unet = unet.to(dtype).requires_grad_(False)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in unet.parameters())
    attach_relation(unet, rank, rank, torch.Generator())
    trained = sum(parameter.numel() for parameter in relation_parameters(unet).values())
    unet.train()
    if with_identity:
        attach_identity(unet)
    activations = _saved(unet, latent, batch, checkpointing, with_identity)
    return MemoryEstimate(weights, trained * (4 + 4 + (2 if eight_bit else 8)), activations)


def _inputs(unet: nn.Module, latent: int, batch: int) -> tuple[tuple, dict]:
    config, dtype = unet.config, unet.dtype
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

    def empty(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=of, device="meta")

    width = config.cross_attention_dim
    conditions = {"text_embeds": empty(batch, pooled), "time_ids": empty(batch, 6)}
    return (empty(batch, config.in_channels, latent, latent), empty(batch, of=torch.long), empty(batch, 77, width)), {
        "added_cond_kwargs": conditions
    }


def _identity(unet: nn.Module, latent: int, batch: int) -> IdentityBatch:
    """Make keys, values and masks of two subjects on the meta device."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=unet.dtype, device="meta")

    sites = cross_attentions(unet)
    masks = {
        level: empty(batch, math.prod(grid_of((latent, latent), level)), _IDENTITY_TOKENS)
        for level in {level for _, _, level in sites}
    }
    return IdentityBatch(tuple((empty(batch, _IDENTITY_TOKENS, site.width),) * 2 for site, _, _ in sites), masks)


def _saved(unet: nn.Module, latent: int, batch: int, checkpointing: bool, with_identity: bool) -> int:
    arguments, keywords = _inputs(unet, latent, batch)
    extras = CrossAttentionExtras(_identity(unet, latent, batch) if with_identity else None)
    keywords["cross_attention_kwargs"] = extras.kwargs()
    return activation_bytes(unet, lambda: unet(*arguments, **keywords), checkpointing)


def activation_bytes(model: nn.Module, call: Callable[[], object], checkpointing: bool) -> int:
    """Count the bytes of all distinct tensors that one forward pass leaves for the backward pass, without parameters.

    Args:
        model: of diffusers, on the meta device, in training mode.
        call: one forward pass.
        checkpointing: whether blocks are computed twice.
    """
    storages = Storages(model)
    block_bytes: list[int] = []

    def twice(block: nn.Module, *inputs: Tensor) -> Tensor:
        """Gradient checkpointing: the block's inputs are kept, the rest comes again, one block at a time."""
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                storages.add(tensor)
        inside = Storages(model)
        with torch.autograd.graph.saved_tensors_hooks(inside.add, lambda tensor: tensor):
            out = block(*inputs)
        block_bytes.append(inside.bytes())
        return out

    if checkpointing:
        model.enable_gradient_checkpointing(twice)
    with torch.autograd.graph.saved_tensors_hooks(storages.add, lambda tensor: tensor), FusedAttention():
        call()
    return storages.bytes() + max(block_bytes, default=0)


class Storages:
    """Distinct storages that are not a module's parameters."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._sizes: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no address is used twice

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._sizes[storage._cdata] = storage.nbytes()
            self._alive.append(tensor)
        return tensor

    def bytes(self) -> int:
        return sum(self._sizes.values())
