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
from ...host_diffusers.miniworld.architectures import VISION, Words, build_text_g, build_text_l, build_vision
from .corpus import PIXELS, Corpus
from .pictures import to_tensor

SETTINGS = TrainerConfig("clip", steps=4000, batch_size=96, lr=1e-3, ema_decay=0.995, weight_decay=0.05, cooldown=0.3)
TRAINING_LENGTH = 77  # a described pair of creatures can take 70 tokens


class ContrastiveModel(nn.Module):
    """Vision tower, both text encoders, L's projection (used by its loss alone) and the two temperatures."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vision = build_vision()
        self.text_l = build_text_l(vocabulary)
        self.text_g = build_text_g(vocabulary)
        self.project_l = nn.Linear(self.text_l.config.hidden_size, VISION["projection_dim"], bias=False)
        self.log_scales = nn.Parameter(torch.full((2,), float(np.log(1 / 0.07))))

    def forward(self, pixels: Tensor, ids: Tensor, ends: Tensor) -> dict[str, Tensor]:
        """Compute both contrastive losses.

        Args:
            pixels: (B, 3, 112, 112) normalised.
            ids: (B, T) token ids.
            ends: (B,) position of each caption's end token.

        Returns:
            loss, its two parts, and the accuracy of finding the G caption of a picture in the batch.
        """
        pictures = F.normalize(self.vision(pixel_values=pixels).image_embeds.float(), dim=-1)
        rows = torch.arange(len(ids), device=ids.device)
        pooled_l = self.text_l(input_ids=ids).last_hidden_state[rows, ends]
        pooled_g = self.text_g(input_ids=ids).last_hidden_state[rows, ends]
        texts = (self.project_l(pooled_l), self.text_g.text_projection(pooled_g))
        losses = []
        for text, log_scale in zip(texts, self.log_scales):
            scores = log_scale.clamp(max=np.log(100)).exp() * pictures @ F.normalize(text.float(), dim=-1).T
            losses.append((F.cross_entropy(scores, rows) + F.cross_entropy(scores.T, rows)) / 2)
        return {
            "loss": sum(losses) / 2,
            "l": losses[0],
            "g": losses[1],
            "top1": (scores.argmax(1) == rows).float().mean(),
        }


def crops(images: Tensor, rng: np.random.Generator, side: int) -> Tensor:
    """Crop half of the pictures at random and squash all to squares, as references are in use.

    Args:
        images: (B, 3, H, W).
        rng: owner of the randomness.
        side: pixels of the result.

    Returns:
        (B, 3, side, side).
    """
    height, width = images.shape[-2:]
    pieces = []
    for image in images:
        if rng.random() < 0.5:
            h, w = (int(size * rng.uniform(0.7, 1.0)) for size in (height, width))
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            image = image[:, top : top + h, left : left + w]
        pieces.append(F.interpolate(image[None], size=(side, side), mode="bilinear", antialias=True))
    return torch.cat(pieces)


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Train on scenes and portraits in equal parts; scenes show their plain captions half of the time."""
    corpus = Corpus.open(out / "corpus")
    torch.manual_seed(settings.seed)
    words = Words()
    model = ContrastiveModel(len(words)).to(device)
    half = settings.batch_size // 2

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        scenes = rng.integers(len(corpus.scenes), size=half)
        portraits = rng.integers(len(corpus.portraits), size=settings.batch_size - half)
        texts = [corpus.scene_facts[i]["prompt" if rng.random() < 0.5 else "described"] for i in scenes]
        texts += [corpus.portrait_facts[i]["described"] for i in portraits]
        small = F.interpolate(to_tensor(corpus.portraits[portraits], device), size=(PIXELS, PIXELS), mode="area")
        images = torch.cat((to_tensor(corpus.scenes[scenes], device), small))
        pixels = normalise_pixels(crops(images, rng, VISION["image_size"]))
        ids = words.ids(texts, words.end, TRAINING_LENGTH)
        used = int((ids != words.end).sum(1).max()) + 1  # causal attention does not see the padding
        ids = ids[:, :used]
        return model(pixels, ids.to(device), (ids == words.end).int().argmax(1).to(device))

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def load_trained(folder: Path) -> tuple[ContrastiveModel, Words]:
    """Load the averaged CLIP of a run, in evaluation mode, on the CPU, and its tokenizer."""
    weights, _ = load_ema_weights(folder)
    words = Words()
    model = ContrastiveModel(len(words))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False), words
