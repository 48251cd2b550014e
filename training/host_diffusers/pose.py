"""Joints of people and animals: ViTPose and ViTPose++ (arXiv:2204.12484, 2212.04246) through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from .opening import opened


def check_pose(option: str, name: str, first_joint: str) -> None:
    """Look at a model's config alone: 17 outputs, and the right head.

    ViTPose++ on the hub keeps six experts but COCO's head only: with another expert it returns 17 plausible, wrong
    joints and says nothing. So a model is taken by the name of its first output.

    Args:
        option: of the command, for messages.
        name: a folder of transformers or a hub's `owner/name`.
        first_joint: what the first output must be, e.g. "left eye" for AP-10K.

    Raises:
        ValueError: no such model, another kind, another head.
    """
    from transformers import AutoConfig

    config = opened(f"{option} {name}", lambda: AutoConfig.from_pretrained(name))
    if config.model_type != "vitpose":
        raise ValueError(f"{option} {name}: a model of type '{config.model_type}'; expected a ViTPose.")
    first = str(config.id2label[0]).replace("_", " ").lower()
    if len(config.id2label) != 17:
        raise ValueError(f"{option} {name}: expected 17 outputs, got {len(config.id2label)}.")
    if first != first_joint:
        head = "COCO's" if first == "nose" else "another"
        raise ValueError(
            f'{option} {name}: 17 outputs but {head} head (id2label[0] = "{config.id2label[0]}"), expected '
            f'"{first_joint}" first. AP-10K needs --convert-pose, see the help.'
        )


def open_pose(
    option: str, name: str, device: str, first_joint: str, mirror: Sequence[tuple[int, int]], dtype=torch.float32
) -> VitPose:
    """Open a model that `check_pose` accepts.

    Args:
        option, name, first_joint: see there.
        device, dtype: of torch.
        mirror: pairs of joints that change places in a mirrored picture.

    Raises:
        ValueError: as `check_pose`; a file is missing or does not fit.
    """
    from transformers import AutoImageProcessor, VitPoseForPoseEstimation

    check_pose(option, name, first_joint)

    def load() -> VitPose:
        model = VitPoseForPoseEstimation.from_pretrained(name, dtype=dtype).to(device).eval()
        return VitPose(model, AutoImageProcessor.from_pretrained(name), mirror)

    return opened(f"{option} {name}", load)


class VitPose:
    """A model with its processor; each crop is looked at mirrored as well, and the heatmaps are averaged."""

    def __init__(self, model: Any, processor: Any, mirror: Sequence[tuple[int, int]]) -> None:
        self.model, self.processor, self.mirror = model, processor, torch.tensor(mirror)

    @torch.no_grad()  # post-processing fails on tensors with a history
    def joints(self, image: Image.Image, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """Find joints in boxes (fractions): (N, 17, 3) x, y in fractions, score."""
        if not len(boxes):
            return np.zeros((0, 17, 3))
        scale = np.array([image.width, image.height], float)
        # x, y, width, height in pixels, one list for each image
        pixels = [
            [x0 * scale[0], y0 * scale[1], (x1 - x0) * scale[0], (y1 - y0) * scale[1]] for x0, y0, x1, y1 in boxes
        ]
        inputs = self.processor(images=image.convert("RGB"), boxes=[pixels], return_tensors="pt")
        crops = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        experts = {}
        if self.model.config.backbone_config.num_experts > 1:
            experts["dataset_index"] = torch.zeros(len(crops), dtype=torch.long, device=crops.device)  # COCO's
        outputs = self.model(crops, **experts)
        mirrored = self.model(crops.flip(-1), flip_pairs=self.mirror.to(crops.device), **experts)
        outputs.heatmaps = ((outputs.heatmaps + mirrored.heatmaps) / 2).float()
        # no threshold: it deletes joints; no target_sizes: they are taken for each crop, width and height exchanged
        (poses,) = self.processor.post_process_pose_estimation(outputs, boxes=[pixels])
        rows = [np.column_stack((pose["keypoints"].numpy() / scale, pose["scores"].numpy())) for pose in poses]
        return np.stack(rows).astype(float)
