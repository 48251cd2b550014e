"""Training on from the shipped weights: `models/miniworld` as the first checkpoints of new runs.

Moments and raw weights are not shipped, so the averages stand for both and the optimisers start anew; steps, samples
and minutes go on counting from `training.json`. The local encoder is always distilled anew from its CLIP.
"""

import json
from pathlib import Path

import torch
from torch import nn

from ...engine.muon import Muon
from ...engine.timed_loop import State, TrainerConfig, save
from ...host_diffusers.miniworld.architectures import FOLDER
from ...host_diffusers.miniworld.bundle import Miniworld, load_miniworld
from . import clip, unet, vae


def warm_start(out: Path, folder: Path = FOLDER) -> list[str]:
    """Writes `<out>/vae`, `<out>/clip` and `<out>/unet`, each only where no run is yet.

    Args:
        out: of the runs.
        folder: the exported models.
    Returns:
        The recipes that can now be trained on.
    """
    world = load_miniworld(folder)
    told = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    begun = []
    for settings, model in (
        (vae.SETTINGS, world.vae),
        (clip.SETTINGS, _contrastive(world)),
        (unet.SETTINGS, _denoiser(world)),
    ):
        if not (out / settings.name / "latest.json").exists():
            _first_checkpoint(out, settings, model.requires_grad_(True), told[settings.name])
            begun.append(settings.name)
    return begun


def _contrastive(world: Miniworld) -> nn.Module:
    """L's projection and the temperatures serve CLIP's loss alone and are not shipped; they start anew."""
    torch.manual_seed(clip.SETTINGS.seed)
    model = clip.ContrastiveModel(len(world.words))
    model.vision, model.text_l, model.text_g = world.vision, world.text_l, world.text_g
    return model


def _denoiser(world: Miniworld) -> nn.Module:
    model = unet.Denoiser()
    model.unet.load_state_dict(world.unet.state_dict())
    model.identity.load_state_dict(world.identity.state_dict())
    return model


def _first_checkpoint(out: Path, settings: TrainerConfig, model: nn.Module, told: dict) -> None:
    average = {name: value.detach() for name, value in model.state_dict().items() if value.is_floating_point()}
    state = State(told["steps"], told["samples"], 60 * told["minutes"], average)
    save(
        out / settings.name,
        state,
        model,
        Muon(model, settings.lr, settings.weight_decay, adamw_params=settings.adamw_params),
    )
