"""The settings of a step: a training in several stages changes data, losses, rate and reference tokens.

DreamO (arXiv:2504.16915, section 4.1) is trained so: a warm-up on single subjects side by side, all tasks, and a last
stage of pictures that the base made itself, with 95 % of the reference tokens dropped and no routing loss. A stage says
only what it changes; everything is a function of the step, so a resumed run needs no memory of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...config import FluxConfig
from ...config.flux import StageConfig
from ..optim import learning_rate_at


@dataclass(frozen=True)
class Stage:
    """What a step trains on and for.

    Attributes:
        lr: learning rate after the warm-up.
        shares: of each folder of `FluxConfig.folders`, sum 1.
        columns: share of targets that are two crops side by side.
        token_share: share of reference tokens that takes part.
        weights: of each loss, "denoise" 1.
    """

    lr: float
    shares: tuple[float, ...]
    columns: float
    token_share: float
    weights: dict[str, float]


def stage_at(config: FluxConfig, step: int) -> Stage:
    """Return the settings of step 0, 1, ...; after the last stage its settings stay."""
    chosen: StageConfig | None = None
    for chosen in config.stages:
        if step < chosen.steps:
            break
        step -= chosen.steps
    return _stage(config, chosen)


def all_stages(config: FluxConfig) -> list[Stage]:
    """List every stage; one where there are none."""
    return [_stage(config, each) for each in config.stages or [None]]


def loss_names(config: FluxConfig) -> tuple[str, ...]:
    """Name the losses that any stage has on, in their order."""
    stages = all_stages(config)
    return tuple(name for name in stages[0].weights if any(stage.weights[name] for stage in stages))


def rate_at(config: FluxConfig, step: int) -> float:
    """Return the learning rate of a step: the schedule of the whole run on the stage's own rate."""
    return learning_rate_at(step, config.train.model_copy(update={"lr": stage_at(config, step).lr}))


def _stage(config: FluxConfig, own: StageConfig | None) -> Stage:
    folders, loss = config.folders(), config.loss
    mixed = own.folders if own and own.folders else [config.data.folder]
    parts = own.shares if own and own.shares else [1.0] * len(mixed)
    shares = [0.0] * len(folders)
    for folder, part in zip(mixed, parts):
        shares[folders.index(folder)] += part / sum(parts)

    def chosen(name: str, default: float) -> float:
        value = getattr(own, name, None)
        return default if value is None else value

    weights = {
        "denoise": 1.0,
        "keypoint": chosen("keypoint_weight", loss.keypoint_weight),
        "attention": loss.attention_weight,
        "routing": chosen("routing_weight", loss.routing_weight),
        "placeholder": chosen("placeholder_weight", loss.placeholder_weight),
    }
    return Stage(
        chosen("lr", config.train.lr),
        tuple(shares),
        chosen("columns", config.data.columns),
        chosen("kept", config.references.kept),
        weights,
    )
