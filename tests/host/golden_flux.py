"""The tiny Flux of `tests/golden/dreamo_public.npz`, and the one of formulas whose answers are written down."""

from __future__ import annotations

import json
import math
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from tests import golden_tensors

FORMULA = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 24, "context_in_dim": 40, "hidden_size": 48, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 2, "depth_single_blocks": 3, "axes_dim": [8, 8, 8], "guidance_embed": True,
}  # fmt: skip


def golden_flux(tiny: ModuleType, dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """model, inputs, tables and answers of the published system at a tiny size; in another dtype without answers."""
    tensors, metadata = golden_tensors.read("dreamo_public")
    widths = json.loads(metadata["config"])["flux"]
    model = tiny.model("flux", unet=widths, dtype=dtype)
    answers, tensors = tensors, {key: value.to(dtype) for key, value in tensors.items()}
    weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    weights = model.model.model_config.process_unet_state_dict(weights)  # norms: `scale` in the file, `weight` in some
    model.model.diffusion_model.load_state_dict(weights, strict=True)
    model.model.process_latent_in = as_given
    return SimpleNamespace(
        model=model, x=tensors["x"], time=tensors["timestep"], context=tensors["context"], y=tensors["y"],
        guidance=tensors["guidance"], references=[tensors["ref1"], tensors["ref2"]],
        task=tensors["dreamo_task_embedding.weight"], index=tensors["dreamo_idx_embedding.weight"], answers=answers,
    )  # fmt: skip


def as_given(latent: Tensor) -> Tensor:
    """The references of these files are what the network sees, not what a VAE gives."""
    return latent


def filler(shape: tuple[int, ...], number: int, scale: float, offset: float = 0.0) -> Tensor:
    """Values from a sine, so that anybody can make the same ones without a generator."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    wild = torch.sin(index * 12.9898 + (number + 1) * 78.233) * 43758.5453
    return ((2 * (wild - wild.floor()) - 1) * scale + offset).float().reshape(shape)


def formula_flux(tiny: ModuleType) -> SimpleNamespace:
    """A Flux whose weights and inputs all come from `filler`."""
    model = tiny.model("flux", unet=FORMULA)
    model.model.process_latent_in = as_given
    network = model.model.diffusion_model
    for number, (name, tensor) in enumerate(sorted(network.named_parameters())):
        scale, offset = (0.1, 0.0) if name.endswith(".bias") else (0.2, 1.0)  # the rest: a norm's gains
        if tensor.ndim > 1:
            scale, offset = 1 / math.sqrt(tensor.shape[1]), 0.0
        tensor.data.copy_(filler(tuple(tensor.shape), number, scale, offset))
    return SimpleNamespace(
        model=model, x=filler((1, 16, 8, 12), 1000, 1.5), time=torch.tensor([0.7]),
        context=filler((1, 5, 40), 1001, 1.0), y=filler((1, 24), 1002, 1.0), guidance=torch.tensor([3.5]),
        references=[filler((1, 16, 8, 8), 1003, 1.5), filler((1, 16, 6, 10), 1004, 1.5)],
        task=filler((2, 48), 1005, 0.5), index=filler((10, 48), 1006, 0.5),
    )  # fmt: skip


def call(pack, flux: SimpleNamespace, routing, latents: list[Tensor], **options) -> Tensor:
    """One call of ComfyUI's own Flux through our wrapper, with latents as the model sees them."""
    seam = pack.module("nodes.host_comfy.flux.wrapper")
    from comfy.patcher_extension import WrapperExecutor

    def apply_model(x, t, c_concat, context, control, transformer_options, **conds):
        return flux.model.model.diffusion_model(
            x, t, context=context, control=control, transformer_options=transformer_options, **conds
        )

    conds = {"y": flux.y, "guidance": flux.guidance}
    if latents:
        conds |= {"ref_latents": latents, "ref_latents_method": "uxo"}
    if routing is not None:
        conds[seam.KEY] = (routing, None, (True,))
    executor = WrapperExecutor.new_class_executor(apply_model, flux.model.model, [seam.apply_references])
    with torch.inference_mode():
        return executor.execute(flux.x, flux.time, None, flux.context, None, options, **conds)
