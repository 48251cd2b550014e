"""Bases of the Flux class from disk: folders, single files, and what is refused or warned of."""

import json
import shutil

import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from core.checkpoint import save
from tests.recipe.tiny_flux import FLUX1, WIDTH, inputs, network, transformer, write_flux, write_tables
from training.config.flux import FluxModelsConfig
from training.data.prompt_spans import find_phrase
from training.host_diffusers.errors import ModelFileErrors
from training.host_diffusers.flux.architectures import KLEIN_4B, PUBLISHED, config_of_shapes, empty_transformer, name_of
from training.host_diffusers.flux.dreamo import merge_loras, strengths_of
from training.host_diffusers.flux.files import open_flux_base
from training.host_diffusers.flux.network import FluxNetwork
from training.host_diffusers.flux.single_file import diffusers_modules, read_transformer
from training.host_diffusers.flux.text import mistral_text
from training.host_diffusers.images import decode_latents, encode_pictures, latent_cells


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    for kind in ("flux1", "klein"):
        write_flux(root / kind, kind)
    write_tables(root / "embedding.safetensors")
    return root


def opened(base, method="auto", **more):
    return open_flux_base(FluxModelsConfig(base=str(base), text_tokens=16, **more), method)


def bfl(model):
    """A transformer's weights as Black Forest Labs lay them out: the inverse of what is tested."""
    generation = 2 if hasattr(model, "single_stream_modulation") else 1
    state, done = model.state_dict(), {}
    names = [f"double_blocks.{i}.{n}" for i in range(2) for n in ("img_attn.qkv", "txt_attn.qkv", "img_attn.proj")]
    names += [f"double_blocks.{i}.{n}" for i in range(2) for n in ("txt_attn.proj", "img_mlp.0", "img_mlp.2")]
    names += [f"double_blocks.{i}.{n}" for i in range(2) for n in ("txt_mlp.0", "txt_mlp.2")]
    norms = [
        f"double_blocks.{i}.{s}_attn.norm.{n}_norm" for i in range(2) for s in ("img", "txt") for n in ("query", "key")
    ]
    norms += [f"single_blocks.{i}.norm.{n}_norm" for i in range(3) for n in ("query", "key")]
    names += [f"single_blocks.{i}.{n}" for i in range(3) for n in ("linear1", "linear2")]
    names += ["img_in", "txt_in", "final_layer.linear", "final_layer.adaLN_modulation.1"]
    names += ["time_in.in_layer", "time_in.out_layer"]
    if generation == 1:
        names += [f"double_blocks.{i}.{s}_mod.lin" for i in range(2) for s in ("img", "txt")]
        names += [f"single_blocks.{i}.modulation.lin" for i in range(3)]
        names += [f"{part}.{end}_layer" for part in ("vector_in", "guidance_in") for end in ("in", "out")]
    else:
        names += [
            "double_stream_modulation_img.lin",
            "double_stream_modulation_txt.lin",
            "single_stream_modulation.lin",
        ]
    for name in [*names, *norms]:
        for part in ("weight", "bias"):
            targets = [f"{target}.{part}" for target in diffusers_modules(name, generation)]
            if all(target in state for target in targets):
                whole = torch.cat([state.pop(target) for target in targets])
                if "adaLN" in name:
                    whole = torch.cat(whole.chunk(2)[::-1])
                done[f"{name}.{'scale' if name in norms else part}"] = whole
    assert not state, list(state)
    return done


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_one_file_of_black_forest_labs_is_the_same_model(generation, prefix, tmp_path):
    model = transformer(generation)
    path = tmp_path / "flux.safetensors"
    save_file({prefix + name: tensor.contiguous() for name, tensor in bfl(model).items()}, path)
    read = read_transformer(path, generation, torch.float32)
    assert read.keys() == model.state_dict().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())
    told = config_of_shapes({name: tuple(tensor.shape) for name, tensor in bfl(model).items()})
    for key, value in told.items():
        if key not in ("axes_dims_rope", "_class_name"):
            assert model.config[key] == value, key


def test_eight_bit_files_are_read_with_their_scales(tmp_path):
    state = bfl(transformer(2))
    name = "double_blocks.0.img_attn.proj"
    weight = state[f"{name}.weight"]
    stored = {
        **state,
        f"{name}.weight": (weight / 0.5).to(torch.float8_e4m3fn),
        f"{name}.scale_weight": torch.tensor(0.5),
    }
    save_file(stored, tmp_path / "fp8.safetensors")
    read = read_transformer(tmp_path / "fp8.safetensors", 2, torch.float32)["transformer_blocks.0.attn.to_out.0.weight"]
    assert (read - weight).abs().max() < weight.abs().max() / 16 and not torch.equal(read, weight)


def test_klein_is_known_by_its_shapes_not_taken_for_dev():
    shapes = {
        "img_in.weight": (3072, 128),
        "txt_in.weight": (3072, 7680),
        "double_blocks.0.img_attn.norm.query_norm.scale": (128,),
        "single_stream_modulation.lin.weight": (9216, 3072),
        **{f"double_blocks.{index}.x": () for index in range(5)},
        **{f"single_blocks.{index}.x": () for index in range(20)},
    }
    config = config_of_shapes(shapes)
    assert name_of(config, False) == "klein-4b"
    assert {key: config[key] for key in KLEIN_4B} == {**KLEIN_4B}
    assert empty_transformer(config).config == empty_transformer(PUBLISHED["klein-4b"]).config
    with pytest.raises(ValueError, match="no transformer of Flux in it"):
        config_of_shapes({"model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)})


def test_a_folder_of_flux1_reads_prompts_with_placeholders(bases):
    base = opened(bases / "flux1", embeddings=str(bases / "embedding.safetensors"))
    assert (base.method, base.parts.tokens, base.parts.kind) == ("uxo", 16, "t5")
    text = base.parts.text(torch.float32)
    prompt = text.name("a fox hugs a bear", ("fox", "bear"))
    assert prompt == "a fox from [ref#1] hugs a bear from [ref#2]"
    places = text.places(prompt, 2)
    assert places == [3, 8]
    span = [text.position(prompt, end) for end in find_phrase(prompt, "hugs")]
    assert span == [4, 5]
    context, pooled = text.encode([prompt, "a fox hugs a bear"])
    assert context.shape == (2, 16, 20) and pooled.shape == (2, 24)
    swapped, _ = text.encode([prompt.replace("#1", "#3")])
    assert (swapped - context[:1]).abs()[0, 3].max() > 1e-3  # another row of the table
    kontext = opened(bases / "flux1", method="offset")
    assert kontext.method == "offset"
    assert kontext.parts.text(torch.float32).name("a fox", ("fox",)) == "a fox from image 1"


def test_a_folder_of_klein_reads_prompts_as_its_pipeline(bases):
    base = opened(bases / "klein")
    assert (base.method, base.parts.kind, base.parts.context_width) == ("index", "qwen3", 60)
    text = base.parts.text(torch.float32)
    context, pooled = text.encode(["a fox hugs a bear"])
    assert context.shape == (1, 16, 60) and pooled is None
    prompt = "a fox hugs a bear"
    assert [text.position(prompt, end) for end in find_phrase(prompt, "hugs")] == [3, 4]  # "user" stands before
    net = FluxNetwork(base.transformer(torch.float32), base.method, base.tables, torch.float32)
    same = network(2)
    with torch.no_grad():
        assert torch.equal(net(**inputs(2)), same(**inputs(2)))


def test_flux2_devs_words_are_found_before_the_end_of_its_chat():
    """Padded on the left, the chat's own end behind the prompt."""
    words = ("a", "fox", "hugs", "bear", "[INST]", "[/INST]", "<pad>", "<unk>")
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", padding_side="left"
    )
    fast.chat_template = (
        "{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content[0].text }} [/INST]"
        "{% else %}{{ message.content[0].text }} {% endif %}{% endfor %}"
    )
    prompt, length = "a fox hugs a bear", 60
    chat = fast.apply_chat_template(
        format_input([prompt]), tokenize=True, return_dict=True, padding="max_length", max_length=length
    )
    read = fast.convert_ids_to_tokens(chat["input_ids"][0])
    assert len(read) == length and read[0] == "<pad>" and read[-1] == "[/INST]"
    position = mistral_text(fast, nn.Identity(), length).position
    first, last = (position(prompt, end) for end in find_phrase(prompt, "hugs"))
    assert read[first:last] == ["hugs"]


def test_klein_latents_are_patches_with_their_own_statistics(bases):
    vae = opened(bases / "klein").parts.vae()
    pixels = torch.rand(1, 3, 32, 48)
    latents = encode_pictures(vae, pixels)
    assert latents.shape == (1, 16, 2, 3)
    with torch.no_grad():
        cells = vae.encode(pixels * 2 - 1).latent_dist.mode()
    variance = vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps
    again = latent_cells(latents * variance.sqrt() + vae.bn.running_mean.view(1, -1, 1, 1))
    torch.testing.assert_close(again, cells, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        decoded = (vae.decode(cells).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decode_latents(vae, latents), decoded, atol=1e-5, rtol=0)


def dreamo_files(folder):
    """A fused file and the same pairs split, of both kinds of block."""
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    fused = {}
    for block, name, rows, width in (
        ("double_blocks_0", "qkv_lora1", 3 * WIDTH, WIDTH),
        ("double_blocks_1", "proj_lora2", WIDTH, WIDTH),
        ("single_blocks_2", "qkv_lora", 3 * WIDTH, WIDTH),
        ("single_blocks_0", "proj_lora", WIDTH, 5 * WIDTH),
    ):
        fused[f"{block}_processor_{name}.down.weight"] = normal(2, width)
        fused[f"{block}_processor_{name}.up.weight"] = normal(rows, 2)
    save(folder / "dreamo.safetensors", fused, {})
    split = {}
    for prefix, block, names in (
        ("double_blocks_0_processor_qkv_lora1", "transformer_blocks.0.attn", ("to_q", "to_k", "to_v")),
        ("double_blocks_1_processor_proj_lora2", "transformer_blocks.1.attn", ("to_add_out",)),
        ("single_blocks_2_processor_qkv_lora", "single_transformer_blocks.2.attn", ("to_q", "to_k", "to_v")),
        ("single_blocks_0_processor_proj_lora", "single_transformer_blocks.0", ("proj_out",)),
    ):
        for name, rows in zip(names, fused[f"{prefix}.up.weight"].chunk(len(names))):
            split[f"transformer.{block}.{name}.lora_A.weight"] = fused[f"{prefix}.down.weight"].clone()
            split[f"transformer.{block}.{name}.lora_B.weight"] = rows.contiguous()
    save(folder / "dreamo_comfyui.safetensors", split, {})
    return folder / "dreamo.safetensors", folder / "dreamo_comfyui.safetensors"


def test_dreamos_loras_are_merged_from_either_layout(tmp_path):
    merged = []
    for path in dreamo_files(tmp_path):
        model = transformer(1)
        assert merge_loras(model, [path], [0.5]) == 8
        merged.append(model.state_dict())
    before = transformer(1).state_dict()
    changed = {name for name, tensor in merged[0].items() if not torch.equal(tensor, before[name])}
    assert len(changed) == 8
    for name, tensor in merged[0].items():
        torch.testing.assert_close(tensor, merged[1][name], atol=1e-6, rtol=0)
    names = ("dreamo_comfyui.safetensors", "dreamo_dpo_lora.safetensors", "own.safetensors")
    assert strengths_of([tmp_path / name for name in names], []) == [1.0, 1.25, 1.0]
    with pytest.raises(ValueError, match="layers do not fit this base"):
        merge_loras(transformer(2), [tmp_path / "dreamo.safetensors"], [1.0])


def refused(*arguments, **more):
    with pytest.raises(ModelFileErrors) as report:
        opened(*arguments, **more)
    return str(report.value)


def test_what_does_not_fit_is_refused_in_one_report(bases, tmp_path):
    tables, file = str(bases / "embedding.safetensors"), tmp_path / "flux.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in bfl(transformer(1)).items()}, file)
    assert "neither a folder nor a file" in refused(tmp_path / "nowhere")
    assert "transformer/config.json is missing" in refused(tmp_path)
    assert "holds a transformer alone. Name a diffusers folder" in refused(file)
    assert "parts of different bases" in refused(file, parts=str(bases / "klein"))
    assert "DreamO's files are for FLUX.1" in refused(bases / "klein", embeddings=tables)
    assert 'FLUX.2 knows "index", got "uxo"' in refused(bases / "klein", method="uxo")
    both = refused(bases / "flux1", embeddings=str(file), dreamo=[str(tmp_path / "absent")])
    assert "expected DreamO's embeddings" in both and "absent is not there" in both
    assert opened(file, parts=str(bases / "flux1")).config["num_single_layers"] == FLUX1["num_single_layers"]
    half = tmp_path / "half"
    shutil.copytree(bases / "flux1", half)
    for gone in (half / "transformer", half / "text_encoder"):
        (gone / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
        (gone / "model.safetensors").unlink(missing_ok=True)
    shutil.rmtree(half / "tokenizer_2")
    both = refused(half)
    assert "text_encoder/, tokenizer_2/ is missing or has no weights" in both and "transformer has no weights" in both
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:100])
    assert "cannot be read" in refused(tmp_path / "cut.safetensors", parts=str(bases / "flux1"))


def test_a_distilled_klein_is_warned_of_with_the_reason(bases, tmp_path):
    tiny = opened(bases / "klein")
    assert any("of no published size" in remark for remark in tiny.remarks)
    folder = tmp_path / "distilled"
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(KLEIN_4B))
    for name in ("vae", "text_encoder", "tokenizer"):
        (folder / name).symlink_to(bases / "klein" / name)
    (folder / "model_index.json").write_text('{"_class_name": "Flux2KleinPipeline", "is_distilled": true}')
    assert "parts of different bases" in refused(folder)  # the tiny encoder is not Klein's
    from training.host_diffusers.flux.choices import remarks_on

    config = {**KLEIN_4B}
    (said,) = remarks_on(folder, {"is_distilled": True}, config, "klein-4b", False)
    assert "is a distilled Klein (its model_index.json says so)" in said and "Train on FLUX.2-klein-base" in said
    file = tmp_path / "flux-2-klein-4b.safetensors"
    file.touch()
    (said,) = remarks_on(file, {}, config, "klein-4b", False)
    assert "its name has no 'base' in it" in said
    base = tmp_path / "flux-2-klein-base-4b.safetensors"
    base.touch()
    assert remarks_on(base, {}, config, "klein-4b", False) == []
