"""Muon: momentum whose step is orthogonalised, for matrices and convolutions; AdamW for the rest.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), quintic Newton-Schulz; the
step is scaled to AdamW's usual size as in Moonlight (arXiv:2502.16982, eq. 4), so that AdamW's learning rates serve.
Small models on few samples learn in about half the steps with it; its one moment per weight makes checkpoints small.
"""

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_ADAMW_SIZE = 0.2
_BETAS = (0.9, 0.99)
_LONG = 2  # times as long as high: from here on iterating on the Gram matrix is cheaper


def orthogonalised(matrices: Tensor) -> Tensor:
    """Replace the singular values of (..., m, n) matrices by about 1.

    A matrix much longer than high is multiplied twice instead of ten times: every round's polynomial is one in the
    small Gram matrix X X^T, so their product is formed there first and applied to X once.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = _on_gram(x) if x.shape[-1] >= _LONG * x.shape[-2] else _on_matrix(x)
    return x.mT if tall else x


def _on_matrix(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _on_gram(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    gram = x @ x.mT
    identity = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    whole = identity
    for index in range(_ROUNDS):
        step = a * identity + b * gram + c * gram @ gram
        whole = step @ whole
        if index + 1 < _ROUNDS:
            gram = step @ (step @ gram)  # polynomials of one matrix commute
    return whole @ x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two and more dimensions, AdamW (betas 0.9, 0.99) for vectors and embeddings.

    torch.optim.Muon takes matrices only, one at a time and in bfloat16; this one takes convolutions as well, and all
    of one shape at once. On matrices both are the same (tests/unit/training/engine/test_timed_loop.py).

    Args:
        model: whose parameters with gradients are trained.
        lr: learning rate, AdamW's scale.
        weight_decay: decoupled, on matrices only.
        adamw_params: parts of names whose matrices AdamW trains too: large ones that do little, where orthogonalising
            costs more than it brings; "" is in every name.
        momentum: of Muon, Nesterov's.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        adamw_params: tuple[str, ...] = (),
    ) -> None:
        tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        wide = {
            name: p
            for name, p in trained.items()
            if p.ndim >= 2 and min(p.flatten(1).shape) > 1 and id(p) not in tables
        }
        matrices = [p for name, p in wide.items() if not any(part in name for part in adamw_params)]
        others = [p for name, p in wide.items() if any(part in name for part in adamw_params)]
        vectors = [p for name, p in trained.items() if name not in wide]
        groups = [
            {"params": matrices, "orthogonal": True},
            {"params": others, "orthogonal": False},
            {"params": vectors, "orthogonal": False, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                self._orthogonal(moved, group)
            elif moved:
                self._adamw(moved, group)

    def _orthogonal(self, parameters: list[Tensor], group: dict) -> None:
        """Matrices of one shape go through Newton-Schulz together: on a GPU that is one launch for all of them."""
        if group["weight_decay"] and parameters:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            if "moment" not in state:
                state["moment"] = torch.zeros_like(parameter)
            moment = state["moment"].lerp_(parameter.grad, 1 - group["momentum"])
            ahead = torch.lerp(parameter.grad, moment, group["momentum"]).flatten(1).float()
            alike.setdefault(tuple(ahead.shape), []).append((parameter, ahead))
        for shape, members in alike.items():
            changes = orthogonalised(torch.stack([ahead for _, ahead in members]))
            for (parameter, _), change in zip(members, changes):
                parameter.add_(change.view_as(parameter), alpha=-group["lr"] * _ADAMW_SIZE * max(shape) ** 0.5)

    def _adamw(self, parameters: list[Tensor], group: dict) -> None:
        """Step by torch's AdamW, under the names that checkpoints have."""
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states):
            if "moment" not in state:
                state.update(
                    moment=torch.zeros_like(parameter), square=torch.zeros_like(parameter), count=torch.zeros(())
                )
        moments, squares, counts = ([state[name] for state in states] for name in ("moment", "square", "count"))
        adamw(
            parameters,
            [parameter.grad for parameter in parameters],
            moments,
            squares,
            [],
            counts,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )
