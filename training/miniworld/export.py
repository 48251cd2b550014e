"""The trained parts of a run, put together; written to `models/miniworld` in half precision."""

from pathlib import Path

from training.host_diffusers.miniworld import FOLDER
from training.host_diffusers.miniworld_parts import Miniworld, save_miniworld

from . import clip, local, unet
from .encoded import frozen_vae


def assemble(out: Path) -> Miniworld:
    """The averaged models of `<out>`, on the CPU.

    Raises:
        FileNotFoundError: a recipe has not run yet; its name is in the message.
    """
    contrastive, words = clip.load_trained(out / "clip")
    denoiser = unet.load_trained(out)
    return Miniworld(
        frozen_vae(out),
        contrastive.text_l,
        contrastive.text_g,
        contrastive.vision,
        local.load_trained(out / "distill", contrastive.vision),
        denoiser.unet,
        denoiser.identity,
        words,
    )


def export(out: Path, folder: Path = FOLDER) -> int:
    """Writes the models of `<out>`; returns the bytes of weights."""
    return save_miniworld(assemble(out), folder)
