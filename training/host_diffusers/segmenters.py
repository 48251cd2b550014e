"""Segmenters that cut out what stands in a box: SAM and SAM 2, through transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..common.vision import Segmenter
from .opening import check_config, opened

KINDS = {
    "sam": ("SamModel", "SamProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    "sam2_video": ("Sam2Model", "Sam2Processor"),
}  # SAM 2's published files are those of its video model


def open_segmenter(name: str, device: str, dtype: torch.dtype = torch.float32) -> Segmenter:
    """Open a segmenter.

    Args:
        name: a folder of transformers or a hub's `owner/name`.
        device: torch device.
        dtype: precision of the weights.

    Raises:
        ValueError: no such model, or none that takes boxes.
    """
    import transformers

    kind = check_config("--segmenter", name, KINDS)

    def load() -> Segmenter:
        model, processor = (getattr(transformers, part) for part in KINDS[kind])
        return BoxSegmenter(
            name,
            model.from_pretrained(name, dtype=dtype).to(device).eval(),
            processor.from_pretrained(name),
            device,
            dtype,
        )

    return opened(f"--segmenter {name}", load)


class BoxSegmenter:
    """A model of the SAM family with its processor; one mask for each box, the one a box asks for."""

    def __init__(self, name: str, model, processor, device: str, dtype: torch.dtype) -> None:
        self.name, self.model, self.processor, self.device, self.dtype = name, model, processor, device, dtype

    def masks(self, image: Image.Image, boxes: Sequence[Sequence[float]]) -> list[np.ndarray]:
        """See `Segmenter.masks`."""
        return [logits > 0 for logits, _ in self._answers(image, boxes)]

    def cut(self, image: Image.Image, boxes: Sequence[Sequence[float]]) -> list[tuple[np.ndarray, float | None]]:
        """Cut out as `masks`, but give a pixel that is in several masks to the surest one; and its estimated IoU."""
        answers = self._answers(image, boxes)
        if not answers:
            return []
        surest = np.argmax([logits for logits, _ in answers], axis=0)
        return [((logits > 0) & (surest == index), quality) for index, (logits, quality) in enumerate(answers)]

    @torch.no_grad()
    def _answers(self, image: Image.Image, boxes: Sequence[Sequence[float]]) -> list[tuple[np.ndarray, float]]:
        """For each box the logits (H, W), and the model's own estimate of the mask's IoU."""
        if not len(boxes):
            return []
        scale = np.array([image.width, image.height] * 2)
        inputs = self.processor(
            images=image.convert("RGB"), input_boxes=[(np.asarray(boxes) * scale).tolist()], return_tensors="pt"
        )
        output = self.model(
            pixel_values=inputs["pixel_values"].to(self.device, self.dtype),
            input_boxes=inputs["input_boxes"].to(self.device, self.dtype),
            multimask_output=False,
        )
        sizes = [inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        (logits,) = self.processor.post_process_masks(output.pred_masks.float().cpu(), *sizes, binarize=False)
        quality = output.iou_scores.float().cpu().flatten()
        return [(one[0].numpy(), round(float(sure), 4)) for one, sure in zip(logits, quality)]
