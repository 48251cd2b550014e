"""store_blocks: a frozen transformer's blocks in 8 bits, or in the computer's memory, while its LoRA trains.

The weights of a block are made when it runs, in the precision it computes in, and die with it: each block is computed
inside a gradient checkpoint, so the backward pass makes them once more and keeps them for one block at a time. The
numbers are exactly those of resident weights. Offloading by hooks on modules (accelerate, diffusers' groups) cannot
train: it takes weights away between a block's forward and its backward pass.

8 bits: float8 e4m3 with one float32 factor for each row of a matrix, largest value 448; norms and biases stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

_LARGEST = 448.0  # of float8 e4m3


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round (out, in) to float8 values and (out, 1) float32 factors."""
    factors = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _LARGEST
    return (weight.float() / factors).to(torch.float8_e4m3fn), factors


def from_fp8(values: Tensor, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """Undo `to_fp8`, rounded to `dtype`."""
    return (values.float() * factors).to(dtype)


class _StoredBlock(nn.Module):
    """Calls a block with its frozen weights made for this call. It is no part of the transformer's tree."""

    def __init__(self, block: nn.Module, factors: dict[str, Tensor], streamed: bool, fetcher: _Fetcher) -> None:
        super().__init__()
        self.block, self.factors, self.streamed, self.fetcher = block, factors, streamed, fetcher
        self.frozen = [name for name, weight in block.named_parameters() if not weight.requires_grad]
        block.forward = self._call

    def _call(self, *arguments, **keywords):
        weights = {f"block.{name}": weight for name, weight in self.fetcher.weights(self).items()}
        return functional_call(self, weights, arguments, keywords)

    def forward(self, *arguments, **keywords):
        return type(self.block).forward(self.block, *arguments, **keywords)

    def stored(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.frozen:
            yield name, self.block.get_parameter(name).detach()


class _Fetcher:
    """Brings blocks' weights to the device; on CUDA the next block's while one computes.

    Args:
        device, dtype: where and in what the blocks compute.
        prefetch: use a second CUDA stream.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, prefetch: bool) -> None:
        self.device, self.dtype = device, dtype
        self.stream = torch.cuda.Stream(device) if prefetch and device.type == "cuda" else None
        self.streamed: list[_StoredBlock] = []
        self._last = -1
        self._ahead: dict[int, tuple[dict[str, Tensor], torch.cuda.Event]] = {}

    @torch.no_grad()
    def weights(self, block: _StoredBlock) -> dict[str, Tensor]:
        """Bring a block's frozen weights to the device, in the precision it computes in."""
        weights = self._fetched(block) if block.streamed else dict(block.stored())
        return {
            name: from_fp8(weight, block.factors[name].to(self.device), self.dtype) if name in block.factors else weight
            for name, weight in weights.items()
        }

    def _fetched(self, block: _StoredBlock) -> dict[str, Tensor]:
        if self.stream is None:
            return {name: weight.to(self.device) for name, weight in block.stored()}
        index, main = self.streamed.index(block), torch.cuda.current_stream(self.device)
        if index in self._ahead:
            weights, arrived = self._ahead.pop(index)
        else:
            weights, arrived = self._copy(block)
        main.wait_event(arrived)
        for weight in weights.values():
            weight.record_stream(main)  # its memory is free again when the computing stream is done with it
        following = index - 1 if index <= self._last else index + 1  # forwards, then backwards through the blocks
        self._ahead.clear()
        if 0 <= following < len(self.streamed):
            self._ahead[following] = self._copy(self.streamed[following])
        self._last = index
        return weights

    def _copy(self, block: _StoredBlock) -> tuple[dict[str, Tensor], torch.cuda.Event]:
        with torch.cuda.stream(self.stream):
            weights = {name: weight.to(self.device, non_blocking=True) for name, weight in block.stored()}
            return weights, self.stream.record_event()


def streamed_blocks(blocks: int, streamed: int) -> set[int]:
    """Choose which of so many blocks are streamed: evenly spread, so that each has time to arrive."""
    streamed = min(streamed, blocks)
    return {(2 * index + 1) * blocks // (2 * streamed) for index in range(streamed)} if streamed else set()


@torch.no_grad()
def store_blocks(
    transformer: nn.Module, device: torch.device, dtype: torch.dtype, fp8: bool, streamed: int, prefetch: bool = True
) -> nn.Module:
    """Place a transformer for training: blocks by the arguments, everything else on the device.

    Args:
        transformer: of diffusers, LoRA attached, in `dtype`; on the CPU, or where it fits whole.
        device, dtype: where and in what it computes.
        fp8: keep the matrices of its blocks in 8 bits.
        streamed: blocks whose frozen weights stay in the computer's memory.
        prefetch: fetch ahead (CUDA).
    """
    fetcher = _Fetcher(device, dtype, prefetch)
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    streamed_indices = streamed_blocks(len(blocks), streamed)
    for index, block in enumerate(blocks):
        factors = {}
        for name, weight in block.named_parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(device)
                continue
            if fp8 and weight.ndim == 2:
                weight.data, factors[name] = to_fp8(weight.data)
            if index not in streamed_indices:
                weight.data = weight.data.to(device)
            elif device.type == "cuda":
                weight.data = weight.data.cpu().pin_memory()
        if index in streamed_indices or factors:
            factors = {name: factor.to(device) for name, factor in factors.items()}
            stored = _StoredBlock(block, factors, index in streamed_indices, fetcher)
            if index in streamed_indices:
                fetcher.streamed.append(stored)
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    for module in transformer.modules():
        for weight in module.parameters(recurse=False):
            if id(weight) not in inside:
                weight.data = weight.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return transformer
