"""Detectors by name: Grounding DINO (and MM Grounding DINO), OWL-ViT and OWLv2, SAM 3; all through transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ..common.vision import Detection, Detector
from .opening import check_config, opened

DETECTOR = "IDEA-Research/grounding-dino-tiny"
_OWL_PROMPT = "a photo of a {}"  # as OWL-ViT was trained


def open_detector(name: str, device: str, dtype: torch.dtype = torch.float32) -> Detector:
    """Open a detector.

    Args:
        name: a folder of transformers or a hub's `owner/name`.
        device: torch device.
        dtype: precision of the weights.

    Raises:
        ValueError: no such model, or none that finds things by name.
    """
    kind = check_config("--detector", name, KINDS)
    return opened(f"--detector {name}", lambda: KINDS[kind](name, device, dtype))


class _TransformersDetector:
    """A model and its processor."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        self.name, self.device, self.dtype = name, device, dtype
        self.processor = AutoProcessor.from_pretrained(name)
        self.model = AutoModelForZeroShotObjectDetection.from_pretrained(name, dtype=dtype).to(device).eval()

    def _inputs(self, **inputs) -> dict[str, Tensor]:
        batch = self.processor(**inputs, return_tensors="pt")
        return {
            key: value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)
            for key, value in batch.items()
            if isinstance(value, Tensor)
        }


class GroundingDino(_TransformersDetector):
    """One prompt names everything: "a cat. a plushie bear."; a box has a score for every token of it."""

    @torch.no_grad()
    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """See `Detector.detect`. A box's score is its best token's, as published; its name is the one whose tokens
        score best on average, so that "bear" of "plushie bear" and "polar bear" does not decide alone."""
        inputs = self._inputs(images=image.convert("RGB"), text=grounding_prompt(names))
        output = self.model(**inputs)
        spans = name_spans(self.processor.tokenizer, inputs["input_ids"][0], names)
        scores = output.logits[0].float().sigmoid().cpu()  # (Q, T)
        means = torch.stack([scores[:, span].mean(1) for span in spans], dim=1)  # (Q, names)
        best = torch.stack([scores[:, span].amax(1) for span in spans], dim=1)
        which = means.argmax(1)
        boxes = corners(output.pred_boxes[0].float().cpu())
        return [
            Detection(names[index], box, float(best[row, index]))
            for row, (index, box) in enumerate(zip(which.tolist(), boxes))
        ]


class OwlViT(_TransformersDetector):
    """A list of texts; pictures are padded to squares at the lower right, which is taken out of the boxes here."""

    @torch.no_grad()
    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """See `Detector.detect`."""
        texts = [_OWL_PROMPT.format(name) for name in names]
        output = self.model(**self._inputs(images=image.convert("RGB"), text=[texts]))
        size = (image.height, image.width)
        post = self.processor.post_process_grounded_object_detection
        (result,) = post(output, threshold=0.0, target_sizes=[size], text_labels=[list(names)])
        scale = torch.tensor([image.width, image.height] * 2)
        boxes = (result["boxes"].float().cpu() / scale).clamp(0, 1).tolist()
        rows = zip(result["labels"].tolist(), boxes, result["scores"].tolist())
        return [
            Detection(names[label], tuple(box), score)
            for label, box, score in rows
            if box[0] < box[2] and box[1] < box[3]
        ]  # not those in the padding


class Sam3(_TransformersDetector):
    """One name at a time; masks come with the boxes."""

    def __init__(self, name: str, device: str, dtype: torch.dtype) -> None:
        from transformers import Sam3Model, Sam3Processor

        self.name, self.device, self.dtype = name, device, dtype
        self.processor = Sam3Processor.from_pretrained(name)
        self.model = Sam3Model.from_pretrained(name, dtype=dtype).to(device).eval()

    @torch.no_grad()
    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """See `Detector.detect`; only detections above .05, as each brings a mask of the picture's size."""
        detections = []
        scale = torch.tensor([image.width, image.height] * 2)
        for name in names:
            output = self.model(**self._inputs(images=image.convert("RGB"), text=name))
            (result,) = self.processor.post_process_instance_segmentation(
                output, threshold=0.05, target_sizes=[(image.height, image.width)]
            )
            boxes = (result["boxes"].float().cpu() / scale).clamp(0, 1).tolist()
            detections += [
                Detection(name, tuple(box), float(score), mask.cpu().bool().numpy())
                for box, score, mask in zip(boxes, result["scores"], result["masks"])
            ]
        return detections


KINDS = {
    "grounding-dino": GroundingDino,
    "mm-grounding-dino": GroundingDino,
    "owlvit": OwlViT,
    "owlv2": OwlViT,
    "sam3": Sam3,
}


def grounding_prompt(names: Sequence[str]) -> str:
    """Write names as Grounding DINO was trained to read them: lower case, an article, each ended by a full stop."""
    return " ".join(f"a {name.lower()}." for name in names)


def name_spans(tokenizer, ids: Tensor, names: Sequence[str]) -> list[list[int]]:
    """Find the positions of each name's tokens in a prompt of `grounding_prompt`.

    Raises:
        ValueError: a name contains a full stop, which ends a name in such a prompt, or no token at all.
    """
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    special = set(tokenizer.all_special_tokens) - {tokenizer.unk_token}  # an unknown word is a word
    sections: list[list[int]] = [[]]
    for place, token in enumerate(tokens):
        if token == ".":
            sections.append([])
        elif token not in special:
            sections[-1].append(place)
    spans = [section[1:] for section in sections if section]  # without the article
    if len(spans) != len(names) or not all(spans):
        raise ValueError(f"names for a detector must be words without full stops, got {', '.join(map(repr, names))}")
    return spans


def corners(boxes: Tensor) -> list[tuple[float, float, float, float]]:
    """Convert (Q, 4) centre x, centre y, width, height to x0 y0 x1 y1, cut at the picture's edges."""
    half = boxes[:, 2:] / 2
    return [tuple(box) for box in torch.cat((boxes[:, :2] - half, boxes[:, :2] + half), dim=1).clamp(0, 1).tolist()]
