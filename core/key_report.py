"""Report how a file's keys differ from those that a model needs, and what the file looks like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

SHOWN = 3  # keys of each sort that an error shows before it counts the rest


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Key to shape."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def compare_keys(
    actual: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], file: str, what: str
) -> None:
    """Check that a file holds exactly what a model needs.

    Raises:
        ValueError: one message with every missing, unexpected and misshapen key (the first few, and how many).
    """
    missing = [key for key in expected if key not in actual]
    unexpected = [key for key in actual if key not in expected]
    misshapen = [
        f"{key} is {actual[key]}, expected {expected[key]}"
        for key in expected
        if key in actual and actual[key] != expected[key]
    ]
    faults = [
        f"{len(keys)} {sort} ({first_few(keys)})"
        for sort, keys in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if keys
    ]
    if faults:
        raise ValueError(
            f"{file}: expected {what}, {len(expected)} tensors, and found {len(actual)}: "
            f"{'; '.join(faults)}. {describe(actual)}"
        )


def first_few(keys: list[str]) -> str:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


# What whole families of files look like: (what it is, substrings one of which every one of most keys has, where to).
_FAMILIES = (
    (
        "a LoRA",
        ("lora_down", "lora_up", "lora_A", "lora_B", ".lora.", ".alpha", "lora.down", "lora.up"),
        "models/loras and Load Relation",
    ),
    (
        "a full SDXL or SD checkpoint",
        ("model.diffusion_model.", "conditioner.", "first_stage_model.", "cond_stage_model."),
        "models/checkpoints and Load Checkpoint",
    ),
    (
        "a CLIP vision encoder",
        ("vision_model.", "visual.", "visual_projection"),
        "models/clip_vision and Load CLIP Vision",
    ),
    (
        "a Flux diffusion model",
        (
            "double_blocks.",
            "single_blocks.",
            "img_in.",
            "txt_in.",
            "time_in.",
            "vector_in.",
            "guidance_in.",
            "final_layer.",
        ),
        "models/diffusion_models and Load Diffusion Model",
    ),
    ("an IP-Adapter model", ("ip_adapter.", "image_proj.latents"), "models/ipadapter and an IP-Adapter pack"),
)


def describe(keys: Iterable[str]) -> str:
    """One sentence that names what a set of keys belongs to, or an empty string."""
    keys = list(keys)
    for family, marks, place in _FAMILIES:
        if keys and sum(any(mark in key for mark in marks) for key in keys) > 0.9 * len(keys):
            return f"By its keys it is {family}: that belongs in {place}."
    return ""
