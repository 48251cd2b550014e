"""The decoder's own recipe: pictures sharpen; the latents, and all that was trained on them, stay as they are."""

from pathlib import Path

import torch
from torch import Tensor

from ...engine.timed_loop import State, TrainerConfig, fit
from .corpus import Corpus
from .encoded_corpus import frozen_vae
from .vae import draw_pictures, fold, reconstruction, unfold, weighted

SETTINGS = TrainerConfig("refine", steps=60000, batch_size=8, lr=1e-3, ema_decay=0.998, weight_decay=0.0)


def train(out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS) -> State:
    """Trains the decoder of `<out>/encoded/vae.safetensors` on its encoder's means into `<out>/refine`."""
    corpus = Corpus.open(out / "corpus")
    vae = frozen_vae(out, refined=False).to(device)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = draw_pictures(corpus, settings.batch_size, generator, device)
        with torch.no_grad():
            latents = vae.encode(fold(batch)).latent_dist.mean
        parts = reconstruction(unfold(vae.decode(latents).sample).float(), batch)
        return {"loss": weighted(parts), **parts}

    return fit(settings, vae, loss, out / "refine", device, minutes)
