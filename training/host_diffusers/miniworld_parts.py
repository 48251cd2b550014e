"""The miniworld as one object: pictures, words and references in, latents and tokens out; saved to and read from files.

Files of `models/miniworld/` (half precision): `unet`, `vae`, `text_encoder` (L), `text_encoder_2` (G), `clip_vision`,
`local_clip_vision` (only the tensors that differ from clip_vision's), `identity`, each `.safetensors` with the keys of
diffusers, transformers and MS-Diffusion; `config.json` with every size; `tokenizer/`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from core.identity.extractor import IdentityModel
from core.identity.local_tokens import dense_features, pool
from core.identity.photograph import normalise, squares

from . import miniworld as sizes
from .clipself import VisionEncoder, encoder_of_transformers

_BATCH = 32


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
        """(S, 64): L's pooled output, unprojected."""
        return encode_phrases(self.text_l, self.words, names)

    @torch.no_grad()
    def encode_subjects(self, photographs: Tensor, masks: Tensor | None = None, grid: int = 4) -> Tensor:
        """(S, 3, H, W) in [0, 1] and (S, H, W) masks to (S, 65 + g*g, 128); grid 0 leaves the local tokens out."""
        return encode_subjects(self.vision, self.local, photographs, masks, grid)

    @torch.no_grad()
    def to_latents(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 4, H/8, W/8) of unit variance."""
        blocks = F.pixel_unshuffle(images * 2 - 1, sizes.SPACE_TO_DEPTH)
        return self.vae.encode(blocks).latent_dist.mean * sizes.VAE["scaling_factor"]

    def to_images(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) to (B, 3, 8h, 8w) in [0, 1]; gradients flow."""
        blocks = self.vae.decode(latents / sizes.VAE["scaling_factor"]).sample
        return (F.pixel_shuffle(blocks, sizes.SPACE_TO_DEPTH) / 2 + 0.5).clamp(0, 1)


def encode_prompts(
    text_l: nn.Module, text_g: nn.Module, words: sizes.Words, prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """See `Miniworld.encode_prompts`."""
    device = next(text_l.parameters()).device
    ids_l, ids_g = (words.compact_ids(words.ids(prompts, pad)).to(device) for pad in (sizes.END_TOKEN, 0))
    out_l, out_g = (
        encoder(input_ids=ids, output_hidden_states=True) for encoder, ids in ((text_l, ids_l), (text_g, ids_g))
    )
    return torch.cat((out_l.hidden_states[-2], out_g.hidden_states[-2]), dim=-1), out_g.text_embeds


def encode_phrases(text_l: nn.Module, words: sizes.Words, names: list[str]) -> Tensor:
    """See `Miniworld.encode_phrases`."""
    ids = words.compact_ids(words.ids(names, sizes.END_TOKEN)).to(next(text_l.parameters()).device)
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
        tokens = vision(pixel_values=normalise(squares(part, mask, size)), output_hidden_states=True).hidden_states[-2]
        if grid:
            dense = dense_features(local.tower, normalise(squares(part, mask, sizes.DENSE_SCALE * size)))
            tokens = torch.cat((tokens, pool(dense, grid)), dim=1)
        rows.append(tokens)
    return torch.cat(rows)


def save_miniworld(world: Miniworld, folder: Path, facts: dict) -> int:
    """Writes every file in half precision.

    Args:
        world: what to write.
        folder: receives the files; the tokenizer is already in it.
        facts: how each part was trained, for `config.json`.
    Returns:
        Bytes written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vision = world.vision.state_dict()
    local = {
        name: value for name, value in world.local.module.state_dict().items() if not torch.equal(value, vision[name])
    }
    states = {
        "unet": world.unet.state_dict(),
        "vae": world.vae.state_dict(),
        "text_encoder": world.text_l.state_dict(),
        "text_encoder_2": world.text_g.state_dict(),
        "clip_vision": vision,
        "local_clip_vision": local,
        "identity": world.identity.state_dict(),
    }
    extra = {"identity": {"head_width": str(sizes.IDENTITY.head_width)}}
    total = 0
    for name, state in states.items():
        path = folder / f"{name}.safetensors"
        tensors = {
            key: value.detach().cpu().half().contiguous() for key, value in state.items() if value.is_floating_point()
        }
        metadata = {
            "format": "pt",
            "base": "miniworld",
            "created_with": "python -m training.miniworld export",
            **extra.get(name, {}),
        }
        save_file(tensors, path.with_suffix(".tmp"), metadata=metadata)
        os.replace(path.with_suffix(".tmp"), path)
        total += path.stat().st_size
    config = {
        "vae": sizes.VAE,
        "space_to_depth": sizes.SPACE_TO_DEPTH,
        "text_encoder": sizes.TEXT_L,
        "text_encoder_2": sizes.TEXT_G,
        "clip_vision": sizes.VISION,
        "local_scale": sizes.DENSE_SCALE,
        "unet": sizes.UNET,
        "identity": {**vars(sizes.IDENTITY), "background_tokens": sizes.BACKGROUND_TOKENS},
        "embedding_rows": world.words.stock_ids,
        "trained": facts,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return total


def load_miniworld(folder: Path = sizes.FOLDER) -> Miniworld:
    """Reads the miniworld in float32, frozen, on the CPU.

    Raises:
        FileNotFoundError: names every file that is missing.
    """
    names = ("unet", "vae", "text_encoder", "text_encoder_2", "clip_vision", "local_clip_vision", "identity")
    missing = [f"{name}.safetensors" for name in names if not (folder / f"{name}.safetensors").exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: expected the miniworld's files, {', '.join(missing)} missing; check out the "
            "repository again, or write them with python -m training.miniworld export"
        )
    states = {
        name: {key: value.float() for key, value in load_file(folder / f"{name}.safetensors").items()} for name in names
    }
    words = sizes.Words(folder / "tokenizer")
    parts = {
        "unet": sizes.build_unet(),
        "vae": sizes.build_vae(),
        "text_encoder": sizes.build_text_l(len(words)),
        "text_encoder_2": sizes.build_text_g(len(words)),
        "clip_vision": sizes.build_vision(),
        "local_clip_vision": sizes.build_vision(),
        "identity": sizes.build_identity(),
    }
    states["local_clip_vision"] = states["clip_vision"] | states["local_clip_vision"]
    for name, part in parts.items():
        part.load_state_dict(states[name])
        part.eval().requires_grad_(False)
    return Miniworld(
        parts["vae"],
        parts["text_encoder"],
        parts["text_encoder_2"],
        parts["clip_vision"],
        encoder_of_transformers(parts["local_clip_vision"]),
        parts["unet"],
        parts["identity"],
        words,
    )
