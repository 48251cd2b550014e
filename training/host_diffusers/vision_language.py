"""Vision-language models that answer questions about pictures: any `image-text-to-text` model of transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from .opening import opened

MEGAPIXEL = 1_000_000  # pictures are shrunk to at most this many pixels
ANSWER_WITH = "Answer with Yes or No only."


def open_judge(
    name: str, device: str, dtype: torch.dtype = torch.float32, revision: str = "main", option: str = "--judge"
) -> VisionLanguageJudge:
    """Open a model that answers questions about pictures.

    Args:
        name: a folder of transformers or a hub's `owner/name`.
        device: torch device.
        dtype: precision of the weights.
        revision: branch, tag or commit on the hub; give a commit so that answers can be repeated.
        option: of the command, for messages.

    Raises:
        ValueError: no such model, or one that cannot say Yes and No.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    def load() -> VisionLanguageJudge:
        model = AutoModelForImageTextToText.from_pretrained(name, revision=revision, dtype=dtype).to(device).eval()
        return VisionLanguageJudge(name, revision, model, AutoProcessor.from_pretrained(name, revision=revision))

    return opened(f"{option} {name}", load)


class VisionLanguageJudge:
    """A model with its processor; greedy, so that the same question has the same answer.

    Raises:
        ValueError: its tokenizer begins Yes and No with the same token.
    """

    def __init__(self, name: str, revision: str, model: Any, processor: Any) -> None:
        import transformers

        self.model, self.processor, self.device = model, processor, model.device
        self.facts = {
            "judge": name,
            "revision": getattr(model.config, "_commit_hash", None) or revision,
            "dtype": str(model.dtype).removeprefix("torch."),
            "transformers": transformers.__version__,
        }
        self.tokens = [processor.tokenizer.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No")]
        if self.tokens[0] == self.tokens[1]:
            raise ValueError("its tokenizer begins Yes and No with the same token; choose another model")

    @torch.no_grad()
    def yes_no(self, images: Sequence[Image.Image], question: str) -> tuple[float, float]:
        """Log-probabilities of the first answer token being "Yes" and "No"; one forward pass, nothing is parsed."""
        logits = self.model(**self._inputs(images, f"{question} {ANSWER_WITH}")).logits[0, -1].float()
        yes, no = logits.log_softmax(-1)[self.tokens].tolist()
        return yes, no

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], text: str, longest: int = 256) -> str:
        """Return the greedy answer to a text, at most `longest` tokens."""
        inputs = self._inputs(images, text)
        ids = self.model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        return self.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _inputs(self, images: Sequence[Image.Image], text: str) -> Any:
        content = [{"type": "image", "image": shrunk(image)} for image in images] + [{"type": "text", "text": text}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return inputs.to(self.device, dtype=self.model.dtype)


def shrunk(image: Image.Image) -> Image.Image:
    """Return the picture in RGB with at most a million pixels."""
    factor = math.sqrt(MEGAPIXEL / (image.width * image.height))
    if factor >= 1:
        return image.convert("RGB")
    size = max(1, int(image.width * factor)), max(1, int(image.height * factor))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
