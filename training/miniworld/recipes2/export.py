"""The trained parts of a run, put together and written in half precision as `models/miniworld` is laid out."""

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from ...common.atomic_io import write_text
from ...host_diffusers.miniworld.bundle import Miniworld, save_miniworld
from . import classifiers, contrastive, denoiser, flux, local_encoder
from .encoded_corpus import frozen_autoencoder, latent_scale

RUNS = ("autoencoder", "clip", "distill", "unet", "decoder", *(run for run in flux.KINDS), "flux_base", "classifiers")


@torch.no_grad()
def absorb_scale(model: nn.Module, shift: float, scale: float) -> None:
    """Fold scale and shift of the latents into the convolutions around them: latents come out at unit variance.

    Args:
        model: an AutoencoderKL, changed in place; what it decodes stays the same.
        shift, scale: a latent of unit variance is (latent - shift) * scale.
    """
    channels = model.config.latent_channels
    inward, outward = model.quant_conv, model.post_quant_conv
    inward.bias[:channels] = (inward.bias[:channels] - shift) * scale
    inward.weight[:channels] *= scale
    inward.bias[channels:] += 2 * torch.tensor(scale).log()  # the log variance
    outward.bias += shift * outward.weight.sum(dim=(1, 2, 3))
    outward.weight /= scale


def assemble(out: Path) -> Miniworld:
    """The averaged models of `<out>`, on the CPU; latents of the autoencoder at unit variance.

    Raises:
        FileNotFoundError: a recipe has not run yet; its name is in the message.
    """
    contrast, words = contrastive.load_trained(out / "clip")
    autoencoder = frozen_autoencoder(out)
    absorb_scale(autoencoder, *latent_scale(out))
    trained = denoiser.load_trained(out)
    return Miniworld(
        autoencoder,
        contrast.text_l,
        contrast.text_g,
        contrast.vision,
        local_encoder.load_trained(out),
        trained.unet,
        trained.identity,
        words,
    )


def export(out: Path, folder: Path) -> dict[str, object]:
    """Write everything that is trained in `<out>` to a folder laid out as `models/miniworld`.

    Args:
        out: of the runs.
        folder: receives the models, `tokenizer/`, `classifiers.safetensors`, `flux/`, `flux_index/`, `training.json`.

    Returns:
        Bytes of weights, and the accuracies of the classifiers.
    """
    shutil.copytree(contrastive.TOKENIZER, folder / "tokenizer", dirs_exist_ok=True)
    written = save_miniworld(assemble(out), folder)
    for name, target in ((flux.DREAMO.name, "flux"), (flux.INDEX.name, "flux_index")):
        written += flux.export(out, name, folder / target)
    accuracy = classifiers.export(out, folder)
    written += (folder / classifiers.FILE).stat().st_size
    runs = {name: denoiser.history(out / name) for name in RUNS}
    write_text(folder / "training.json", json.dumps(runs, indent=1) + "\n")
    return {"bytes": written, "classifiers": accuracy}
