"""A relation trained in diffusers draws the same in ComfyUI: Flux.1 and Flux.2, two references, every site."""

import importlib
import importlib.util

import pytest
import torch

from core.relation.card import RelationCard
from core.relation.flux_lora import save_flux_relation
from core.relation.lora import LowRank
from tests.host.flux_studio import CONTEXT, HEADS, POOLED, WIDTH, WIDTHS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs diffusers and peft")

DOUBLE, SINGLE = 2, 3
HEAD = WIDTH // HEADS
TOLERANCE = {"atol": 1e-6, "rtol": 0}  # float32; the outputs are about 1
T = r"transformer_blocks\.\d+\.attn\.(add_q_proj|add_k_proj|add_v_proj|to_add_out)"
I = r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0)"  # noqa: E741 (the site's name)
QK = r"(single_)?transformer_blocks\.\d+\.attn\.(to_q|to_k|add_q_proj|add_k_proj)"
S = {
    1: r"single_transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v)|proj_out)",
    2: r"single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out)",
}
SITES = {"T": T, "QK": QK, "I": I, "S": S, "DS": None}
# diffusers' names that ComfyUI's table lacks
SHARED = {
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
}


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_diffusers(generation):
    from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

    sizes = {
        "num_layers": DOUBLE,
        "num_single_layers": SINGLE,
        "attention_head_dim": HEAD,
        "num_attention_heads": HEADS,
        "joint_attention_dim": CONTEXT,
    }
    if generation == 1:
        further = {"in_channels": 64, "pooled_projection_dim": POOLED, "guidance_embeds": True}
        model = FluxTransformer2DModel(**sizes, **further, axes_dims_rope=(8, 12, 12))
    else:
        model = Flux2Transformer2DModel(
            **sizes, in_channels=128, axes_dims_rope=(8, 8, 8, 8), guidance_embeds=False, rope_theta=2000
        )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            norm = parameter.ndim == 1 and parameter.numel() == HEAD
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.08 + float(norm))
    return model.eval()


def copied(transformer, model):
    """The same weights in ComfyUI's model."""
    import comfy.utils

    network = model.model.diffusion_model
    table, there = comfy.utils.flux_to_diffusers(network_config(model)), dict(network.named_parameters())
    with torch.no_grad():
        for name, value in transformer.state_dict().items():
            stem, _, end = name.rpartition(".")
            target = f"{SHARED[stem]}.{end}" if stem in SHARED else table[name]
            if isinstance(target, str):
                there[target].copy_(value)
            elif target[1] is None:
                there[target[0]].copy_(target[2](value))
            else:
                there[target[0]].narrow(*target[1]).copy_(value)
    return model


def network_config(model):
    return model.model.model_config.unet_config


def tiny_model(generation, tiny):
    sizes = {"depth": DOUBLE, "depth_single_blocks": SINGLE}
    if generation == 1:
        return tiny.model("flux", unet={**WIDTHS, **sizes, "mlp_ratio": 4.0})
    native = importlib.import_module(f"{tiny.__package__}.native")
    return native.model(
        "flux2", **sizes, hidden_size=WIDTH, num_heads=HEADS, context_in_dim=CONTEXT, axes_dim=[8] * 4, theta=2000,
        mlp_ratio=3.0, guidance_embed=False,
    )  # fmt: skip


class Call:
    """One call of the network: a picture, two references of other sizes, text."""

    def __init__(self, generation):
        self.generation, channels = generation, 16 if generation == 1 else 128
        sizes = ((8, 12), (8, 8), (6, 8))
        self.picture, *self.references = (draw(1, channels, *size, seed=10 + n) for n, size in enumerate(sizes))
        self.text, self.pooled = draw(1, 7, CONTEXT, seed=20), draw(1, POOLED, seed=21)
        self.time, self.guidance = torch.tensor([0.6]), torch.tensor([3.5])

    def diffusers(self, transformer):
        return (self._flux1 if self.generation == 1 else self._flux2)(transformer)

    def _flux1(self, transformer):
        """References down the diagonal, ComfyUI's ``uxo``."""
        from training.host_diffusers.miniworld.flux import pack, unpack

        latents = (self.picture, *self.references)
        corners, ids = [(0, 0), (4, 6), (8, 10)], []
        for latent, (row, column) in zip(latents, corners):
            height, width = latent.shape[2] // 2, latent.shape[3] // 2
            grid = torch.meshgrid(torch.arange(height) + row, torch.arange(width) + column, indexing="ij")
            ids.append(torch.stack((torch.zeros(height, width), *grid), dim=-1).flatten(0, 1))
        tokens = torch.cat([pack(latent) for latent in latents], dim=1)
        out = transformer(
            tokens, self.text, self.pooled, self.time, torch.cat(ids), torch.zeros(7, 3), self.guidance,
            return_dict=False,
        )[0]  # fmt: skip
        return unpack(out[:, :24], (4, 6))

    def _flux2(self, transformer):
        """References at 10, 20 on the first axis, ComfyUI's ``index``."""
        from diffusers import Flux2KleinPipeline as Pipeline

        latents = (self.picture, *self.references)
        ids = torch.cat((Pipeline._prepare_latent_ids(self.picture), Pipeline._prepare_image_ids(self.references)), 1)
        tokens = torch.cat([Pipeline._pack_latents(latent) for latent in latents], dim=1)
        out = transformer(tokens, self.text, self.time, ids, Pipeline._prepare_text_ids(self.text), None)[0]
        return out[:, :96].transpose(1, 2).reshape(1, 128, 8, 12)

    def comfyui(self, model):
        more = (
            {"y": self.pooled, "guidance": self.guidance, "ref_latents_method": "uxo"} if self.generation == 1 else {}
        )
        return model.model.diffusion_model(
            self.picture.clone(), self.time, self.text.clone(), ref_latents=self.references, **more
        )


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("generation", [1, 2])
def test_trained_in_diffusers_drawn_in_comfyui(comfy, tiny, pack, base_directory, generation, site):
    from peft import LoraConfig

    if generation == 2 and not hasattr(importlib.import_module("comfy.supported_models"), "Flux2"):
        pytest.skip("this ComfyUI has no Flux.2")
    targets = SITES[site] or f"({I}|{T}|{S[generation]})"
    targets = targets[generation] if isinstance(targets, dict) else targets
    transformer, call = in_diffusers(generation), Call(generation)
    model = copied(transformer, tiny_model(generation, tiny))
    with torch.no_grad():
        torch.testing.assert_close(call.comfyui(model), without := call.diffusers(transformer), **TOLERANCE)
        transformer.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=targets), adapter_name="relation")
        pairs = {}
        for number, (name, layer) in enumerate(transformer.named_modules()):
            if hasattr(layer, "lora_A"):
                down, up = layer.lora_A["relation"].weight, layer.lora_B["relation"].weight
                down.copy_(0.2 * draw(*down.shape, seed=number))
                up.copy_(0.2 * draw(*up.shape, seed=1000 + number))
                pairs[name] = LowRank(down.clone(), up.clone(), 2.0)
        expected = call.diffusers(transformer)
    assert (expected - without).abs().max() > 1e-3  # the LoRA matters
    file = f"parity_{generation}_{site}.safetensors"
    save_flux_relation(base_directory / "models" / "loras" / file, pairs, RelationCard(base="", relation="hugging"))
    ours, _ = pack.run("RelateRelationLoader", model=model, lora_name=file, strength=1.0)
    with torch.inference_mode():
        stock = comfy.LoraLoaderModelOnly().load_lora_model_only(model, file, 1.0)[0]
        for related in (ours, stock):
            related.patch_model()
            torch.testing.assert_close(call.comfyui(related), expected, **TOLERANCE)
            related.unpatch_model()
