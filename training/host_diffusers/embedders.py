"""Image and text encoders for scores: CLIP for pictures and texts, DINO for pictures.

They are transformers', open_clip's or the miniworld's; pictures are resized as each encoder's own preprocessing says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.identity.image_prep import normalise_pixels

from .opening import is_transformers, opened

ENCODER = "facebook/dinov2-base"  # of subjects' crops
Pictures = Callable[[Sequence[Image.Image]], Tensor]


@dataclass(frozen=True, eq=False)
class Embedder:
    """An encoder, ready.

    Attributes:
        name: the model's, with its weights.
        pictures: RGB pictures of any sizes to (N, E) float32 on the CPU.
        texts: texts to (N, E) in the same space; None for DINO.
    """

    name: str
    pictures: Pictures
    texts: Callable[[Sequence[str]], Tensor] | None = None


def load_clip(name: str, weights: str, device: str, dtype: torch.dtype) -> Embedder:
    """Open a CLIP.

    Args:
        name: `miniworld`; a folder of transformers or a hub's `owner/name`; or an open_clip architecture.
        weights: of the open_clip architecture: a checkpoint file, or one of open_clip's tags.

    Raises:
        ValueError: no such model, or an architecture without weights.
    """
    if name == "miniworld":
        return _miniworld(device, dtype)
    if is_transformers(name):
        return opened(f"--clip {name}", lambda: _transformers_clip(name, device, dtype))
    if not weights:
        raise ValueError(
            f"--clip {name}: expected an open_clip architecture with --clip-weights FILE, a folder of "
            "transformers, a hub's owner/name, or miniworld; got a name alone."
        )
    return opened(f"--clip {name} --clip-weights {weights}", lambda: _open_clip(name, weights, device, dtype))


def load_dino(name: str, device: str, dtype: torch.dtype) -> Embedder:
    """Open a DINO (any vision transformer of transformers whose first token is the class): a folder or `owner/name`.

    Raises:
        ValueError: no such model.
    """
    from transformers import AutoModel

    def load() -> Embedder:
        return _class_token(name, AutoModel.from_pretrained(name, torch_dtype=dtype), _pixels(name), device, dtype)

    return opened(f"--dino {name}", load)


def load_image_encoder(name: str, device: str, dtype: torch.dtype, option: str = "--encoder") -> Embedder:
    """Open an encoder of looks: DINO of any generation, CLIP, SigLIP.

    Args:
        name: `miniworld`, `miniworld-local` (its CLIPSelf encoder), a folder of transformers, or a hub's `owner/name`.
        device: torch device.
        dtype: precision of the weights.
        option: of the command, for messages.

    Raises:
        ValueError: no such model.
    """
    from transformers import AutoConfig, AutoModel

    def load() -> Embedder:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind == "clip":
            return _transformers_clip(name, device, dtype)
        model = AutoModel.from_pretrained(name, torch_dtype=dtype).to(device).eval()
        if "siglip" not in kind:
            return _class_token(name, model, _pixels(name), device, dtype)

        def pooled(pixels: Tensor) -> Tensor:  # no class token: its attention pooling is what it was trained with
            return model.vision_model(pixel_values=pixels).pooler_output

        return Embedder(name, _pictures(_pixels(name), device, dtype, pooled))

    own = {"miniworld": _miniworld, "miniworld-local": _miniworld_local}
    return own[name](device, dtype) if name in own else opened(f"{option} {name}", load)


def _pictures(
    prepare: Callable[[Sequence[Image.Image]], Tensor],
    device: str,
    dtype: torch.dtype,
    encode: Callable[[Tensor], Tensor],
) -> Pictures:
    @torch.no_grad()
    def embed(pictures: Sequence[Image.Image]) -> Tensor:
        return encode(prepare(pictures).to(device, dtype)).float().cpu()

    return embed


def _class_token(
    name: str, model: Any, prepare: Callable[[Sequence[Image.Image]], Tensor], device: str, dtype: torch.dtype
) -> Embedder:
    """Embed by the first token of a vision transformer's last layer, its class token."""
    model = model.to(device).eval()
    return Embedder(
        name, _pictures(prepare, device, dtype, lambda pixels: model(pixel_values=pixels).last_hidden_state[:, 0])
    )


def _pixels(name: str) -> Callable[[Sequence[Image.Image]], Tensor]:
    """Return a transformers folder's own preprocessing; PIL's, so that it is the same with and without torchvision."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(name, backend="pil")
    return lambda pictures: processor(images=list(pictures), return_tensors="pt")["pixel_values"]


def _transformers_clip(name: str, device: str, dtype: torch.dtype) -> Embedder:
    from transformers import AutoTokenizer, CLIPModel

    # Halves and projections are called one by one: `get_image_features` does not return the same in every version.
    model = CLIPModel.from_pretrained(name, torch_dtype=dtype).to(device).eval()
    tokenizer, longest = AutoTokenizer.from_pretrained(name), model.config.text_config.max_position_embeddings

    def image(pixels: Tensor) -> Tensor:
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

    @torch.no_grad()
    def texts(words: Sequence[str]) -> Tensor:
        ids = tokenizer(list(words), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        pooled = model.text_model(input_ids=ids["input_ids"].to(device)).pooler_output
        return model.text_projection(pooled).float().cpu()

    return Embedder(name, _pictures(_pixels(name), device, dtype, image), texts)


def _open_clip(name: str, weights: str, device: str, dtype: torch.dtype) -> Embedder:
    import open_clip

    model, transform = open_clip.create_model_from_pretrained(name, pretrained=weights)
    model, tokenizer = model.to(device, dtype).eval(), open_clip.get_tokenizer(name)

    @torch.no_grad()
    def texts(words: Sequence[str]) -> Tensor:
        return model.encode_text(tokenizer(list(words)).to(device)).float().cpu()

    return Embedder(
        f"{name}, {Path(weights).name}",
        _pictures(
            lambda pictures: torch.stack([transform(picture) for picture in pictures]),
            device,
            dtype,
            model.encode_image,
        ),
        texts,
    )


def _miniworld(device: str, dtype: torch.dtype) -> Embedder:
    """Its vision tower and G-like text encoder, which were trained on each other; pictures are squashed, as there."""
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    from .miniworld import architectures as sizes

    kinds = {"clip_vision": CLIPVisionModelWithProjection, "text_encoder_2": CLIPTextModelWithProjection}
    vision, text = (
        kind.from_pretrained(sizes.FOLDER / part, torch_dtype=dtype).to(device).eval() for part, kind in kinds.items()
    )
    words = sizes.Words(sizes.FOLDER / "tokenizer")

    @torch.no_grad()
    def texts(prompts: Sequence[str]) -> Tensor:
        return text(input_ids=words.ids(list(prompts), 0).to(device)).text_embeds.float().cpu()

    return Embedder(
        "miniworld", _pictures(_squashed, device, dtype, lambda pixels: vision(pixel_values=pixels).image_embeds), texts
    )


def _miniworld_local(device: str, dtype: torch.dtype) -> Embedder:
    """Return the class token of its local encoder, which CLIPSelf has trained on parts of pictures."""
    from transformers import CLIPVisionModelWithProjection

    from .miniworld.architectures import FOLDER

    tower = CLIPVisionModelWithProjection.from_pretrained(FOLDER / "local_clip_vision", torch_dtype=dtype)
    return _class_token("miniworld-local", tower, _squashed, device, dtype)


def _squashed(pictures: Sequence[Image.Image]) -> Tensor:
    """Squash pictures to squares, as the miniworld's encoders were trained."""
    from .miniworld.architectures import VISION

    small = [picture.resize((VISION["image_size"],) * 2, Image.Resampling.BILINEAR) for picture in pictures]
    return normalise_pixels(
        torch.from_numpy(np.stack([np.asarray(picture) for picture in small])).permute(0, 3, 1, 2) / 255
    )
