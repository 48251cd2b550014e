"""The noise a base was trained with, from its files; what cannot be followed exactly is refused by its name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import diffusers
import torch
from torch import Tensor

from core.user_files import read_json_object

from ..diffusion.noise_schedule import TIMESTEPS, NoiseSchedule
from .errors import one_line

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "flow_prediction": "flow"}
_ALL_NOISE = 1e-6  # of alpha: diffusers writes 0 or 2**-24


def read_schedule(path: Path) -> NoiseSchedule:
    """Return the noise schedule that a folder names; SDXL's where it names none.

    Raises:
        ValueError: one that training cannot follow exactly.
    """
    if not path.is_file():
        return NoiseSchedule.of_betas("epsilon")
    # 1. what training cannot follow is refused
    settings = read_json_object(path)
    name = str(settings.get("_class_name", "DDIMScheduler"))
    if settings.get("num_train_timesteps", TIMESTEPS) != TIMESTEPS:
        raise ValueError(
            f"{path}: num_train_timesteps {settings['num_train_timesteps']} is not supported; training draws "
            f"from {TIMESTEPS} timesteps."
        )
    if "FlowMatch" in name or settings.get("use_flow_sigmas"):
        return NoiseSchedule("flow")
    prediction = settings.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ValueError(
            f"{path}: prediction_type '{prediction}' is not supported; expected one of {', '.join(_PREDICTIONS)}."
        )
    try:
        scheduler = getattr(diffusers, name).from_config(settings)
        alphas, config = scheduler.alphas_cumprod, scheduler.config
    except (AttributeError, ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{path}: {name} is not supported: expected one with 1000 betas, as DDIMScheduler or "
            f"EulerDiscreteScheduler, not EDM's continuous noise ({one_line(error)})."
        ) from error
    if len(alphas) != TIMESTEPS or not bool(torch.isfinite(alphas).all()):
        raise ValueError(f"{path}: expected {TIMESTEPS} betas between 0 and 1, got {len(alphas)}.")
    # 2. the schedule, by its own numbers or by those of its betas
    kind = _PREDICTIONS[prediction]
    try:
        if config.get("trained_betas") or config.get("rescale_betas_zero_snr"):
            return with_alphas(kind, alphas)
        return NoiseSchedule.of_betas(kind, config.beta_start, config.beta_end, config.beta_schedule)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def with_alphas(prediction: str, alphas: Tensor) -> NoiseSchedule:
    """Return a schedule from its (1000,) cumulative products of 1 - beta.

    Raises:
        ValueError: epsilon is predicted where the last timestep is all noise: it says nothing of the picture there
            (arXiv:2305.08891).
    """
    if prediction == "epsilon" and float(alphas[-1]) < _ALL_NOISE:
        raise ValueError(
            "rescale_betas_zero_snr (zero terminal SNR) with epsilon prediction is not supported: at the "
            "last timestep it has no answer. Such bases predict v."
        )
    return NoiseSchedule(prediction, tuple(alphas.double().tolist()))


def zero_terminal_alphas() -> Tensor:
    """Scale SDXL's schedule so that its last timestep is all noise (arXiv:2305.08891, algorithm 1): (1000,)."""
    return diffusers.DDIMScheduler(
        TIMESTEPS, 0.00085, 0.012, "scaled_linear", rescale_betas_zero_snr=True
    ).alphas_cumprod


def schedule_of_keys(keys: Collection[str]) -> NoiseSchedule:
    """Return the noise schedule of a checkpoint file by its keys, as ComfyUI reads them.

    Raises:
        ValueError: EDM's.
    """
    edm = sorted(key for key in keys if key.startswith(("edm_mean", "edm_std", "edm_vpred.")))
    if edm:
        raise ValueError(
            f"its key {edm[0]} says it was trained with EDM's continuous noise, which is not supported; "
            "choose a base of 1000 betas."
        )
    if "v_pred" not in keys:
        return NoiseSchedule.of_betas("epsilon")
    return with_alphas("v", zero_terminal_alphas()) if "ztsnr" in keys else NoiseSchedule.of_betas("v")
