"""The miniworld's local image encoder: `training.distill` on the world's own CLIP and pictures."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.clipself import Distillation, distil
from ...engine.timed_loop import State, TrainerConfig, load_ema_weights
from ...host_diffusers.clipself import VisionEncoder, encoder_of_transformers
from . import clip
from .corpus import Corpus
from .pictures import to_tensor

SETTINGS = TrainerConfig(
    "distill", steps=4000, batch_size=4, lr=5e-4, warmup_steps=50, ema_decay=0.99, weight_decay=0.0, max_grad_norm=1.0
)
PLAN = Distillation(scale=4, unlocked=2, teacher_share=0.05)


def train(out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS) -> State:
    """Distils the CLIP of `<out>/clip` on the portraits and scenes of `<out>/corpus` into `<out>/distill`."""
    corpus = Corpus.open(out / "corpus")
    model, _ = clip.load_trained(out / "clip")

    def pictures(draw: np.random.Generator, count: int) -> Tensor:
        source = corpus.portraits if draw.random() < 0.5 else corpus.scenes
        return to_tensor(source[np.sort(draw.integers(len(source), size=count))])

    encoder = encoder_of_transformers(model.vision)
    _, state = distil(encoder, encoder_of_transformers, pictures, PLAN, settings, out / "distill", device, minutes)
    return state


def load_trained(folder: Path, vision: nn.Module) -> VisionEncoder:
    """The distilled encoder of a run; `vision` is the teacher, whose share is mixed in.

    Args:
        folder: of the run.
        vision: the CLIP tower it was distilled from; untouched.
    """
    import copy

    weights, _ = load_ema_weights(folder)
    result = copy.deepcopy(vision)
    result.load_state_dict(
        {
            name: torch.lerp(weights[name], value, PLAN.teacher_share) if name in weights else value
            for name, value in result.state_dict().items()
        }
    )
    return encoder_of_transformers(result.eval().requires_grad_(False))
