"""The authors' numbers through ComfyUI's own UNet and CLIP vision classes, patched by our seam."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from tests import golden_tensors
from tests.host.golden_unet import GoldenUNet


@pytest.fixture(scope="module")
def golden():
    return GoldenUNet()


def projected(pack, golden):
    """The golden identity tokens as keys and values at every site, by our own modules."""
    branch, tokens, scene = (pack.module(f"core.{name}") for name in ("identity.branch", "identity.tokens", "scene"))
    row = int(golden.boxes.flatten(1).sum(dim=1).argmax())  # the unconditional row has zero boxes
    t0, t = golden.config["num_dummy_tokens"], golden.config["num_tokens"]
    sequence, boxes = golden.image_tokens[row], golden.boxes[row].tolist()
    found = tokens.IdentityTokens(
        sequence[t0:].unflatten(0, (-1, t)),
        sequence[:t0],
        scene.Layout(tuple(scene.Box(*box) for box in boxes)),
        torch.ones(len(boxes)),
    )
    widths = tuple(golden.adapter[f"{2 * i + 1}.to_k_ip.weight"].shape[0] for i in range(len(golden.adapter) // 2))
    module = branch.IdentityBranch(widths, context_width=32)
    module.load_state_dict(golden.adapter)
    with torch.no_grad():
        return module.project(found), row


def test_the_golden_unet_agrees_in_comfyui(pack, tiny, golden):
    attach = pack.module("nodes.host_comfy.sdxl.attach")
    keys_values, row = projected(pack, golden)
    model = golden.in_comfyui(tiny)
    patched = attach.attach_identity(model, keys_values, ("a", "b"), None, golden.config["scale"], (0.0, 1.0), "boxes")
    kinds = [1, 1]
    kinds[row] = 0
    with torch.inference_mode():
        eps = golden.comfyui_eps(patched, cond_or_uncond=kinds)
    torch.testing.assert_close(eps, golden.eps, atol=1e-4, rtol=0)


def test_without_the_identity_the_golden_numbers_are_not_met(pack, tiny, golden):
    with torch.inference_mode():
        eps = golden.comfyui_eps(golden.in_comfyui(tiny), cond_or_uncond=[0, 1])
    assert (eps - golden.eps).abs().max() > 1e-3


@pytest.fixture(scope="module")
def clip_vision(comfy, tmp_path_factory):
    """The golden encoder in ComfyUI's own CLIP vision class, by ComfyUI's own key conversion."""
    import comfy.clip_vision

    tensors, metadata = golden_tensors.read("dense_clip_public")
    sizes = json.loads(metadata["config"])
    config = {
        "hidden_size": sizes["width"],
        "intermediate_size": int(sizes["width"] * sizes["mlp_ratio"]),
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "hidden_act": "gelu",
        "image_size": sizes["image_size"],
        "patch_size": sizes["patch_size"],
        "num_channels": 3,
        "projection_dim": sizes["output_dim"],
        "model_type": "clip_vision_model",
    }
    path = tmp_path_factory.mktemp("clip") / "config.json"
    path.write_text(json.dumps(config))
    encoder = comfy.clip_vision.ClipVisionModel(str(path))
    encoder.model.float()  # before loading: half precision would round the golden weights
    visual = {key: tensor.clone() for key, tensor in tensors.items() if key.startswith("visual.")}
    missing, _ = encoder.load_sd(comfy.clip_vision.convert_to_transformers(visual, "visual."))
    assert not missing
    return SimpleNamespace(encoder=encoder, tensors=tensors)


@pytest.mark.parametrize(("image", "dense"), [("image", "dense"), ("image_native", "dense_native")])
def test_dense_features_agree_in_comfyui(pack, clip_vision, image, dense):
    models, local = pack.module("nodes.host_comfy.sdxl.models"), pack.module("core.identity.local_tokens")
    with torch.inference_mode():
        ours = local.dense_features(models.vision_tower(clip_vision.encoder), clip_vision.tensors[image])
    torch.testing.assert_close(ours.flatten(2).transpose(1, 2), clip_vision.tensors[dense], atol=1e-4, rtol=0)


def test_local_tokens_agree_in_comfyui(pack, clip_vision):
    models, local = pack.module("nodes.host_comfy.sdxl.models"), pack.module("core.identity.local_tokens")
    with torch.inference_mode():
        dense = local.dense_features(models.vision_tower(clip_vision.encoder), clip_vision.tensors["image"])
    for grid in (2, 4):
        torch.testing.assert_close(
            local.pool(dense, grid), clip_vision.tensors[f"local_tokens_{grid}x{grid}"], atol=1e-4, rtol=0
        )
