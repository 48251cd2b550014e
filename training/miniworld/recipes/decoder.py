"""The decoder's own recipe: pictures sharpen; the latents, and the models trained on them, stay as they are."""

from pathlib import Path

import torch
from torch import Tensor

from ...engine.timed_loop import State, TrainerConfig, fit
from .autoencoder import EDGE_WEIGHT, SQUARE_WEIGHT, decode, draw_pictures, encode, reconstruction
from .corpus import Corpus
from .encoded_corpus import frozen_autoencoder, latent_scale

SETTINGS = TrainerConfig("decoder", steps=4000, batch_size=16, lr=1e-3, ema_decay=0.998, weight_decay=0.0, cooldown=0.4)
NOISE = 0.05  # of unit variance, added to the latents: so that a sampler's residual noise is not drawn as detail


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Train the decoder of `<out>/autoencoder` on its encoder's means into `<out>/decoder`; see `fit`."""
    corpus = Corpus.open(out / "corpus")
    model = frozen_autoencoder(out, refined=False).to(device, memory_format=torch.channels_last)
    model.decoder.requires_grad_(True)
    model.post_quant_conv.requires_grad_(True)
    spread = NOISE / latent_scale(out)[1]

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        images = draw_pictures(corpus, settings.batch_size, generator, device)
        with torch.no_grad():
            latents = encode(model, images.contiguous(memory_format=torch.channels_last))
        noise = torch.randn(latents.shape, generator=generator).to(device)
        output = decode(model, latents + spread * noise)
        parts = reconstruction(output.float() * 2 - 1, images * 2 - 1)
        return {"loss": parts["l1"] + EDGE_WEIGHT * parts["edges"] + SQUARE_WEIGHT * parts["l2"], **parts}

    return fit(settings, model, loss, out / settings.name, device, minutes, until)
