"""DreamO's training losses (arXiv:2504.16915, equations 3 to 5).

    L_route  = 1 / (n_c n_l) * sum over layers and references || M - M_target ||^2                        (3)
    L_holder = 1 / n_c * sum over references || softmax(Q_reference K_words^T) - B ||^2                   (4)
    L        = lambda_diff L_diff + lambda_route L_route + lambda_holder L_holder                         (5)

M is equation 2 (``routing_map.logit_map``) of every layer; there is no softmax in equations 2 and 3. The paper does not
say whether || ||^2 sums or averages over tokens; the authors weigh L_route and L_diff equally and call them comparable,
which only the mean is, so the mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..shapes import check_shape


def routing_loss(maps: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Equation 3.

    Args:
        maps: for each layer (B, R, h, w), from ``logit_map``.
        targets: (B, R, h, w) in [0, 1], each reference's region of the target picture on the token grid.

    Returns:
        (B,) float32.

    Raises:
        ValueError: no map, or another shape.
    """
    sizes = check_shape(targets, "B R h w", "routing targets")
    if not maps:
        raise ValueError("routing loss: expected the maps of at least one layer, got none.")
    layers = []
    for layer in maps:
        check_shape(layer, "B R h w", "routing map", **sizes)
        layers.append((layer.float() - targets.float()).square().flatten(2).mean(-1).mean(-1))
    return torch.stack(layers).mean(dim=0)


def placeholder_loss(query: Tensor, words: Tensor, owners: Tensor) -> Tensor:
    """Equation 4 at one layer: a reference's tokens should find their own placeholder among all of the prompt.

    Args:
        query: (B, H, M, d) queries of all reference tokens, as they enter attention.
        words: (B, H, R, d) keys of the placeholder tokens, one per reference, in the references' order.
        owners: (M,) long, 0 to R - 1: whose each query token is.

    Returns:
        (B,) float32: the mean over each reference's tokens of the squared distance to its one-hot row, mean over
        references and heads. 0 for a single reference, whose softmax has one entry.
    """
    sizes = check_shape(query, "B H M d", "reference queries")
    references = check_shape(words, "B H R d", "placeholder keys", B=sizes["B"], H=sizes["H"], d=sizes["d"])["R"]
    check_shape(owners, "M", "owners of reference tokens", M=sizes["M"])
    shares = (query.float() @ words.float().transpose(-1, -2) / math.sqrt(sizes["d"])).softmax(dim=-1)  # (B, H, M, R)
    one_hot = torch.nn.functional.one_hot(owners, references).to(shares)  # (M, R)
    distances = (shares - one_hot).square().sum(dim=-1)  # (B, H, M)
    tokens = one_hot.sum(dim=0).clamp_min(1)  # (R,)
    return ((distances @ one_hot) / tokens).mean(dim=(1, 2))


def total_loss(
    diffusion: Tensor,
    routing: Tensor,
    holder: Tensor | None,
    diffusion_weight: float = 1.0,
    routing_weight: float = 1.0,
    holder_weight: float = 1.0,
) -> Tensor:
    """Equation 5. The authors weigh the first two equally; the third's weight is not published.

    Args:
        diffusion, routing: (B,).
        holder: (B,), or None for a prompt without placeholders (half of the training prompts).
    """
    total = diffusion_weight * diffusion + routing_weight * routing
    return total if holder is None else total + holder_weight * holder
