"""Assemble the trained parts of a run and write them to `models/miniworld`: half precision, Flux in 8 bits."""

import json
from pathlib import Path

import torch
from torch import nn

from ...common.atomic_io import write_text
from ...host_diffusers.miniworld.architectures import FOLDER
from ...host_diffusers.miniworld.bundle import Miniworld, save_miniworld
from ...host_diffusers.miniworld.flux_files import FLUX_FOLDER, INDEX_FOLDER, save_flux
from . import classifiers, contrastive, denoiser, detector, flux, local_encoder
from .corpus import PIXELS, Corpus
from .encoded_corpus import frozen_autoencoder, latent_scale

# key of `training.json`, the same as the verb: folder in <out>
RUNS = {
    "vae": "autoencoder",
    "clip": "clip",
    "distill": "distill",
    "unet": "unet",
    "refine": "decoder",
    "judges": "classifiers",
}
# run of a small Flux in <out>: its folder in models/miniworld
FLUX_FOLDERS = {flux.SETTINGS.name: FLUX_FOLDER.name, flux.INDEX.name: INDEX_FOLDER.name}
BASE_HISTORY = "base.json"  # in a run that began from exported weights, whose base is not there


@torch.no_grad()
def absorb_scale(model: nn.Module, shift: float, scale: float) -> None:
    """Fold scale and shift of the latents into the convolutions around them: latents come out at unit variance.

    Args:
        model: an AutoencoderKL, changed in place; its decoded pictures stay the same.
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
    """Assemble the averaged models of `<out>` on the CPU; latents of the autoencoder at unit variance.

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


def export(out: Path, folder: Path = FOLDER) -> dict[str, object]:
    """Write the SDXL-like models of `<out>`, the judges and the detector if they were trained, and `training.json`.

    Args:
        out: of the runs.
        folder: laid out as `models/miniworld`; receives the tokenizer too.

    Returns:
        Bytes of weights, and the accuracies of the classifiers.
    """
    if folder != FOLDER:
        for file in (FOLDER / "tokenizer").iterdir():
            write_text(folder / "tokenizer" / file.name, file.read_text(encoding="utf-8"))
    save_miniworld(assemble(out), folder)
    accuracy = classifiers.export(out, folder) if (out / "classifiers" / "latest.json").exists() else {}
    if (out / detector.FILE).exists():
        (folder / detector.FILE).write_bytes((out / detector.FILE).read_bytes())
    corpus = vars(Corpus.open(out / "corpus").size) | {"pixels": PIXELS}
    runs = {name: history(out / run) for name, run in RUNS.items()}
    facts = {"corpus": corpus} | {name: run for name, run in runs.items() if run}
    write_text(folder / "training.json", json.dumps(facts, indent=1) + "\n")
    return {"bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")), "judges": accuracy}


def export_flux(out: Path, dreamo: Path = FLUX_FOLDER, index: Path = INDEX_FOLDER) -> int:
    """Write both variants of the small Flux, and beside each `training.json`; return the bytes of weights.

    Args:
        out: of the runs; a variant that was not trained is left out.
        dreamo, index: receive DreamO's variant, and the one with numbered references.

    Raises:
        FileNotFoundError: neither was trained yet.
    """
    variants = {flux.SETTINGS.name: dreamo, flux.INDEX.name: index}
    trained = {name: folder for name, folder in variants.items() if flux_history(out, name)}
    if not trained:
        raise FileNotFoundError(f"{out}: expected a trained Flux; run python -m training.miniworld flux")
    written = 0
    for name, folder in trained.items():
        written += save_flux(flux.load_trained(out, name), folder)
        write_text(folder / "training.json", json.dumps(flux_history(out, name), indent=1) + "\n")
    return written


def flux_history(out: Path, name: str) -> dict[str, dict[str, float]]:
    """Read steps, samples and minutes of the base's run and of a variant's; empty if the variant never ran."""
    begun, references = out / name / BASE_HISTORY, history(out / name)
    base = json.loads(begun.read_text(encoding="utf-8")) if begun.exists() else history(out / flux.BASE.name)
    return {"base": base, "references": references} if base and references else {}


def history(folder: Path) -> dict[str, float] | None:
    """Read steps, samples and minutes of a run; None if it never ran."""
    pointer = folder / "latest.json"
    if not pointer.exists():
        return None
    run = json.loads(pointer.read_text(encoding="utf-8"))
    return {"steps": run["step"], "samples": run["samples"], "minutes": round(run["seconds"] / 60, 1)}
