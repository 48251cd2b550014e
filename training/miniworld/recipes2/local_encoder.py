"""The local image encoder: `training.distill` on the second world's CLIP and its portraits of 256 pixels."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.clipself import distil
from ...engine.timed_loop import State, TrainerConfig
from ...host_diffusers.clipself import VisionEncoder, encoder_of_transformers
from ..recipes.clipself import PLAN
from ..recipes.clipself import SETTINGS as FIRST
from ..recipes.clipself import load_trained as load_distilled
from ..recipes.pictures import to_tensor
from . import contrastive
from .corpus import PORTRAIT_PIXELS, Corpus

SETTINGS = FIRST


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Distil the CLIP of `<out>/clip` on portraits and scenes of `<out>/corpus` into `<out>/distill`."""
    corpus = Corpus.open(out / "corpus")
    model, _ = contrastive.load_trained(out / "clip")

    def pictures(draw: np.random.Generator, count: int) -> Tensor:
        if draw.random() < 0.75:
            return to_tensor(corpus.portraits[draw.integers(len(corpus.portraits), size=count)])
        scenes = to_tensor(corpus.scenes[draw.integers(len(corpus.scenes), size=count)])
        return F.interpolate(scenes, size=(PORTRAIT_PIXELS, PORTRAIT_PIXELS), mode="bilinear")

    encoder = encoder_of_transformers(model.vision)
    folder = out / settings.name
    _, state = distil(encoder, encoder_of_transformers, pictures, PLAN, settings, folder, device, minutes, until)
    return state


def load_trained(out: Path) -> VisionEncoder:
    """The distilled encoder of `<out>`, its teacher's share mixed in."""
    model, _ = contrastive.load_trained(out / "clip")
    return load_distilled(out / SETTINGS.name, model.vision)
