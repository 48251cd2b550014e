"""How much memory a step on a Flux-class model takes, and what would make it fit the card; traced on the meta device.

As `engine.memory`: frozen weights as they are stored, LoRA with gradients and optimiser state, what the backward pass
keeps, and under checkpointing the largest block computed a second time. Storage in 8 bits or in the computer's memory
adds the weights of the block that computes. On a card 1.5 GB are added for CUDA's context and fragmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...host_diffusers.flux.lora import attach_lora
from ...host_diffusers.flux.network import FluxNetwork
from ...host_diffusers.flux.stored import streamed_blocks
from ..memory import activation_bytes

CONTEXT = 1_500_000_000
_FOUR_BITS = 4.13 / 8  # bytes a weight of NF4 with its block scales
GB = 1e9


@dataclass(frozen=True)
class StepShape:
    """What decides the memory of a step.

    Attributes:
        picture, reference: (channels, h, w) of their latents.
        references: how many there are.
        text: tokens of a prompt.
        batch: pictures at once.
        sites, rank: of the LoRA.
        checkpointing: blocks are computed twice.
        storage: precision, fp8 or nf4.
        streamed: blocks that stay in the computer's memory.
        eight_bit: optimiser state in 8 bits.
    """

    picture: tuple[int, int, int]
    reference: tuple[int, int, int]
    references: int
    text: int
    batch: int = 1
    sites: str = "DS"
    rank: int = 4
    checkpointing: bool = True
    storage: str = "precision"
    streamed: int = 0
    eight_bit: bool = False


@dataclass(frozen=True)
class FluxMemory:
    """Bytes of a training step on the card.

    Attributes:
        weights: the frozen transformer.
        passing: weights of the block that computes, where they are stored otherwise.
        trained: LoRA, its gradients and the optimiser's state.
        activations: what the backward pass keeps.
        context: CUDA's own, or 0.
        host: weights that stay in the computer's memory.
        sizes: numbers in each block; others: outside of them.
    """

    weights: int
    passing: int
    trained: int
    activations: int
    context: int = 0
    host: int = 0
    sizes: tuple[int, ...] = ()
    others: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.passing + self.trained + self.activations + self.context

    def sentence(self) -> str:
        parts = {
            "frozen transformer": self.weights,
            "the block that computes": self.passing,
            "LoRA and optimiser": self.trained,
            "kept for the backward pass": self.activations,
            "CUDA": self.context,
        }
        text = ", ".join(f"{size / GB:.2f} {name}" for name, size in parts.items() if size)
        host = f"; {self.host / GB:.2f} GB of the computer's memory" if self.host else ""
        return f"about {self.total / GB:.2f} GB a process: {text}{host}"


def estimate_flux(transformer: nn.Module, dtype: torch.dtype, shape: StepShape, on_card: bool = True) -> FluxMemory:
    """Estimate the memory of one step.

    Args:
        transformer: on the meta device, without LoRA; it is changed.
        dtype: that it computes in.
        shape: of the step.
        on_card: count CUDA's context.
    """
    transformer = transformer.to(dtype).train()
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    sizes = [sum(weight.numel() for weight in block.parameters()) for block in blocks]
    others = sum(weight.numel() for weight in transformer.parameters()) - sum(sizes)
    parameters = attach_lora(transformer, shape.sites, shape.rank, shape.rank, torch.Generator())
    trained = sum(parameter.numel() for parameter in parameters.values())
    weights, passing, host = _placed(sizes, others, dtype.itemsize, shape.storage, shape.streamed)
    state = trained * (4 + 4 + (2 if shape.eight_bit else 8))
    activations = _saved(transformer, dtype, shape)
    return FluxMemory(weights, passing, state, activations, CONTEXT if on_card else 0, host, tuple(sizes), others)


def _placed(sizes: Sequence[int], others: int, itemsize: int, storage: str, streamed: int) -> tuple[int, int, int]:
    """Count the bytes of frozen weights on the card, of the blocks that compute, and in the computer's memory."""
    stored = {"precision": itemsize, "fp8": 1.0, "nf4": _FOUR_BITS}[storage]
    offloaded = streamed_blocks(len(sizes), streamed)
    on_card = [size * stored for index, size in enumerate(sizes) if index not in offloaded]
    on_host = [size * stored for index, size in enumerate(sizes) if index in offloaded]
    passing = max(sizes) * itemsize if storage == "fp8" else 0
    passing += 2 * max(on_host, default=0)  # the one that computes and the next
    of_others = stored if storage == "nf4" else itemsize  # bitsandbytes packs every linear layer
    return round(sum(on_card) + others * of_others), round(passing), round(sum(on_host))


def _saved(transformer: nn.Module, dtype: torch.dtype, shape: StepShape) -> int:
    """Count the bytes that a forward pass leaves for the backward pass."""
    config = transformer.config
    pooled = getattr(config, "pooled_projection_dim", None)

    def empty(*size: int) -> Tensor:
        return torch.empty((shape.batch, *size), device="meta")

    network = FluxNetwork(transformer, "index", None, dtype)
    transformer.pos_embed = _Rotary(config.attention_head_dim)
    inputs = (empty(*shape.picture), empty(), empty(shape.text, config.joint_attention_dim))
    references = [empty(*shape.reference) for _ in range(shape.references)]
    inputs = (*inputs, empty(pooled) if pooled else None, references)
    return activation_bytes(transformer, lambda: network(*inputs), shape.checkpointing)


class _Rotary(nn.Module):
    """Stands for the rotary positions, which are made in float64 on no meta device."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return torch.empty(len(ids), self.width, device="meta"), torch.empty(len(ids), self.width, device="meta")


def what_fits(memory: FluxMemory, shape: StepShape, room: int, itemsize: int) -> str:
    """Say of a card of `room` bytes that it fits, or the smallest change of the config that makes it fit.

    Args:
        memory: of the step as it is configured.
        shape: of that step.
        room: bytes of the card.
        itemsize: bytes of a number that it computes with.
    """
    card = f"this card has {room / GB:.1f} GB"
    if memory.total <= room:
        return f"{card}: it fits"
    if not shape.checkpointing:
        return f"{card}: set train.gradient_checkpointing = true, and look again"
    changes = ["train.micro_batch = 1"] if shape.batch > 1 else []
    rest = memory.trained + memory.activations // shape.batch + memory.context
    storages = [shape.storage, "fp8"] if shape.storage == "precision" else [shape.storage]
    blocks = len(memory.sizes) if shape.storage != "nf4" else 0
    for storage, streamed in [(each, shape.streamed) for each in storages] + [
        (storages[-1], count) for count in range(shape.streamed + 1, blocks + 1)
    ]:
        if rest + sum(_placed(memory.sizes, memory.others, itemsize, storage, streamed)[:2]) <= room:
            changes += [f'memory.storage = "{storage}"'] if storage != shape.storage else []
            changes += [f"memory.stream_blocks = {streamed}"] if streamed != shape.streamed else []
            return f"{card}: {', '.join(changes)} would make it fit"
    return f"{card}: it does not fit; take a smaller data.image_px, data.reference_px or base"
