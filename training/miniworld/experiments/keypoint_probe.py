"""Measure what the keypoint loss can teach in the miniworld, in four distances between joints.

The loss (core/relation/keypoint_loss.py) asks that a joint of the predicted picture equal the same joint of the
subject's photograph. How far is the true picture from obeying it, how far a prediction, and how far would the
photograph of somebody else be? If truth and prediction are equally far, following the loss leads nowhere; if a stranger
is no farther, the loss does not separate identities.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.relation.keypoint_loss import KeypointPairs, keypoint_loss

from ...host_diffusers import CrossAttentionExtras, attach_identity
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes.denoiser import SCHEDULE, STRENGTH, time_ids
from ..recipes.pictures import to_tensor
from ..world.renderer import Render, render
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan, portrait
from ..world.triplets import evaluation_plans
from .generate import Request, mismatched_identity, subject_tokens

TIMESTEP = 167  # the middle of those at which the loss counts
DISTANCES = {
    "truth": "the true picture, from the photograph",
    "prediction": "the prediction, from the photograph",
    "stranger": "the true picture, from a photograph of another of the species",
    "error": "the prediction, from the true picture",
}


@dataclass(frozen=True, eq=False)
class Joints:
    """B pictures of two subjects each.

    Attributes:
        clean: (B, C, 16, 16) latents; concepts, strangers: (B, 2, C, 16, 16).
        pairs: of the joints; strangers take the photographs' poses, so they serve for both.
        requests: of the pictures.
    """

    clean: Tensor
    concepts: Tensor
    strangers: Tensor
    pairs: KeypointPairs
    requests: list[Request]


@torch.no_grad()
def joint_distances(world: Miniworld, relation: str, pictures: int, seed: int) -> dict[str, float]:
    """Average the keypoint loss by the keys of DISTANCES; squared distances in latents of unit variance.

    Args:
        world: the base, without a relation.
        relation: held out.
        pictures: how many.
        seed: of scenes and noise.
    """
    joints = build_joint_batch(world, evaluation_plans(relation, pictures, seed), seed)
    always = torch.ones(pictures, dtype=torch.bool)
    time = torch.full((pictures,), TIMESTEP)
    noise = torch.randn(joints.clean.shape, generator=torch.Generator().manual_seed(seed))
    noisy = SCHEDULE.add_noise(joints.clean, noise, time)
    prediction = SCHEDULE.clean(noisy, predicted_noise(world, joints.requests, noisy), time)
    themselves = KeypointPairs(joints.pairs.target, joints.pairs.target, joints.pairs.visible)
    distances = {
        "truth": keypoint_loss(joints.clean, joints.concepts, joints.pairs, always),
        "prediction": keypoint_loss(prediction, joints.concepts, joints.pairs, always),
        "stranger": keypoint_loss(joints.clean, joints.strangers, joints.pairs, always),
        "error": keypoint_loss(prediction, joints.clean[:, None].expand_as(joints.concepts), themselves, always),
    }
    return {name: round(float(value.mean()), 3) for name, value in distances.items()}


def build_joint_batch(world: Miniworld, plans: list[ScenePlan], seed: int) -> Joints:
    """Render scenes, the subjects' photographs and those of strangers in the very same poses."""
    targets = [render(plan) for plan in plans]
    photographs, strangers = [], []
    for index, plan in enumerate(plans):
        rng = generator(seed, Stream.STRANGER, index, 1)
        own = [portrait(rng, who, plan.backdrop.place) for who in plan.cast]
        photographs.append([render(each) for each in own])
        others = [mismatched_identity(who, rng) for who in plan.cast]
        strangers.append([render(replace(each, cast=(other,))) for each, other in zip(own, others)])
    in_target = torch.from_numpy(np.stack([target.keypoints for target in targets])).float()
    in_photograph = torch.from_numpy(np.stack([[shot.keypoints[0] for shot in row] for row in photographs])).float()
    visible = (in_target[..., 2] > 0) & (in_photograph[..., 2] > 0)
    requests = [
        Request(plan.caption.prompt, plan.caption.names, _images(row), torch.from_numpy(target.boxes))
        for plan, row, target in zip(plans, photographs, targets)
    ]
    return Joints(
        world.to_latents(_images(targets)),
        torch.stack([world.to_latents(_images(row)) for row in photographs]),
        torch.stack([world.to_latents(_images(row)) for row in strangers]),
        KeypointPairs(in_target[..., :2], in_photograph[..., :2], visible),
        requests,
    )


@torch.no_grad()
def predicted_noise(world: Miniworld, requests: list[Request], noisy: Tensor) -> Tensor:
    """Predict the noise with prompt and identities, without guidance, as in training."""
    detach = attach_identity(world.unet, STRENGTH)
    try:
        text, pooled = world.encode_prompts([request.prompt for request in requests])
        identity = subject_tokens(world, requests, grid=4)
        return world.unet(
            noisy,
            torch.tensor(TIMESTEP),
            text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids(len(requests), noisy.device)},
            cross_attention_kwargs=CrossAttentionExtras(identity=identity).kwargs(),
        ).sample
    finally:
        detach()


def table(distances: dict[str, float]) -> str:
    """Write the distances as Markdown."""
    lines = [f"| Joints at timestep {TIMESTEP}, mean squared distance | latents of unit variance |", "| --- | --- |"]
    return "\n".join(lines + [f"| {words} | {distances[name]:.2f} |" for name, words in DISTANCES.items()])


def _images(shots: list[Render]) -> Tensor:
    return to_tensor([shot.image for shot in shots])
