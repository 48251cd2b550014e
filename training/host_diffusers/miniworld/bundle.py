"""The miniworld as one object: pictures, words and references in, latents and tokens out; saved to and read from files.

`models/miniworld/` is a diffusers folder in half precision: `unet`, `vae`, `text_encoder` (L), `text_encoder_2` (G),
`tokenizer`, `scheduler`; beside them `clip_vision` and `local_clip_vision`, transformers folders, and
`identity.safetensors`, MS-Diffusion's layout. The text encoders hold the compact embedding rows of `Words`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from core.checkpoint import save
from core.identity.files import load_identity
from core.identity.image_prep import normalise_pixels, squares
from core.identity.local_tokens import DENSE_SCALE, dense_features, pool
from core.identity.model import IdentityModel

from ..clipself import VisionEncoder, encoder_of_transformers
from . import architectures as sizes

_BATCH = 32
_PREFIXES = {"text_encoder": "text_model.", "text_encoder_2": "text_model."}


@dataclass(eq=False)
class Miniworld:
    """All models of the miniworld, frozen unless said otherwise.

    Attributes:
        vae, text_l, text_g, vision, unet: stock models of diffusers and transformers.
        local: the distilled encoder.
        identity: resampler and branch.
        words: captions to ids; the text encoders hold its compact embedding rows.
    """

    vae: nn.Module
    text_l: nn.Module
    text_g: nn.Module
    vision: nn.Module
    local: VisionEncoder
    unet: nn.Module
    identity: IdentityModel
    words: sizes.Words

    def to(self, device: torch.device) -> Miniworld:
        for part in (self.vae, self.text_l, self.text_g, self.vision, self.local.module, self.unet, self.identity):
            part.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Text context (B, 77, 192): penultimate states of L and G side by side; and G's pooled embedding (B, 128)."""
        return encode_prompts(self.text_l, self.text_g, self.words, prompts)

    @torch.no_grad()
    def encode_phrases(self, names: list[str]) -> Tensor:
        """Encode names to (S, 64): L's pooled output, unprojected."""
        return encode_phrases(self.text_l, self.words, names)

    @torch.no_grad()
    def encode_subjects(self, photographs: Tensor, masks: Tensor | None = None, grid: int = 4) -> Tensor:
        """Encode (S, 3, H, W) in [0, 1], (S, H, W) masks to (S, 65 + g*g, 128); grid 0 leaves local tokens out."""
        return encode_subjects(self.vision, self.local, photographs, masks, grid)

    @torch.no_grad()
    def to_latents(self, images: Tensor) -> Tensor:
        """Encode (B, 3, H, W) in [0, 1] to (B, C, H/8, W/8) of unit variance."""
        blocks = F.pixel_unshuffle(images * 2 - 1, sizes.SPACE_TO_DEPTH)
        return self.vae.encode(blocks).latent_dist.mean * self.vae.config.scaling_factor

    def to_images(self, latents: Tensor) -> Tensor:
        """Decode (B, C, h, w) to (B, 3, 8h, 8w) in [0, 1]; gradients flow."""
        blocks = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (F.pixel_shuffle(blocks, sizes.SPACE_TO_DEPTH) / 2 + 0.5).clamp(0, 1)


def encode_prompts(
    text_l: nn.Module, text_g: nn.Module, words: sizes.Words, prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """See `Miniworld.encode_prompts`."""
    device = next(text_l.parameters()).device
    ids_l, ids_g = (words.ids(prompts, pad).to(device) for pad in (words.end, 0))
    out_l, out_g = (
        encoder(input_ids=ids, output_hidden_states=True) for encoder, ids in ((text_l, ids_l), (text_g, ids_g))
    )
    return torch.cat((out_l.hidden_states[-2], out_g.hidden_states[-2]), dim=-1), out_g.text_embeds


def encode_phrases(text_l: nn.Module, words: sizes.Words, names: list[str]) -> Tensor:
    """See `Miniworld.encode_phrases`."""
    ids = words.ids(names, words.end).to(next(text_l.parameters()).device)
    return text_l(input_ids=ids).pooler_output


def encode_subjects(
    vision: nn.Module, local: VisionEncoder, photographs: Tensor, masks: Tensor | None, grid: int
) -> Tensor:
    """See `Miniworld.encode_subjects`; in batches."""
    device = next(vision.parameters()).device
    rows = []
    for start in range(0, len(photographs), _BATCH):
        part = photographs[start : start + _BATCH].to(device)
        mask = None if masks is None else masks[start : start + _BATCH].to(device)
        size = sizes.VISION["image_size"]
        tokens = vision(
            pixel_values=normalise_pixels(squares(part, mask, size)), output_hidden_states=True
        ).hidden_states[-2]
        if grid:
            dense = dense_features(local.tower, normalise_pixels(squares(part, mask, DENSE_SCALE * size)))
            tokens = torch.cat((tokens, pool(dense, grid)), dim=1)
        rows.append(tokens)
    return torch.cat(rows)


def save_miniworld(world: Miniworld, folder: Path) -> int:
    """Write every model in half precision, as a diffusers folder.

    Args:
        world: what to write.
        folder: receives the models; the tokenizer is already in it.
    Returns:
        Bytes of weights written.
    """
    parts = {
        "unet": world.unet,
        "vae": world.vae,
        "text_encoder": world.text_l,
        "text_encoder_2": world.text_g,
        "clip_vision": world.vision,
        "local_clip_vision": world.local.module,
    }
    for name, part in parts.items():
        copy.deepcopy(part).cpu().half().save_pretrained(folder / name)
        for path in (folder / name).glob("*.safetensors"):
            _add_prefix(path, _PREFIXES.get(name, ""))
    scheduler = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=1), encoding="utf-8")
    identity = {key: value.detach().cpu().half().contiguous() for key, value in world.identity.state_dict().items()}
    save(folder / "identity.safetensors", identity, {"base": "miniworld", "head_width": str(sizes.IDENTITY.head_width)})
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _add_prefix(path: Path, prefix: str) -> None:
    """Rename a file's tensors as every transformers and ComfyUI reads them: transformers 5 drops `text_model.` of L."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    renamed = {
        key if key.startswith((prefix, "text_projection")) else prefix + key: value for key, value in tensors.items()
    }
    save(path, renamed, {"format": "pt"})


def load_miniworld(folder: Path = sizes.FOLDER) -> Miniworld:
    """Read the miniworld in float32, frozen, on the CPU.

    Raises:
        FileNotFoundError: names every part that is missing.
    """
    kinds = {
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "clip_vision": CLIPVisionModelWithProjection,
        "local_clip_vision": CLIPVisionModelWithProjection,
        "unet": UNet2DConditionModel,
    }
    missing = [name for name in kinds if not list((folder / name).glob("*.safetensors"))]
    if missing or not (folder / "identity.safetensors").exists():
        raise FileNotFoundError(
            f"{folder}: expected the miniworld's models, {', '.join(missing) or 'identity'} missing; "
            "check out the repository again, or write them with python -m training.miniworld export"
        )
    vae, text_l, text_g, vision, local, unet = (
        kind.from_pretrained(folder / name, torch_dtype=torch.float32, local_files_only=True)
        .eval()
        .requires_grad_(False)
        for name, kind in kinds.items()
    )
    state, config = load_identity(folder / "identity.safetensors")
    identity = IdentityModel(config)
    identity.load_state_dict({key: value.float() for key, value in state.items()})
    return Miniworld(
        vae,
        text_l,
        text_g,
        vision,
        encoder_of_transformers(local),
        unet,
        identity.eval().requires_grad_(False),
        sizes.Words(folder / "tokenizer"),
    )
