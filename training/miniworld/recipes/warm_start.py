"""Train on from the shipped weights: `models/miniworld` as the first checkpoints of new runs.

Moments and raw weights are not shipped, so the averages stand for both and the optimisers start anew; steps, samples
and minutes go on counting from `training.json`. The local encoder is always distilled anew from its CLIP. The base of
the small Fluxes is not shipped: what it had seen stands in `base.json` beside each variant's checkpoints.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ...common.atomic_io import write_text
from ...engine.muon import Muon
from ...engine.timed_loop import State, TrainerConfig, save
from ...host_diffusers.miniworld.architectures import FOLDER
from ...host_diffusers.miniworld.bundle import Miniworld, load_miniworld
from ...host_diffusers.miniworld.flux_files import load_flux
from . import autoencoder, contrastive, denoiser, flux
from .export import BASE_HISTORY, FLUX_FOLDERS, RUNS


def warm_start(out: Path, folder: Path = FOLDER) -> list[str]:
    """Write `<out>/autoencoder`, `clip`, `unet`, `flux_dreamo` and `flux_index`, each only where no run is yet.

    Args:
        out: of the runs.
        folder: the exported models.

    Returns:
        The runs that can now train on: verbs of recipes, and the names of the small Fluxes.
    """
    world = load_miniworld(folder)
    runs = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    recipes = {
        "vae": (autoencoder.SETTINGS, world.vae),
        "clip": (contrastive.SETTINGS, _contrastive(world)),
        "unet": (denoiser.SETTINGS, denoiser_of(world)),
    }
    begun = []
    for verb, (settings, model) in recipes.items():
        if not (out / RUNS[verb] / "latest.json").exists():
            _first_checkpoint(out, settings, model.requires_grad_(True), runs[verb])
            begun.append(verb)
    if "vae" in begun:
        write_text(out / RUNS["vae"] / "channels.json", json.dumps(world.vae.config.latent_channels))
    return begun + [name for name in FLUX_FOLDERS if begin_flux(out, name, folder / FLUX_FOLDERS[name])]


def begin_flux(out: Path, name: str, folder: Path) -> bool:
    """Write the first checkpoint of a small Flux; return False where a run is already, or nothing was exported."""
    if (out / name / "latest.json").exists() or not (folder / "training.json").exists():
        return False
    torch.manual_seed(flux.SETTINGS.seed)  # tables of the variant that has no use for any are not shipped
    history = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    write_text(out / name / BASE_HISTORY, json.dumps(history["base"]))
    settings = replace(flux.SETTINGS, name=name)
    _first_checkpoint(out, settings, load_flux(folder).requires_grad_(True), history["references"])
    return True


def _contrastive(world: Miniworld) -> nn.Module:
    """Build CLIP's training model; L's projection and the temperatures are not shipped and start anew."""
    torch.manual_seed(contrastive.SETTINGS.seed)
    model = contrastive.ContrastiveModel(len(world.words))
    model.vision, model.text_l, model.text_g = world.vision, world.text_l, world.text_g
    return model


def denoiser_of(world: Miniworld) -> denoiser.Denoiser:
    """Build the training model of a world: copies of its UNet and identity model."""
    model = denoiser.Denoiser(world.unet.config.in_channels)
    model.unet.load_state_dict(world.unet.state_dict())
    model.identity.load_state_dict(world.identity.state_dict())
    return model


def _first_checkpoint(out: Path, settings: TrainerConfig, model: nn.Module, run: dict) -> None:
    average = {name: value.detach() for name, value in model.state_dict().items() if value.is_floating_point()}
    state = State(run["steps"], run["samples"], 60 * run["minutes"], average)
    optimiser = Muon(model, settings.lr, settings.weight_decay, adamw_params=settings.adamw_params)
    save(out / settings.name, state, model, optimiser)
