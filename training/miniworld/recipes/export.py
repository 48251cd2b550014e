"""The trained parts of a run, put together; written to `models/miniworld` in half precision."""

import json
from pathlib import Path

from ...host_diffusers.miniworld.architectures import FOLDER
from ...host_diffusers.miniworld.bundle import Miniworld, save_miniworld
from . import classifiers as judges
from . import clip, unet
from . import clipself as local
from .encoded_corpus import frozen_vae


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
    """Writes the models of `<out>`, judges too, and `training.json`, what each was trained with; returns bytes."""
    written = save_miniworld(assemble(out), folder)
    if (out / "judges" / "latest.json").exists():
        judges.ship(out, folder)
    (folder / "training.json").write_text(json.dumps(history(out), indent=1) + "\n", encoding="utf-8")
    return written


def history(out: Path) -> dict[str, dict]:
    """Steps, samples and minutes of every recipe that ran in `<out>`, and the size of its corpus."""
    corpus = json.loads((out / "corpus" / "corpus.json").read_text(encoding="utf-8"))
    facts: dict[str, dict] = {
        "corpus": {key: corpus[key] for key in ("scenes", "identities", "portraits", "seed", "pixels")}
    }
    for recipe in ("vae", "clip", "distill", "unet", "refine", "judges"):
        pointer = out / recipe / "latest.json"
        if pointer.exists():
            told = json.loads(pointer.read_text(encoding="utf-8"))
            facts[recipe] = {
                "steps": told["step"],
                "samples": told["samples"],
                "minutes": round(told["seconds"] / 60, 1),
            }
    return facts
