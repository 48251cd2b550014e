"""Fused attention that also returns the log-sum-exp of its logits, which plain attention throws away.

    out = softmax(Q K^T s + M) V,    lse = log sum exp(Q K^T s + M) over the keys

Two results over disjoint keys merge exactly into the result over all of them (the identity flash attention rests on,
arXiv:2205.14135, section 3.1):

    out = out_1 + (out_2 - out_1) w,    w = sigmoid(lse_2 - lse_1),    lse = logaddexp(lse_1, lse_2)

torch has the kernels, but ``scaled_dot_product_attention`` hides their second result. Which kernels give the
right numbers on a device is tried once, on a few numbers; without one, attention is done in chunks of queries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CHUNK = 512  # queries at a time where no fused kernel runs: never an (S, S) matrix
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], tuple[Tensor, Tensor]]


def _cpu(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=mask, scale=scale
    )[:2]


def _flash(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    if mask is not None:
        raise NotImplementedError("flash attention takes no mask")
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, False, False, scale=scale)[:2]


def _efficient(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    if mask is not None:  # its rows must be aligned in memory
        keys = key.shape[2]
        mask = torch.nn.functional.pad(mask, (0, -keys % 16))[..., :keys].expand(*query.shape[:3], keys)
    out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, True, 0.0, False, scale=scale
    )[:2]
    return out, lse[..., : query.shape[2]]  # the kernel pads its rows


def _chunked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for start in range(0, query.shape[2], CHUNK):
        rows = slice(start, start + CHUNK)
        logits = (query[:, :, rows] @ key.transpose(-1, -2)).float() * scale
        if mask is not None:
            logits = logits + (mask if mask.shape[-2] == 1 else mask[..., rows, :])
        lse = logits.logsumexp(dim=-1)
        outs.append((logits - lse[..., None]).exp().to(value.dtype) @ value)
        lses.append(lse)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


CANDIDATES = {"cpu": (_cpu,), "cuda": (_flash, _efficient)}


_KERNELS: dict[tuple[str, torch.dtype, bool], Kernel] = {}


def prepare(device: str) -> None:
    """Find the fastest kernels whose numbers are right on a kind of device, once; call it outside compiled code.

    Args:
        device: its type, as in ``torch.device.type``.
    """
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for masked in (False, True):
            if (device, dtype, masked) not in _KERNELS:
                _KERNELS[device, dtype, masked] = _find_kernel(device, dtype, masked)


def _find_kernel(device: str, dtype: torch.dtype, masked: bool) -> Kernel:
    if device not in CANDIDATES:  # it may not even have the dtype, as some Macs and DirectML have no bfloat16
        return _chunked
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 16, 64, generator=generator).to(device, dtype) for _ in range(3))
    mask = torch.randn(1, 1, 16, 16, generator=generator).to(device, dtype) if masked else None
    expected = _chunked(query, key, value, mask, 0.125)
    for candidate in CANDIDATES[device]:
        try:
            results = candidate(query, key, value, mask, 0.125)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            log.debug("Relate: %s does not run on %s with %s: %s", candidate.__name__, device, dtype, error)
            continue
        if all(torch.allclose(one.float(), other.float(), atol=3e-2) for one, other in zip(results, expected)):
            return candidate
        log.warning(
            "Relate: torch's kernel %s gives other numbers than expected on %s with %s; steered attention "
            "runs in chunks there, which is slower.",
            candidate.__name__,
            device,
            dtype,
        )
    return _chunked


def attend_with_lse(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Attend, and return the log-sum-exp of the logits too, by the kernels of ``prepare``; for inference only.

    Args:
        query: (B, H, S, d).
        key, value: (B, G, K, d); H a multiple of G (grouped queries share a key head).
        mask: additive, broadcastable to (B, H, S, K), or None.
        scale: of the logits; None is d^-1/2.

    Returns:
        (B, H, S, d) in the query's dtype and (B, H, S) float32.
    """
    batch, heads, rows, width = query.shape
    groups = heads // key.shape[1]
    device = query.device.type
    fused = device == "cpu" or (width % 8 == 0 and width <= 256)  # what a GPU's kernels take
    run = _KERNELS.get((device, query.dtype, mask is not None), _chunked) if fused else _chunked
    scale = float(width**-0.5) if scale is None else scale
    if mask is None:
        # queries that share a key head are rows of one attention: keys and values need no copy
        out, lse = run(query.reshape(batch, key.shape[1], groups * rows, width), key, value, None, scale)
        return out.reshape(query.shape[:3] + out.shape[-1:]), lse.float().reshape(batch, heads, rows)
    if groups > 1:
        key, value = (side.repeat_interleave(groups, dim=1) for side in (key, value))
    out, lse = run(query, key, value, mask, scale)
    closed = (mask == float("-inf")).all(dim=-1)  # kernels differ in what they give where no key is left
    return out.masked_fill(closed[..., None], 0), lse.float().masked_fill(closed, float("-inf"))
