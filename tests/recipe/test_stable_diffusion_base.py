"""Bases with one text encoder, from a folder and from a file; prompts with subjects in them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel

from tests.recipe.tiny_recipe import WIDTH_L, _text_config, write_tokenizer
from tests.recipe.tiny_subject import write_sd
from training.host_diffusers.errors import ModelFileErrors
from training.host_diffusers.fused_text import FusedText, PromptTokens, encoder_keys
from training.host_diffusers.stable_diffusion import is_stable_diffusion, open_stable_diffusion

F32 = torch.float32


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    write_sd(folder)
    return folder


def test_prompts_are_encoded_as_diffusers_does(base):
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    opened = open_stable_diffusion(base)
    text = FusedText(opened.text(F32), PromptTokens.of_base(opened, "q"))
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    parts = (opened.vae(), text.encoders[0], tokenizer, opened.unet(F32), DDIMScheduler(), None, None)
    pipeline = StableDiffusionPipeline(*parts, requires_safety_checker=False)
    prompts = ["a fox hugs a bear.", "a cat"]
    theirs = pipeline.encode_prompt(prompts, "cpu", 1, False)[0]
    context, pooled = text(text.tokens.ids(prompts), [])
    torch.testing.assert_close(context, theirs)
    assert pooled is None and opened.text_widths == (WIDTH_L, 0) and opened.vocabulary == 59


def test_vectors_stand_at_the_placeholders_and_gradients_reach_them(base):
    opened = open_stable_diffusion(base)
    text = FusedText(opened.text(F32), PromptTokens.of_base(opened, "q"))
    ids = text.tokens.ids(["a fox, the fox is q, the cat is q"])
    first = ids[0][0].tolist().index(text.tokens.placeholder)
    words = torch.randn(2, WIDTH_L, requires_grad=True)
    plain, _ = text(ids, [])
    fused, _ = text(ids, [[words]])
    assert torch.equal(fused[:, :first], plain[:, :first]) and not torch.equal(fused[:, first:], plain[:, first:])
    assert torch.equal(text(ids, [])[0], plain)  # nothing stays on the encoder
    fused.square().sum().backward()
    assert bool(words.grad.abs().sum(dim=1).gt(0).all())
    with pytest.raises(ValueError, match="expected 2 subjects, one for each placeholder, got 1"):
        text(ids, [[words[:1]]])


def _spoil(base, folder, part, **changes):
    shutil.copytree(base, folder)
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("text_encoder", {"hidden_size": 32}, "its text encoder is 32 wide, its UNet reads 24"),
        ("unet", {"in_channels": 9}, "the UNet reads 9 channels, the VAE makes 4: an inpainting or editing model"),
        ("unet", {"addition_embed_type": "text_time"}, "text_time conditioning needs two text encoders, got one"),
    ],
)
def test_parts_that_do_not_fit_are_named(base, tmp_path, part, changes, said):
    _spoil(base, tmp_path / "sd", part, **changes)
    with pytest.raises(ModelFileErrors, match=said):
        open_stable_diffusion(tmp_path / "sd")


def test_a_missing_part_is_named(base, tmp_path):
    shutil.copytree(base, tmp_path / "sd")
    (tmp_path / "sd" / "vae" / "config.json").unlink()
    assert is_stable_diffusion(tmp_path / "sd")
    with pytest.raises(ModelFileErrors, match="models.base: vae: .*config.json: cannot be read"):
        open_stable_diffusion(tmp_path / "sd")


def open_clip_names(encoder: CLIPTextModel) -> dict[str, torch.Tensor]:
    """An encoder's weights as SD 2's checkpoint files spell them, with one layer more than is used."""
    state = {key.removeprefix("t.text_model."): value for key, value in encoder_keys("t", encoder).items()}
    names = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    found = {names[key]: value for key, value in state.items() if key in names}
    found["text_projection"] = torch.zeros(WIDTH_L, WIDTH_L)
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    parts["self_attn.out_proj"] = "attn.out_proj"
    for layer in range(4):
        own = f"encoder.layers.{min(layer, 2)}."
        for kind in ("weight", "bias"):
            stem = f"transformer.resblocks.{layer}."
            found |= {f"{stem}{theirs}.{kind}": state[f"{own}{ours}.{kind}"] for ours, theirs in parts.items()}
            rows = [state[f"{own}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            found[f"{stem}attn.in_proj_{kind}"] = torch.cat(rows)
    return found


def test_a_checkpoint_files_encoder_is_read_without_the_layer_that_sd2_leaves_out(tmp_path):
    torch.manual_seed(3)
    encoder = CLIPTextModel(_text_config(WIDTH_L, "gelu")).eval()
    state = {f"cond_stage_model.model.{key}": value.detach().clone() for key, value in open_clip_names(encoder).items()}
    state |= {"model.diffusion_model.x": torch.zeros(1), "first_stage_model.x": torch.zeros(1)}
    save_file(state, tmp_path / "sd2.safetensors")
    write_tokenizer(tmp_path / "tokenizer")
    sizes = {"text": encoder.config.to_dict(), "unet": {"cross_attention_dim": WIDTH_L}, "vae": {}}
    assert is_stable_diffusion(tmp_path / "sd2.safetensors")
    opened = open_stable_diffusion(tmp_path / "sd2.safetensors", str(tmp_path / "tokenizer"), sizes)
    text = FusedText(opened.text(F32), PromptTokens.of_base(opened, "q"))
    ids = text.tokens.ids(["a fox"])
    torch.testing.assert_close(text(ids, [])[0], encoder(ids[0]).last_hidden_state)
    del state["first_stage_model.x"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ModelFileErrors, match="expected a whole SD 2 checkpoint; nothing under first_stage_model"):
        open_stable_diffusion(tmp_path / "part.safetensors", str(tmp_path / "tokenizer"), sizes)


@pytest.mark.parametrize(
    ("more", "prediction"),
    [
        ({}, "epsilon"),
        ({"output_blocks.11.1.transformer_blocks.0.norm1.bias": 0.05}, "epsilon"),
        ({"output_blocks.11.1.transformer_blocks.0.norm1.bias": 0.2}, "v"),  # Stability's own 768-pixel files
    ],
)
def test_what_a_checkpoint_file_predicts_is_told_as_comfyui_tells_it(tmp_path, more, prediction):
    parts = ("cond_stage_model.model.x", "first_stage_model.x", "model.diffusion_model.x")
    state = {name: torch.zeros(1) for name in parts}
    state |= {f"model.diffusion_model.{key}": spread * torch.tensor([-1.0, 1.0]).half() for key, spread in more.items()}
    save_file(state, tmp_path / "sd2.safetensors")
    write_tokenizer(tmp_path / "tokenizer")
    sizes = {"text": _text_config(WIDTH_L, "gelu").to_dict(), "unet": {"cross_attention_dim": WIDTH_L}, "vae": {}}
    opened = open_stable_diffusion(tmp_path / "sd2.safetensors", str(tmp_path / "tokenizer"), sizes)
    assert opened.schedule.prediction == prediction
    state["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(1, 9, 1, 1)
    save_file(state, tmp_path / "sd2.safetensors")
    with pytest.raises(ModelFileErrors, match="reads 9 channels, not 4: an inpainting or editing model"):
        open_stable_diffusion(tmp_path / "sd2.safetensors", str(tmp_path / "tokenizer"), sizes)
