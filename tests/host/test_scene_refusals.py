"""What Apply Scene says when something does not fit: word for word, before anything is encoded."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from tests.host.scene_studio import photograph

TEXT_ONLY = (
    "takes no reference images in ComfyUI. Apply Scene works with Boogu-Image-Edit, Flux Kontext, Flux.2, "
    "JoyImage-Edit, Krea 2, LongCat-Image-Edit, Mage-Flow-Edit, OmniGen2, Qwen-Image-Edit, Z-Image Omni, with SDXL "
    "and an identity model, and with DreamO after Load DreamO."
)
LIMITS = [("longcat", "LongCat-Image-Edit", 1, "s"), ("krea2", "Krea 2", 2, "s"),
          ("qwen_edit", "Qwen-Image-Edit", 3, "s"), ("z_image_omni", "Z-Image Omni", 3, "s"),
          ("omnigen2", "OmniGen2", 5, "s"), ("boogu", "Boogu-Image-Edit", 5, "s"),
          ("joyimage", "JoyImage-Edit", 6, "s"), ("mage", "Mage-Flow-Edit", 16, "s")]  # fmt: skip


def message(scenes, family, scene=None, **inputs) -> str:
    scene = scene or scenes.scene(photograph(64, 64))
    with pytest.raises(ValueError) as caught:
        scenes.apply(family, scene, **inputs)
    return str(caught.value)


def many(scenes, count):
    images = [photograph(64, 64, seed=seed) for seed in range(count)]
    return scenes.scene(
        *images, names=[f"n{i}" for i in range(count)], boxes=((0, 0, 1, 1),) * count, weights=(1.0,) * count
    )


def need(scenes, family):
    if family not in scenes.native.NAMES:
        pytest.skip(f"this ComfyUI has no {family}")


@pytest.mark.parametrize(("family", "title", "most", "_"), LIMITS)
def test_one_reference_too_many(scenes, family, title, most, _):
    need(scenes, family)
    plural = "" if most == 1 else "s"
    assert message(scenes, family, many(scenes, most + 1)) == (
        f"scene: {most + 1} subjects, {title} reads {most} picture{plural}. Leave one out, set its weight to 0, or "
        "join two photographs."
    )
    assert len(scenes.apply(family, many(scenes, most), width=64, height=64).references) == most


def test_a_model_of_text_alone(scenes, tiny):
    model = tiny.model("sd15")
    assert message(scenes, "kontext", model=model) == f"model: SD15 {TEXT_ONLY}"


@pytest.mark.parametrize(
    ("config", "kind"), [({"siglip_feat_dim": None}, "z_image_omni"), ({"in_channels": 96}, "kontext")]
)
def test_a_relative_without_references(scenes, tiny, config, kind):
    """Z-Image without its vision half; Flux Fill."""
    need(scenes, kind)
    parts = scenes.parts(kind)
    unet = {**parts.model.model.model_config.unet_config, **config}
    unet = {key: value for key, value in unet.items() if value is not None}
    model = parts.model.clone()
    model.model = SimpleNamespace(
        **{
            **vars(parts.model.model),
            "model_config": type("Relative", (), {"unet_config": unet})(),
            "diffusion_model": parts.model.model.diffusion_model,
        }
    )
    assert message(scenes, kind, model=model) == f"model: Relative {TEXT_ONLY}"


@pytest.mark.parametrize(
    ("image_model", "node"),
    [("hidream_o1", "HiDream-O1 Reference Images"), ("minimax_h3", "MiniMax H3 Reference to Video")],
)
def test_a_model_whose_references_are_not_wired_here(scenes, image_model, node):
    parts = scenes.parts("kontext")
    model = parts.model.clone()
    config = type("Relative", (), {"unet_config": {"image_model": image_model}})()
    model.model = SimpleNamespace(model_config=config, diffusion_model=parts.model.model.diffusion_model)
    assert message(scenes, "kontext", model=model) == (
        f"model: Apply Scene does not wire Relative yet. Connect its references by ComfyUI's own node, {node}."
    )


def test_sdxl_without_an_identity_model(scenes, tiny_sdxl):
    base = {"model": tiny_sdxl.model, "clip": tiny_sdxl.clip, "vae": tiny_sdxl.vae}
    assert message(scenes, "kontext", **base) == (
        "model: an SDXL model has no reference images of its own. Connect it to Apply Identity with Load Identity "
        "Model, or connect identity_model here."
    )


def test_a_network_that_is_not_comfyuis(scenes):
    class ComfyFluxWrapper(torch.nn.Module):
        pass

    parts = scenes.parts("kontext")
    model = parts.model.clone()
    model.model = SimpleNamespace(model_config=parts.model.model.model_config, diffusion_model=ComfyFluxWrapper())
    assert message(scenes, "kontext", model=model) == (
        f"model: its network is {__name__}.test_a_network_that_is_not_comfyuis.<locals>.ComfyFluxWrapper, not "
        "ComfyUI's. Load the model with Load Diffusion Model."
    )


def test_a_compiled_network_is_looked_into(scenes):
    detection = scenes.pack.module("nodes.host_comfy.scene.detection")
    network = scenes.parts("omnigen2").model.model.diffusion_model
    compiled = SimpleNamespace(model=SimpleNamespace(diffusion_model=SimpleNamespace(_orig_mod=network)))
    assert detection.network_of(compiled.model) is network


def test_the_clip_of_another_family(scenes):
    assert message(scenes, "qwen_edit", clip=scenes.parts("kontext").clip) == (
        "clip: expected Qwen2.5-VL as loaded with Load CLIP, type qwen_image; got FluxTokenizer."
    )


def test_the_vae_of_another_family(scenes):
    vae = scenes.native.PoolingVAE(16, 8, frames=False)
    need(scenes, "flux2")
    assert message(scenes, "flux2", vae=vae) == (
        "vae: it makes latents of 16 channels, the model has 128. Connect the model's own VAE: flux2-vae."
    )


def test_a_vae_without_the_models_time_axis(scenes):
    vae = scenes.native.PoolingVAE(16, 8, frames=False)
    assert message(scenes, "qwen_edit", vae=vae) == (
        "vae: it makes latents of 4 dimensions, the model has 5. Connect the model's own VAE: qwen_image_vae."
    )


def test_an_old_comfyui_says_its_version(scenes):
    version = importlib.import_module("comfyui_version").__version__
    if "flux2" in scenes.native.NAMES:
        pytest.skip("this ComfyUI has Flux.2")
    assert message(scenes, "kontext", engine="flux2") == (
        f"model: Flux.2 needs ComfyUI 0.33 or newer for Apply Scene; this is {version}."
    )


def test_an_engine_that_the_model_is_not(scenes):
    assert message(scenes, "kontext", engine="omnigen2") == (
        "engine: expected auto or kontext for Flux, got omnigen2. Leave it at auto."
    )


def test_flux_without_dreamo_may_be_dev(scenes, caplog):
    said = "this may be FLUX.1-dev, which was not trained with references. Set engine to kontext if it is Kontext;"
    scenes.apply("kontext", scenes.scene(photograph(64, 64)), engine="kontext")
    assert said not in caplog.text
    scenes.apply("kontext", scenes.scene(photograph(64, 64)))
    assert said in caplog.text


def test_more_references_than_advised(scenes, caplog):
    need(scenes, "flux2")
    scenes.apply("flux2", many(scenes, 6), width=64, height=64, reference_size=0.01)
    assert "Flux.2 Klein was made for up to 4 references; the scene has 6." in caplog.text


def test_krea_2_needs_an_edit_lora(scenes, caplog):
    need(scenes, "krea2")
    scenes.apply("krea2", scenes.scene(photograph(64, 64)))
    assert "references act only through an edit LoRA" in caplog.text


def test_a_second_apply_scene_on_one_model(scenes):
    scene = scenes.scene(photograph(64, 64))
    once = scenes.apply("omnigen2", scene).model
    assert "it already comes from an Apply Scene" in message(scenes, "omnigen2", scene, model=once)


def test_a_scene_without_subjects(scenes):
    empty = scenes.pack.module("core.scene").Scene()
    assert (
        message(scenes, "omnigen2", empty) == "scene: expected at least one subject, got none. Connect a Subject node."
    )


def test_reference_size_where_the_models_node_scales(scenes, caplog):
    scenes.apply("qwen_edit", scenes.scene(photograph(64, 64)), reference_size=0.5)
    assert "reference_size: Qwen-Image-Edit scales references itself; the setting does nothing." in caplog.text


def test_a_batch_of_z_image_omni(scenes):
    """ComfyUI's network repeats some of its parts for a batch and not others."""
    need(scenes, "z_image_omni")
    scene = scenes.scene(photograph(64, 64))
    assert message(scenes, "z_image_omni", scene, batch_size=2) == (
        "batch_size: ComfyUI draws Z-Image Omni with references one picture at a time, got 2. Set it to 1 and queue "
        "several runs."
    )
    made = scenes.apply("z_image_omni", scene, width=64, height=64, reference_size=0.01)
    with pytest.raises(RuntimeError), torch.inference_mode():
        scenes.comfy.KSampler().sample(
            made.model,
            1,
            1,
            1.0,
            "euler",
            "simple",
            made.positive,
            made.negative,
            {"samples": torch.zeros(2, 16, 8, 8)},
        )
