"""Muon: momentum whose step is orthogonalised, for matrices and convolutions; AdamW for the rest.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), quintic Newton-Schulz; the
step is scaled to AdamW's usual size as in Moonlight (arXiv:2502.16982, eq. 4), so that AdamW's learning rates serve.
Small models on few samples learn in about half the steps with it, and its one moment a weight makes checkpoints small.
"""

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_ADAMW_SIZE = 0.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """Replaces the singular values of (..., m, n) matrices by about 1."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weights of two and more dimensions, AdamW (betas 0.9, 0.99) for vectors and embeddings.

    Args:
        model: whose parameters with gradients are trained.
        lr: learning rate, AdamW's scale.
        weight_decay: decoupled, on matrices only.
        plain: parts of names whose matrices AdamW trains too: large ones that do little, where orthogonalising costs
            more than it brings; "" is in every name.
        momentum: of Muon, Nesterov's.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        plain: tuple[str, ...] = (),
    ) -> None:
        tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        wide = {
            name: p
            for name, p in trained.items()
            if p.ndim >= 2 and min(p.flatten(1).shape) > 1 and id(p) not in tables
        }
        matrices = [p for name, p in wide.items() if not any(part in name for part in plain)]
        others = [p for name, p in wide.items() if any(part in name for part in plain)]
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
            if group["weight_decay"] and moved:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            if group["orthogonal"]:
                self._orthogonal(moved, group)
            else:
                for parameter in moved:
                    self._adamw(parameter, self.state[parameter], group)

    def _orthogonal(self, parameters: list[Tensor], group: dict) -> None:
        """Matrices of one shape go through Newton-Schulz together: on a GPU that is one launch for all of them."""
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

    @staticmethod
    def _adamw(parameter: Tensor, state: dict, group: dict) -> None:
        if "moment" not in state:
            state.update(moment=torch.zeros_like(parameter), square=torch.zeros_like(parameter), count=torch.zeros(()))
        state["count"] += 1
        count = float(state["count"])
        moment = state["moment"].lerp_(parameter.grad, 0.1)
        square = state["square"].lerp_(parameter.grad.square(), 0.01)
        size = (square / (1 - 0.99**count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(moment, size, value=-group["lr"] / (1 - 0.9**count))
