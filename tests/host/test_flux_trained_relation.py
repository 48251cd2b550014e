"""What training on Flux-class models writes, in ComfyUI: its own classes, two references, the stock LoRA loader."""

import importlib

import pytest
import torch

from core.relation.flux_lora import load_flux_pairs, save_flux_relation
from core.relation.lora import RelationCard
from tests.host.native_families import FAMILIES, known_sizes
from training.host_diffusers.flux.architectures import empty_transformer
from training.host_diffusers.flux.lora import SITES, attach_lora, pairs_of
from training.host_diffusers.flux.network import FluxNetwork
from training.host_diffusers.flux.single_file import read_transformer

SIZES = {"depth": 2, "depth_single_blocks": 3, "mlp_ratio": 4.0}
CASES = {"flux1": ("kontext", "Flux", ("uxo", "index", "offset")), "flux2": ("flux2", "Flux2", ("index",))}
CONFIGS = {
    "flux1": {
        "_class_name": "FluxTransformer2DModel",
        "in_channels": 64,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 24,
        "guidance_embeds": True,
        "axes_dims_rope": (8, 12, 12),
    },
    "flux2": {
        "_class_name": "Flux2Transformer2DModel",
        "in_channels": 128,
        "joint_attention_dim": 32,
        "guidance_embeds": False,
        "axes_dims_rope": (8, 8, 8, 8),
    },
}
BLOCKS = {"num_layers": 2, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 32}


class Pair:
    """One small model in both hosts, and a call with two references."""

    def __init__(self, kind, tiny, folder):
        family, name, self.methods = CASES[kind]
        kinds = importlib.import_module("comfy.supported_models")
        if not hasattr(kinds, name):
            pytest.skip(f"this ComfyUI has no {name}")
        sizes = {**FAMILIES[family].sizes, **SIZES} | ({"mlp_ratio": 3.0} if kind == "flux2" else {})
        self.kind, self.comfy = kind, tiny.model_of(getattr(kinds, name), known_sizes(sizes))
        from safetensors.torch import save_file

        save_file(
            {
                name: tensor.contiguous().clone()
                for name, tensor in self.comfy.model.diffusion_model.state_dict().items()
            },
            folder / "base.safetensors",
        )
        self.config = {**CONFIGS[kind], **BLOCKS}
        self.state = read_transformer(folder / "base.safetensors", 2 if kind == "flux2" else 1, torch.float32)
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(shape, generator=generator)

        channels, patch = (16, 2) if kind == "flux1" else (128, 1)
        self.noisy, self.time = normal(1, channels, 4 * patch, 6 * patch), torch.tensor([0.7])
        self.context, self.pooled = normal(1, 5, 32), normal(1, 24) if kind == "flux1" else None
        self.references = [normal(1, channels, 4 * patch, 4 * patch), normal(1, channels, 3 * patch, 5 * patch)]

    def network(self, method):
        """The same weights on diffusers."""
        model = empty_transformer(self.config)
        model.load_state_dict(self.state, assign=True)
        return FluxNetwork(model.eval().requires_grad_(False), method, None, torch.float32)

    def trained(self, network):
        with torch.no_grad():
            return network(self.noisy, self.time, self.context, self.pooled, self.references, 3.5)

    def drawn(self, model, method):
        guidance = torch.tensor([3.5]) if self.kind == "flux1" else None
        with torch.inference_mode():
            return model.model.diffusion_model(
                self.noisy,
                self.time,
                context=self.context,
                y=self.pooled,
                guidance=guidance,
                ref_latents=self.references,
                ref_latents_method=method,
                transformer_options={},
            )


@pytest.fixture(scope="module", params=CASES)
def pair(request, comfy, tiny, tmp_path_factory):
    return Pair(request.param, tiny, tmp_path_factory.mktemp(request.param))


def far(one, other):
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


def test_the_bases_are_one_with_every_method_of_references(pair):
    seen = [pair.trained(pair.network(method)) for method in pair.methods]
    for method, ours in zip(pair.methods, seen):
        assert far(pair.drawn(pair.comfy, method), ours) <= 1e-6, method
    assert all(far(one, other) > 1e-4 for index, one in enumerate(seen) for other in seen[:index])


@pytest.mark.parametrize("sites", SITES)
def test_the_stock_loader_makes_what_was_trained(pair, sites, tmp_path):
    import comfy.sd
    import comfy.utils

    method = pair.methods[0]
    network = pair.network(method)
    plain = pair.trained(network)
    parameters = attach_lora(network.transformer, sites, 4, 2.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for index, parameter in enumerate(parameters.values()):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    learnt, pairs = pair.trained(network), pairs_of(parameters, 2.0)
    path = tmp_path / "relation.safetensors"
    save_flux_relation(path, pairs, RelationCard(pair.kind, "hugging", sites=sites, reference_method=method))
    assert load_flux_pairs(path)[0].keys() == pairs.keys()
    model, _ = comfy.sd.load_lora_for_models(pair.comfy, None, comfy.utils.load_torch_file(str(path)), 1, 0)
    with torch.inference_mode():
        model.patch_model()
    try:
        assert far(pair.drawn(model, method), learnt) <= 1e-6
    finally:
        with torch.inference_mode():
            model.unpatch_model()
    assert far(plain, learnt) > 1e-3
    assert far(pair.drawn(pair.comfy, method), plain) <= 1e-6
