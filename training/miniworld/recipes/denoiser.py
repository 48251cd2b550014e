"""The UNet's recipe, with its identity branch and resampler: trained jointly, as in MS-Diffusion.

Source: MS-Diffusion (arXiv:2406.07209), its released drop rates: image 0.05, text 0.05, both 0.05, grounding 0.1.
Epsilon prediction; losses weighted by min-SNR 5 (arXiv:2303.09556), which shortens training about threefold. The image
branch is trained at strength 0.6, the strength at which it is used by default.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...diffusion.noise_schedule import TIMESTEPS, NoiseSchedule, denoising_loss
from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers import CrossAttentionExtras, attach_identity, identity_batch
from ...host_diffusers.miniworld.architectures import build_identity, build_unet
from .corpus import PIXELS
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
SCHEDULE = NoiseSchedule.of_betas("epsilon")  # SDXL's
STRENGTH = 0.6
DROP_IMAGE, DROP_TEXT, DROP_BOTH, DROP_GROUNDING = 0.05, 0.05, 0.05, 0.1
SNR_CEILING = 5.0
BOX_JITTER = 0.02  # users draw boxes roughly
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


class Denoiser(nn.Module):
    """UNet and identity model together, so that one optimiser and one checkpoint hold both.

    Args:
        channels: of the latents.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unet = build_unet(channels)
        self.identity = build_identity()
        self.identity.dummy_image_tokens.requires_grad_(False)  # random and frozen, as released
        attach_identity(self.unet, STRENGTH)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        text: Tensor,
        pooled: Tensor,
        references: Tensor,
        phrases: Tensor,
        boxes: Tensor,
        weights: Tensor,
        grounded: Tensor,
    ) -> Tensor:
        """Predict the noise.

        Args:
            noisy: (B, C, h, w).
            time: (B,) timesteps.
            text: (B, 77, 192); pooled: (B, 128).
            references: (B, S, 81, 128); phrases: (B, S, 64); boxes: (B, S, 4), zeros for no subject.
            weights: (B, S) strength of each subject; grounded: (B, S) bool.

        Returns:
            (B, C, h, w).
        """
        batch, subjects = boxes.shape[:2]
        tokens = self.identity.image_proj(
            references.flatten(0, 1), phrases.flatten(0, 1), boxes.flatten(0, 1), grounded.flatten()
        )
        identity = identity_batch(
            self.identity.ms_adapter,
            tokens.unflatten(0, (batch, subjects)),
            self.identity.dummy_image_tokens[0],
            boxes,
            weights,
            noisy.shape[-2:],
            self.unet,
        )
        return self.unet(
            noisy,
            time,
            text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids(batch, noisy.device)},
            cross_attention_kwargs=CrossAttentionExtras(identity=identity).kwargs(),
        ).sample


def time_ids(batch: int, device: torch.device) -> Tensor:
    """Return SDXL's size conditioning, always the whole 128 x 128 picture: (B, 6)."""
    return torch.tensor([[PIXELS, PIXELS, 0, 0, PIXELS, PIXELS]], dtype=torch.float32, device=device).expand(batch, -1)


def draw_conditions(data: EncodedCorpus, rows: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw texts, references and boxes of scenes, with a random view of each subject and MS-Diffusion's drops.

    Args:
        data: the encoded corpus.
        rows: (B,) scenes.
        rng: owner of the randomness.

    Returns:
        The conditions of `Denoiser.forward` by name; as many subjects as the fullest scene has.
    """
    present = data.who[rows] >= 0
    most = max(int(present.sum(1).max()), 1)
    who, boxes, present = data.who[rows, :most], data.boxes[rows, :most], present[:, :most]
    jitter = rng.uniform(-BOX_JITTER, BOX_JITTER, boxes.shape).astype(np.float32)
    boxes = np.clip(boxes + jitter, 0, 1) * present[..., None]
    chance = rng.random(len(rows))
    both = chance >= 1 - DROP_BOTH
    no_text = (chance < DROP_TEXT) | both
    no_image = ((chance >= DROP_TEXT) & (chance < DROP_TEXT + DROP_IMAGE)) | both
    texts = data.prompt_rows[np.where(no_text, len(data.prompt_rows) - 1, rows)]
    views = np.where(present, who, 0) * data.views + rng.integers(data.views, size=who.shape)
    references = np.stack([data.references[row] for row in views.ravel()])
    return {
        "text": data.text[texts],
        "pooled": data.pooled[texts],
        "references": references.reshape(*views.shape, *references.shape[1:]),
        "phrases": data.phrases[data.species[np.where(present, who, 0)]],
        "boxes": boxes,
        "weights": (present & ~no_image[:, None]).astype(np.float32),
        "grounded": rng.random(who.shape) >= DROP_GROUNDING,
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
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        rows = rng.integers(len(data.latents), size=settings.batch_size)
        arrays = draw_conditions(data, rows, rng)
        conditions = {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}
        conditions = {name: value.float() if value.is_floating_point() else value for name, value in conditions.items()}
        latents = torch.from_numpy(data.latents[rows]).to(device).float()
        time = torch.randint(TIMESTEPS, (settings.batch_size,), generator=generator).to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        predicted = model(SCHEDULE.add_noise(latents, noise, time), time, **conditions)
        errors = denoising_loss(predicted, noise)
        return {"loss": (errors * SCHEDULE.min_snr_weight(time, SNR_CEILING)).mean(), "mse": errors.mean()}

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def load_trained(out: Path) -> Denoiser:
    """Load the averaged denoiser of a run, in evaluation mode, on the CPU."""
    weights, _ = load_ema_weights(out / SETTINGS.name)
    model = Denoiser(weights["unet.conv_in.weight"].shape[1])
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
