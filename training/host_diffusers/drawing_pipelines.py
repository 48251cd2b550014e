"""Any diffusers pipeline as words and pictures in, a picture out.

Pipelines differ in what they take: whether a list of pictures is several references or a batch, whether there is a
negative prompt, whether a size can be given. A pipeline's own signature says which arguments it takes; the rest is said
by whoever names the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from .errors import one_line
from .opening import opened

_OURS = ("prompt", "image", "width", "height", "generator")


def pipeline_class(model: str) -> type:
    """Read which pipeline a model is, from its config alone.

    Args:
        model: a folder, or the hub's `owner/name`.

    Raises:
        ValueError: no such model; a pipeline that this diffusers has not got.
    """
    import diffusers

    config: Any = opened(model, lambda: diffusers.DiffusionPipeline.load_config(model))
    name = config.get("_class_name", "")
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type):
        raise ValueError(
            f"{model}: is a {name or 'model without _class_name'}; diffusers {diffusers.__version__} has none."
        )
    return kind


def argument_faults(kind: type, arguments: Mapping[str, Any], pictures: int) -> list[str]:
    """List what a pipeline does not take, one sentence each.

    Args:
        kind: of pipeline.
        arguments: given by the user.
        pictures: how many it is to read.
    """
    parameters = inspect.signature(kind.__call__).parameters
    faults = [f"{name}: is set for every picture by this command; take it out." for name in arguments if name in _OURS]
    faults += [
        f"{name}: {kind.__name__} has no such argument; it takes {', '.join(list(parameters)[1:])}."
        for name in arguments
        if name not in parameters
    ]
    if pictures and "image" not in parameters:
        faults.append(f"{kind.__name__} reads no pictures; expected a model that edits.")
    return faults


class DrawingPipeline:
    """One opened pipeline.

    Args:
        model: a folder, or the hub's `owner/name`.
        device: of torch.
        dtype: of the weights, e.g. `bfloat16`.
        offload: keep on the device only what works just now.

    Raises:
        ValueError: it cannot be opened.
    """

    def __init__(self, model: str, device: str, dtype: str, offload: bool) -> None:
        import diffusers

        self.pipeline: Any = opened(
            model, lambda: diffusers.DiffusionPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype))
        )
        self.pipeline.set_progress_bar_config(disable=True)
        if offload and device != "cpu":
            self.pipeline.enable_model_cpu_offload(device=device)
        else:
            opened(f"{model} on {device}", lambda: self.pipeline.to(device))
        self.parameters = inspect.signature(type(self.pipeline).__call__).parameters

    def draw(
        self,
        prompt: str,
        negative: str,
        images: Sequence[Image.Image],
        size: tuple[int, int],
        seed: int,
        arguments: Mapping[str, Any],
        as_list: bool,
    ) -> Image.Image:
        """Draw one picture.

        Args:
            prompt, negative: the words; an empty negative leaves the pipeline's own.
            images: references, RGB.
            size: width and height in pixels, where the pipeline takes them.
            seed: of its noise, drawn on the CPU, so that the device does not change it.
            arguments: further ones.
            as_list: a list is several references; else the first one alone is given.

        Raises:
            ValueError: the pipeline failed.
        """
        inputs = {"prompt": prompt, "width": size[0], "height": size[1], **arguments}
        inputs |= {"negative_prompt": negative} if negative else {}
        inputs |= {"image": list(images) if as_list else images[0]} if images else {}
        inputs = {name: value for name, value in inputs.items() if name in self.parameters}
        try:
            return self.pipeline(**inputs, generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"{type(self.pipeline).__name__} failed: {one_line(error)}") from error
