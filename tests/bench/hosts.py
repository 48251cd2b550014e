"""The same random-weight UNet step in ComfyUI and in diffusers: plain, with our branch, and the published way."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.cross_attention_layers import UNetSpec
from core.identity.branch import IdentityBranch, ProjectedIdentity
from core.identity.tokens import IdentityTokens
from tests.bench import published

ROOT = Path(__file__).resolve().parents[2]
KINDS = [1, 0]  # ComfyUI's marks: the first row is negative, the second positive


@dataclass(frozen=True)
class Size:
    """Widths of a UNet of SDXL's layout, and the latent it works on."""

    channels: int
    context: int
    pooled: int
    latent: int
    head: int

    @property
    def layout(self) -> UNetSpec:
        return UNetSpec.of_depths((self.channels, 2 * self.channels, 4 * self.channels), 2, (0, 2, 10), self.context)


SIZES = {"small": Size(64, 512, 256, 64, 16), "full": Size(320, 2048, 1280, 128, 64)}


class Step:
    """One call of a UNet: inputs from a seed, and what both hosts share."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        draw = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw).to(device, dtype)

        self.layout = size.layout
        self.device, self.dtype = device, dtype
        self.latent = random(2, 4, size.latent, size.latent)
        self.text = random(2, 77, size.context)
        self.pooled = random(2, size.pooled)
        self.times = torch.full((2,), 400.0, device=device, dtype=dtype)

    def rows(self, tokens: IdentityTokens) -> tuple[Tensor, Tensor]:
        """The published inputs: tokens (2, M, D) and boxes (2, S, 4), zeros in the negative row."""
        sequence = torch.cat((torch.zeros_like(tokens.sequence), tokens.sequence))
        boxes = tokens.layout.tensor().to(self.device, self.dtype)
        return sequence, torch.stack((torch.zeros_like(boxes), boxes))


class ComfyUI(Step):
    """ComfyUI's UNet, patched through the pack as ComfyUI loads it."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(size, device, dtype)
        self.pack = _load_pack()
        tiny = importlib.import_module("tests.host.test_pack.tiny")
        unet = tiny.SDXL_UNET | {
            "model_channels": size.channels,
            "context_dim": size.context,
            "adm_in_channels": size.pooled + 6 * 256,
        }
        self.model = tiny.model("sdxl", unet=unet, dtype=dtype, device=device, head=size.head)
        self.model.model.to(device)
        self.conditions = torch.cat((self.pooled, torch.zeros(2, 6 * 256, device=device, dtype=dtype)), dim=1)

    def _call(self, model) -> Callable[[], Tensor]:
        options = {**model.model_options["transformer_options"], "cond_or_uncond": KINDS}
        return lambda: model.model.diffusion_model(
            self.latent, self.times, context=self.text, y=self.conditions, transformer_options=dict(options)
        )

    def plain(self) -> Callable[[], Tensor]:
        return self._call(self.model)

    def ours(self, projected: ProjectedIdentity, gamma: float) -> Callable[[], Tensor]:
        attach = importlib.import_module(f"{self.pack}.nodes.host_comfy.sdxl.attach")
        return self._call(attach.attach_identity(self.model, projected, (), None, gamma, (0.0, 1.0), "boxes"))

    def published(self, branch: IdentityBranch, tokens: IdentityTokens, gamma: float) -> Callable[[], Tensor]:
        from comfy.ldm.modules.attention import optimized_attention

        sequence, boxes = self.rows(tokens)
        t0, t = tokens.background.shape[0], tokens.subjects.shape[1]

        def patch(projection):
            def attention(query, key, value, options):
                text = optimized_attention(query, key, value, options["n_heads"])
                image = published.image_attention(
                    query,
                    sequence,
                    boxes,
                    projection.to_k_ip.weight,
                    projection.to_v_ip.weight,
                    options["n_heads"],
                    tuple(options["activations_shape"][-2:]),
                    t0,
                    t,
                )
                return text + gamma * image

            return attention

        clone = self.model.clone()
        for site, projection in zip(self.layout.sites(), branch.values()):
            clone.set_model_attn2_replace(patch(projection), *site.comfy)
        return self._call(clone)


def _load_pack() -> str:
    """ComfyUI into this process, then the pack by path; its module name."""
    import asyncio

    from tests.host.comfyui import find_comfyui

    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("No ComfyUI here: set COMFYUI_PATH to its folder, or measure with --host diffusers.")
    sys.path.insert(0, str(comfyui))
    importlib.import_module("comfy.cli_args").args.cpu = not torch.cuda.is_available()
    nodes = importlib.import_module("nodes")
    asyncio.run(nodes.load_custom_node(str(ROOT)))
    return str(ROOT).replace(".", "_x_")


class Diffusers(Step):
    """diffusers' UNet, patched through training's seam."""

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__(size, device, dtype)
        with torch.device(device):
            self.unet = (
                UNet2DConditionModel(
                    sample_size=size.latent,
                    in_channels=4,
                    out_channels=4,
                    block_out_channels=self.layout.widths,
                    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                    layers_per_block=2,
                    transformer_layers_per_block=[1, 2, 10],
                    cross_attention_dim=size.context,
                    attention_head_dim=[width // size.head for width in self.layout.widths],
                    use_linear_projection=True,
                    addition_embed_type="text_time",
                    addition_time_embed_dim=256,
                    projection_class_embeddings_input_dim=size.pooled + 6 * 256,
                )
                .to(dtype)
                .eval()
                .requires_grad_(False)
            )
        self.conditions = {"text_embeds": self.pooled, "time_ids": torch.zeros(2, 6, device=device, dtype=dtype)}

    def _call(self, processors: dict, **kwargs) -> Callable[[], Tensor]:
        def step() -> Tensor:
            self.unet.set_attn_processor(dict(processors))
            return self.unet(self.latent, self.times, self.text, added_cond_kwargs=self.conditions, **kwargs).sample

        return step

    def plain(self) -> Callable[[], Tensor]:
        return self._call(self.unet.attn_processors)

    def ours(self, projected: ProjectedIdentity, gamma: float) -> Callable[[], Tensor]:
        from core.attention import as_bias
        from training.host_diffusers import CrossAttentionExtras, IdentityBatch, attach_identity
        from training.host_diffusers.unet import cross_attentions, grid_of

        # the negative row carries values of zero: diffusers has one call for both rows
        sites = tuple(
            (key.expand(2, -1, -1), torch.cat((torch.zeros_like(value), value))) for key, value in projected.sites
        )
        levels = {level for _, _, level in cross_attentions(self.unet)}
        size = tuple(self.latent.shape[-2:])
        masks = {
            level: as_bias(projected.mask(projected.tokens.layout.coverage(*grid_of(size, level))), self.dtype)
            .to(self.device)
            .expand(2, -1, -1)
            for level in levels
        }
        extras = CrossAttentionExtras(identity=IdentityBatch(sites, masks))
        detach = attach_identity(self.unet, gamma)
        processors = dict(self.unet.attn_processors)
        detach()
        return self._call(processors, cross_attention_kwargs=extras.kwargs())

    def published(self, branch: IdentityBranch, tokens: IdentityTokens, gamma: float) -> Callable[[], Tensor]:
        from core.attention import attend
        from training.host_diffusers.unet import cross_attentions, grid_of

        sequence, boxes = self.rows(tokens)
        t0, t = tokens.background.shape[0], tokens.subjects.shape[1]
        size = tuple(self.latent.shape[-2:])
        processors, names = dict(self.unet.attn_processors), {id(m): n for n, m in self.unet.named_modules()}
        for (_, attention, level), projection in zip(cross_attentions(self.unet), branch.values()):

            def process(attn, hidden_states, encoder_hidden_states=None, *_, level=level, projection=projection, **__):
                query = attn.to_q(hidden_states)
                text = attend(query, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
                image = published.image_attention(
                    query,
                    sequence,
                    boxes,
                    projection.to_k_ip.weight,
                    projection.to_v_ip.weight,
                    attn.heads,
                    grid_of(size, level),
                    t0,
                    t,
                )
                return attn.to_out[1](attn.to_out[0](text + gamma * image))

            processors[f"{names[id(attention)]}.processor"] = process
        return self._call(processors)


HOSTS = {"comfyui": ComfyUI, "diffusers": Diffusers}
