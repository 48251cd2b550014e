"""The local image encoder: `training.distill` on the miniworld's CLIP and its portraits of 256 pixels."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...engine.clipself import Distillation, distil
from ...engine.timed_loop import State, TrainerConfig, load_ema_weights
from ...host_diffusers.clipself import VisionEncoder, encoder_of_transformers
from . import contrastive
from .corpus import PORTRAIT_PIXELS, Corpus
from .pictures import to_tensor

SETTINGS = TrainerConfig(
    "distill", steps=4000, batch_size=4, lr=5e-4, warmup_steps=50, ema_decay=0.99, weight_decay=0.0, max_grad_norm=1.0
)
PLAN = Distillation(scale=4, unlocked=2, teacher_share=0.05)


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Distil the CLIP of `<out>/clip` on portraits and scenes of `<out>/corpus` into `<out>/distill`."""
    corpus = Corpus.open(out / "corpus")
    model, _ = contrastive.load_trained(out / "clip")

    def pictures(rng: np.random.Generator, count: int) -> Tensor:
        if rng.random() < 0.75:
            return to_tensor(corpus.portraits[rng.integers(len(corpus.portraits), size=count)])
        scenes = to_tensor(corpus.scenes[rng.integers(len(corpus.scenes), size=count)])
        return F.interpolate(scenes, size=(PORTRAIT_PIXELS, PORTRAIT_PIXELS), mode="bilinear")

    encoder = encoder_of_transformers(model.vision)
    folder = out / settings.name
    _, state = distil(encoder, encoder_of_transformers, pictures, PLAN, settings, folder, device, minutes, until)
    return state


def load_trained(out: Path) -> VisionEncoder:
    """Load the distilled encoder of `<out>`, its teacher's share mixed in."""
    weights, _ = load_ema_weights(out / SETTINGS.name)
    student = copy.deepcopy(contrastive.load_trained(out / "clip")[0].vision)
    mixed = {
        name: torch.lerp(weights[name], value, PLAN.teacher_share) if name in weights else value
        for name, value in student.state_dict().items()
    }
    student.load_state_dict(mixed)
    return encoder_of_transformers(student.eval().requires_grad_(False))
