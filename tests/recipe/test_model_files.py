"""Models from disk: the key layouts of others give the same numbers as their own libraries."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.recipe.tiny_recipe import write_all, write_tokenizer
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.checkpoint_configs import SDXL_CLIP_G
from training.host_diffusers.errors import ModelFileErrors
from training.host_diffusers.images import decode_latents, encode_pictures, image_tokens, latent_factor
from training.host_diffusers.single_file import build_text_encoder, open_single_file, rename_clip_g
from training.host_diffusers.text import encode_phrases, encode_prompts
from training.host_diffusers.tokenizer import find_tokenizer, tokenizer_of
from training.host_diffusers.vision import load_vision, load_weights

F32 = torch.float32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def open_clip_model():
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch (the extra 'backbones')")
    torch.manual_seed(0)
    model = open_clip.model.CLIP(
        embed_dim=20,
        vision_cfg={"layers": 3, "width": 128, "head_width": 64, "patch_size": 14, "image_size": 28},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
    )
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def test_an_open_clip_vision_file(open_clip_model, tmp_path):
    path = tmp_path / "epoch_6.pt"
    state = {f"module.{name}": tensor for name, tensor in open_clip_model.state_dict().items()}
    torch.save({"epoch": 6, "state_dict": state}, path)
    vision = load_vision(path, F32)
    pixels = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(vision(pixels).image_embeds, open_clip_model.encode_image(pixels), atol=1e-4, rtol=1e-4)
    assert vision.config.image_size == 28
    assert image_tokens(vision, pixels).shape == (2, 5, 128)
    assert not any(parameter.requires_grad for parameter in vision.parameters())


def test_an_open_clip_text_tower(open_clip_model, tmp_path):
    skip = ("visual.", "attn_mask", "logit")
    state = {name: tensor for name, tensor in open_clip_model.state_dict().items() if not name.startswith(skip)}
    sizes = {
        **SDXL_CLIP_G,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "projection_dim": 20,
    }
    from transformers import CLIPTextModelWithProjection

    encoder = build_text_encoder(CLIPTextModelWithProjection, sizes, rename_clip_g(state), F32, tmp_path / "x")
    ids = torch.zeros(2, 77, dtype=torch.long)
    ids[:, 0], ids[:, 1], ids[0, 5], ids[1, 9] = 49406, 320, 49407, 49407
    torch.testing.assert_close(encoder(ids).text_embeds, open_clip_model.encode_text(ids), atol=1e-4, rtol=1e-4)


def test_a_transformers_file_is_its_folder(root, tmp_path):
    folder = root / "models" / "clip_vision"
    shutil.copy(folder / "model.safetensors", tmp_path / "vision.safetensors")
    pixels = torch.randn(1, 3, 28, 28)
    of_folder = load_vision(folder, F32)
    state = {name: tensor for name, tensor in of_folder.state_dict().items() if "position_ids" not in name}
    save_file(state, tmp_path / "vision.safetensors", metadata={"heads": "4", "activation": "gelu"})
    of_file = load_vision(tmp_path / "vision.safetensors", F32)
    torch.testing.assert_close(image_tokens(of_file, pixels), image_tokens(of_folder, pixels))


def test_files_that_are_no_vision_encoder_are_named(root, tmp_path):
    save_file({"a.lora_down.weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="expected a CLIP vision encoder .* it is a LoRA"):
        load_vision(tmp_path / "lora.safetensors", F32)
    with pytest.raises(ValueError, match="not a CLIP vision encoder of transformers"):
        load_vision(root / "base" / "vae", F32)


def test_prompts_are_encoded_as_diffusers_does(root):
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTokenizer

    base = open_base_model(root / "base")
    text = base.text(F32)
    first = CLIPTokenizer.from_pretrained(root / "base" / "tokenizer", local_files_only=True)
    second = CLIPTokenizer.from_pretrained(root / "base" / "tokenizer", local_files_only=True, pad_token="!")
    pipeline = StableDiffusionXLPipeline(
        base.vae(), text.clip_l, text.clip_g, first, second, base.unet(F32), DDIMScheduler()
    )
    prompts = ["a fox hugs a bear.", "a cat"]
    theirs = pipeline.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    context, pooled = encode_prompts(text, prompts)
    torch.testing.assert_close(context, theirs[0])
    torch.testing.assert_close(pooled, theirs[2])
    assert encode_phrases(text, ["fox", "bear"]).shape == (2, 24)
    assert not torch.equal(*encode_phrases(text, ["fox", "bear"]))


def test_pictures_to_latents_and_back(root):
    vae = open_base_model(root / "base").vae()
    pixels = torch.rand(2, 3, 64, 64)
    latents = encode_pictures(vae, pixels)
    assert latent_factor(vae) == 8
    assert latents.shape == (2, 4, 8, 8)
    expected = vae.encode(pixels * 2 - 1).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)
    assert decode_latents(vae, latents).shape == (2, 3, 64, 64)


def test_half_precision_folders_are_found(root, tmp_path):
    shutil.copytree(root / "base", tmp_path / "base")
    for part in ("unet", "vae"):
        file = tmp_path / "base" / part / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert open_base_model(tmp_path / "base").unet(F32).dtype == F32


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"prediction_type": "v_prediction"}, "v"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow"),
        ({}, "epsilon"),
    ],
)
def test_the_prediction_is_read_from_the_scheduler(root, tmp_path, told, expected):
    shutil.copytree(root / "base", tmp_path / "base")
    (tmp_path / "base" / "scheduler").mkdir()
    file = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(told))
    assert open_base_model(tmp_path / "base").schedule.prediction == expected
    file.write_text(json.dumps({"prediction_type": "sample"}))
    with pytest.raises(ModelFileErrors, match="prediction_type 'sample' is not supported"):
        open_base_model(tmp_path / "base")


def test_single_files_that_are_not_sdxl_are_named(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ModelFileErrors, match="expected a safetensors checkpoint.*pickles are not opened"):
        open_single_file(tmp_path / "x.ckpt", "")
    path = tmp_path / "x.safetensors"
    for content, expected in ((b"nothing", "got another file"), (b"\x20" + bytes(7) + b'{"a"', "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(ModelFileErrors, match=expected):
            open_single_file(path, "")
    save_file({"double_blocks.0.x": torch.zeros(1), "single_blocks.0.x": torch.zeros(1)}, path)
    with pytest.raises(ModelFileErrors, match="nothing under model.diffusion_model.*it is a Flux diffusion model"):
        open_single_file(path, "")


def test_a_tokenizer_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ModelFileErrors, match="models.tokenizer: no vocab.json and merges.txt in"):
        find_tokenizer(str(tmp_path))
    write_tokenizer(tmp_path / "comfy" / "sd1_tokenizer")
    assert (find_tokenizer() / "vocab.json").is_file()
    assert find_tokenizer(str(tmp_path / "comfy" / "sd1_tokenizer")) == tmp_path / "comfy" / "sd1_tokenizer"


def test_weights_load_whether_or_not_transformers_names_the_body():
    """Its versions differ in that."""
    bare, wrapped = torch.nn.Linear(2, 2), torch.nn.ModuleDict({"text_model": torch.nn.Linear(2, 2)})
    state = {"text_model.weight": torch.full((2, 2), 3.0), "text_model.bias": torch.full((2,), 4.0)}
    for model, layer in ((bare, bare), (wrapped, wrapped["text_model"])):
        load_weights(model, state, "text_model.", "x.safetensors", "a text encoder")
        assert torch.equal(layer.weight, state["text_model.weight"])
        assert torch.equal(layer.bias, state["text_model.bias"])


def test_the_named_tokenizer_comes_before_the_bases_own(tmp_path):
    own, named = tmp_path / "base" / "tokenizer", tmp_path / "named"
    write_tokenizer(own)
    write_tokenizer(named)
    assert tokenizer_of(tmp_path / "base", "") == own
    assert tokenizer_of(tmp_path / "base", str(named)) == named


def test_one_file_of_a_unet_that_is_no_known_base_is_named(tmp_path):
    parts = ("first_stage_model.x", "conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x")
    unet = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({part: torch.zeros(1) for part in parts} | {unet: torch.zeros(640, 2048)}, tmp_path / "x.safetensors")
    write_tokenizer(tmp_path / "words")
    with pytest.raises(ModelFileErrors, match="expected the UNet of SDXL, got one with 1 text cross-attentions at ot"):
        open_single_file(tmp_path / "x.safetensors", str(tmp_path / "words"))


def test_a_folder_of_another_architecture_is_refused(root, tmp_path):
    shutil.copytree(root / "base", tmp_path / "base")
    file = tmp_path / "base" / "unet" / "config.json"
    other = {"down_block_types": ["DownBlock2D", "SimpleCrossAttnDownBlock2D"]}
    file.write_text(json.dumps(json.loads(file.read_text()) | other))
    with pytest.raises(ModelFileErrors, match="expected a UNet of SDXL's architecture, got one with"):
        open_base_model(tmp_path / "base")
