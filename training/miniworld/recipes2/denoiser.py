"""The UNet's recipe, with its identity branch and resampler: trained jointly, as MS-Diffusion trains its own.

Source: MS-Diffusion (arXiv:2406.07209), its released drop rates: image 0.05, text 0.05, both 0.05, grounding 0.1.
Epsilon prediction; losses weighted by min-SNR 5 (arXiv:2303.09556), which shortens training about threefold. The image
branch is trained at strength 0.6, the strength at which it is used by default.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...diffusion.noise_schedule import TIMESTEPS, denoising_loss
from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers import attach_identity
from ...host_diffusers.miniworld.architectures import build_identity
from ...host_diffusers.miniworld2 import build_unet
from ..recipes import unet as first
from ..recipes.unet import SCHEDULE
from .encoded_corpus import EncodedCorpus

SETTINGS = TrainerConfig(
    "unet",
    steps=8000,
    batch_size=24,
    lr=1.5e-3,
    warmup_steps=60,
    ema_decay=0.9995,
    weight_decay=0.01,
    adamw_params=("embedding", "latent_proj"),
    cooldown=0.3,
)


COMPILE_FROM = 500  # steps: compiling takes half a minute of one core and saves a seventh of every step


def compile_residual_blocks(unet: nn.Module) -> bool:
    """Compile the UNet's residual blocks where a C++ compiler is at hand; weights and their names stay as they are.

    The transformers between them are left alone: their attention takes arguments that change from call to call.
    """
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return False
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for resnet in block.resnets:
            resnet.forward = torch.compile(resnet.forward, dynamic=False)
    return True


class Denoiser(first.Denoiser):
    """UNet and identity model together, so that one optimiser and one checkpoint hold both; see the first world's.

    Args:
        channels: of the latents.
    """

    def __init__(self, channels: int) -> None:
        nn.Module.__init__(self)
        self.unet = build_unet(channels)
        self.identity = build_identity()
        self.identity.dummy_image_tokens.requires_grad_(False)  # random and frozen, as released
        attach_identity(self.unet, first.STRENGTH)


def draw_conditions(data: EncodedCorpus, rows: np.ndarray, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Texts, references and boxes of scenes, with a random view of each subject and MS-Diffusion's drops.

    Args:
        data: the encoded corpus.
        rows: (B,) scenes.
        draw: owner of the randomness.

    Returns:
        The conditions of `Denoiser.forward` by name; as many subjects as the fullest scene has.
    """
    present = data.who[rows] >= 0
    most = max(int(present.sum(1).max()), 1)
    who, boxes, present = data.who[rows, :most], data.boxes[rows, :most], present[:, :most]
    jitter = draw.uniform(-first.BOX_JITTER, first.BOX_JITTER, boxes.shape).astype(np.float32)
    boxes = np.clip(boxes + jitter, 0, 1) * present[..., None]
    chance = draw.random(len(rows))
    both = chance >= 1 - first.DROP_BOTH
    no_text = (chance < first.DROP_TEXT) | both
    no_image = ((chance >= first.DROP_TEXT) & (chance < first.DROP_TEXT + first.DROP_IMAGE)) | both
    texts = data.prompt_rows[np.where(no_text, len(data.prompt_rows) - 1, rows)]
    views = np.where(present, who, 0) * data.views + draw.integers(data.views, size=who.shape)
    references = np.stack([data.references[row] for row in views.ravel()])
    return {
        "text": data.text[texts],
        "pooled": data.pooled[texts],
        "references": references.reshape(*views.shape, *references.shape[1:]),
        "phrases": data.phrases[data.species[np.where(present, who, 0)]],
        "boxes": boxes,
        "weights": (present & ~no_image[:, None]).astype(np.float32),
        "grounded": draw.random(who.shape) >= first.DROP_GROUNDING,
    }


def train(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = SETTINGS, until: int | None = None
) -> State:
    """Train UNet, branch and resampler on `<out>/encoded` into `<out>/unet`; see `fit`."""
    torch.manual_seed(settings.seed)
    data = EncodedCorpus.open(out)
    model = Denoiser(data.latents.shape[1]).to(device)
    if settings.steps >= COMPILE_FROM:
        compile_residual_blocks(model.unet)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        rows = draw.integers(len(data.latents), size=settings.batch_size)
        arrays = draw_conditions(data, rows, draw)
        conditions = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
        conditions = {name: value.float() if value.is_floating_point() else value for name, value in conditions.items()}
        latents = torch.from_numpy(data.latents[rows]).to(device).float()
        time = torch.randint(TIMESTEPS, (settings.batch_size,), generator=generator).to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        predicted = model(SCHEDULE.add_noise(latents, noise, time), time, **conditions)
        errors = denoising_loss(predicted, noise)
        return {"loss": (errors * SCHEDULE.min_snr_weight(time, first.SNR_CEILING)).mean(), "mse": errors.mean()}

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def load_trained(out: Path) -> Denoiser:
    """The averaged denoiser of a run, in evaluation mode, on the CPU."""
    weights, _ = load_ema_weights(out / SETTINGS.name)
    model = Denoiser(weights["unet.conv_in.weight"].shape[1])
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def history(folder: Path) -> dict[str, float] | None:
    """Steps, samples and minutes of a run; None if it never ran."""
    pointer = folder / "latest.json"
    if not pointer.exists():
        return None
    run = json.loads(pointer.read_text(encoding="utf-8"))
    return {"steps": run["step"], "samples": run["samples"], "minutes": round(run["seconds"] / 60, 1)}
