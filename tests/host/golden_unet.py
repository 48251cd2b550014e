"""The tiny UNet of `tests/golden/dreamrelation_public.npz` in both hosts: ComfyUI's own and diffusers'."""

from __future__ import annotations

import json
from types import ModuleType

import torch
from torch import Tensor

from tests import golden_tensors

WIDTHS = {
    "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": [1, 2], "num_res_blocks": [1, 1],
    "use_linear_in_transformer": True, "transformer_depth": [0, 2], "transformer_depth_output": [0, 0, 2, 2],
    "transformer_depth_middle": 2, "context_dim": 32, "adm_in_channels": 64,
}  # fmt: skip
TIME_WIDTH = 8


class GoldenUNet:
    """Weights, inputs and the answer."""

    def __init__(self) -> None:
        tensors, metadata = golden_tensors.read("dreamrelation_public")
        self.config = json.loads(metadata["config"])["unet"]
        tensors = {key.removeprefix("unet."): tensor for key, tensor in tensors.items() if key.startswith("unet.")}
        self.weights = _part(tensors, "weight.")
        self.adapter = _part(tensors, "ms_adapter.")
        self.latent, self.text, self.image_tokens = tensors["latent"], tensors["text"], tensors["image_tokens"]
        self.boxes, self.eps = tensors["boxes"], tensors["eps"]
        self.text_embeds, self.time_ids = tensors["text_embeds"], tensors["time_ids"]
        self.timesteps = torch.full((2,), float(self.config["timestep"]))

    def in_comfyui(self, tiny: ModuleType):
        """A MODEL with these weights, by ComfyUI's own map from diffusers' names."""
        import comfy.utils

        model = tiny.model("small", unet=WIDTHS)
        names = comfy.utils.unet_to_diffusers(WIDTHS)
        state = {names[name]: tensor for name, tensor in self.weights.items()}
        model.model.diffusion_model.load_state_dict(state, strict=True)
        return model

    def in_diffusers(self) -> torch.nn.Module:
        from diffusers import UNet2DConditionModel

        unet = UNet2DConditionModel.from_config(self.config["config"])
        unet.load_state_dict(self.weights, strict=True)
        return unet.eval().requires_grad_(False)

    def added_conditions(self) -> dict[str, Tensor]:
        """What diffusers calls `added_cond_kwargs`."""
        return {"text_embeds": self.text_embeds, "time_ids": self.time_ids}

    def comfyui_eps(self, model, **transformer_options) -> Tensor:
        """One call of a MODEL's UNet with everything that is patched into it, (2, 4, 16, 16)."""
        from comfy.ldm.modules.diffusionmodules.openaimodel import timestep_embedding

        times = timestep_embedding(self.time_ids.flatten(), TIME_WIDTH).reshape(2, -1)
        options = {**model.model_options["transformer_options"], **transformer_options}
        return model.model.diffusion_model(
            self.latent, self.timesteps, context=self.text, y=torch.cat((self.text_embeds, times), dim=1),
            transformer_options=options,
        )  # fmt: skip


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
