"""CLIP's recipe: two text encoders and one vision tower, trained contrastively on world pictures and captions.

Like the web's captions, CLIP's describe colours, patterns, accessories and emblems; the diffusion models' never do. The
G-like encoder and the L-like encoder share the vision tower and have one contrastive loss each (CLIP,
arXiv:2103.00020, section 2.3).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.identity.image_prep import normalise_pixels

from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.architectures import VISION, Words
from ..recipes.clip import ContrastiveModel, crops
from ..recipes.pictures import to_tensor
from .corpus import PIXELS, Corpus

SETTINGS = TrainerConfig("clip", steps=4000, batch_size=96, lr=1e-3, ema_decay=0.995, weight_decay=0.05, cooldown=0.3)
TRAINING_LENGTH = 77  # a described pair of creatures can take 70 tokens
TOKENIZER = Path(__file__).resolve().parents[1] / "world2" / "tokenizer"


def words() -> Words:
    """The second world's reduced tokenizer."""
    return Words(TOKENIZER)


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Train on scenes and portraits in equal parts; scenes show their plain captions half of the time."""
    corpus = Corpus.open(out / "corpus")
    torch.manual_seed(settings.seed)
    vocabulary = words()
    model = ContrastiveModel(len(vocabulary)).to(device)
    half = settings.batch_size // 2

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        scenes = draw.integers(len(corpus.scenes), size=half)
        portraits = draw.integers(len(corpus.portraits), size=settings.batch_size - half)
        texts = [corpus.scene_facts[i]["prompt" if draw.random() < 0.5 else "described"] for i in scenes]
        texts += [corpus.portrait_facts[i]["described"] for i in portraits]
        small = F.interpolate(to_tensor(corpus.portraits[portraits], device), size=(PIXELS, PIXELS), mode="area")
        images = torch.cat((to_tensor(corpus.scenes[scenes], device), small))
        pixels = normalise_pixels(crops(images, draw, VISION["image_size"]))
        ids = vocabulary.ids(texts, vocabulary.end, TRAINING_LENGTH)
        used = int((ids != vocabulary.end).sum(1).max()) + 1  # causal attention does not see the padding
        ids = ids[:, :used]
        return model(pixels, ids.to(device), (ids == vocabulary.end).int().argmax(1).to(device))

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def load_trained(folder: Path) -> tuple[ContrastiveModel, Words]:
    """The averaged CLIP of a run, in evaluation mode, on the CPU, and its tokenizer."""
    weights, _ = load_ema_weights(folder)
    vocabulary = words()
    model: nn.Module = ContrastiveModel(len(vocabulary))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False), vocabulary
