"""Files: read as data, every fault in one error, written whole or not at all."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint import SAFETENSORS, TORCH_PICKLE, TORCH_ZIP, flat_tensors, kind_of, read, read_metadata, save
from core.identity.files import PARTS, RELEASED, load_identity, load_vision_tower
from core.identity.model import IdentityConfig, IdentityModel
from core.identity.resampler import ResamplerConfig
from core.key_report import compare_keys, describe, first_few

SMALL = IdentityConfig(
    ResamplerConfig(
        width=16,
        depth=1,
        head_width=4,
        attention_width=8,
        tokens=2,
        image_width=6,
        context_width=10,
        feedforward_width=12,
        phrase_width=5,
    ),
    widths=(8, 16),
    background_tokens=3,
)


@pytest.fixture
def state():
    return {key: tensor.clone() for key, tensor in IdentityModel(SMALL).state_dict().items()}


def nested(state):
    """As published: a dictionary of three."""
    content = {part: {} for part in PARTS[:2]}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if rest:
            content[part][rest] = tensor
    return content | {PARTS[2]: torch.nn.Parameter(state[PARTS[2]])}


def test_the_released_model_has_its_published_size():
    with torch.device("meta"):
        model = IdentityModel(RELEASED)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (len(model.image_proj.state_dict()), len(model.ms_adapter.state_dict())) == (59, 140)
    assert sum(parameter.numel() for parameter in model.image_proj.parameters()) == 118_943_616
    assert sum(parameter.numel() for parameter in model.ms_adapter.parameters()) == 340_787_200
    assert count == 459_739_008


def test_the_prefixed_layout_loads_with_its_head_width(state, tmp_path):
    save(tmp_path / "ours.safetensors", state, {"kind": "identity", "head_width": "4"})
    found, config = load_identity(tmp_path / "ours.safetensors")
    assert config == SMALL
    assert set(found) == set(state) and all(torch.equal(found[key], state[key]) for key in state)


def test_heads_that_do_not_divide_are_explained(state, tmp_path):
    save(tmp_path / "ours.safetensors", state, {})
    with pytest.raises(
        ValueError,
        match="attention width 8 is not a multiple of the head width 64; the file.s "
        "metadata should name its 'head_width'",
    ):
        load_identity(tmp_path / "ours.safetensors")


def test_the_published_pickle_with_its_parameter_loads(tmp_path):
    config = IdentityConfig(ResamplerConfig(16, 1, 64, 64, 2, 6, 10, 12, 5), (8, 16), 3)
    state = IdentityModel(config).state_dict()
    torch.save(nested(state), tmp_path / "ms_adapter.bin")
    found, read_config = load_identity(tmp_path / "ms_adapter.bin")
    assert read_config == config
    assert set(found) == set(state) and all(torch.equal(found[key], state[key]) for key in state)


def test_every_fault_of_an_identity_model_in_one_error(state, tmp_path):
    state["image_proj.proj_in.bias"] = torch.zeros(7)
    state["image_proj.surprise"] = torch.zeros(1)
    for key in (
        "image_proj.norm_out.weight",
        "image_proj.norm_out.bias",
        "ms_adapter.3.to_v_ip.weight",
        "image_proj.attention_norm.bias",
        "image_proj.latent_norm.bias",
    ):
        del state[key]
    save(tmp_path / "broken.safetensors", state, {"head_width": "4"})
    with pytest.raises(ValueError) as error:
        load_identity(tmp_path / "broken.safetensors")
    message = str(error.value)
    assert message.startswith("broken.safetensors: expected an identity model")
    assert "5 missing (" in message and "and 2 more" in message
    assert "1 unexpected (image_proj.surprise)" in message
    assert "1 misshapen (image_proj.proj_in.bias is (7,), expected (16,))" in message


@pytest.mark.parametrize(
    ("keys", "family"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight"], "a full SDXL"),
        (["lora_unet_mid_block_attentions_0.lora_down.weight", "lora_unet_mid_block_attentions_0.alpha"], "a LoRA"),
        (["vision_model.embeddings.class_embedding", "visual_projection.weight"], "a CLIP vision encoder"),
        (["double_blocks.0.img_attn.qkv.weight", "img_in.weight"], "a Flux diffusion model"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, keys, family):
    save_file({key: torch.zeros(2) for key in keys}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"expected an identity model.*By its keys it is {family}"):
        load_identity(tmp_path / "other.safetensors")


def test_another_top_level_name_is_refused(state, tmp_path):
    """The released reader takes any third name for the adapter."""
    torch.save(nested(state) | {"extra": {}}, tmp_path / "ms_adapter.bin")
    with pytest.raises(
        ValueError,
        match="exactly image_proj, ms_adapter, dummy_image_tokens, got dummy_image_tokens, "
        "extra, image_proj, ms_adapter",
    ):
        load_identity(tmp_path / "ms_adapter.bin")


class _Malice:
    def __reduce__(self):
        return os.makedirs, (os.environ["RELATE_TEST_MARK"],)


def test_a_pickle_that_would_run_code_does_not_run(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    monkeypatch.setenv("RELATE_TEST_MARK", str(mark))
    with (tmp_path / "evil.bin").open("wb") as file:
        pickle.dump({"image_proj": _Malice()}, file)
    torch.save({"image_proj": _Malice()}, tmp_path / "evil_zip.bin")
    for name in ("evil.bin", "evil_zip.bin"):
        with pytest.raises(ValueError, match=f"{name}: expected tensors only, but this file wants to run code"):
            read(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_truncated_file_says_so(state, tmp_path, ending):
    path = tmp_path / f"model.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(nested(state), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"model.{ending}: expected a whole file of tensors, but it cannot be read"):
        read(path)


def test_an_empty_file_and_no_file(tmp_path):
    (tmp_path / "empty.bin").touch()
    with pytest.raises(ValueError, match="empty.bin: expected a file of tensors, but it is empty"):
        read(tmp_path / "empty.bin")
    (tmp_path / "page.bin").write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(
        ValueError,
        match="page.bin: expected a torch archive, but it begins with b.<!DOCTYPE html>..: "
        "not a file of tensors, perhaps a web page",
    ):
        read(tmp_path / "page.bin")
    with pytest.raises(ValueError, match="absent.bin: no such file in"):
        read(tmp_path / "absent.bin")


def test_save_is_whole_or_absent(tmp_path):
    path = tmp_path / "model.safetensors"
    save(path, {"a": torch.ones(2)}, {"kind": "identity"})
    with pytest.raises(Exception, match="[Mm]etadata|str"):
        save(path, {"a": torch.zeros(2)}, {"kind": 3})
    assert torch.equal(read(path)[0]["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert read_metadata(path) == {"format": "relate/1", "kind": "identity"}


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_files_have_the_permissions_of_any_new_file_and_folders_are_made(tmp_path):
    before = os.umask(0o027)
    try:
        save(tmp_path / "deep" / "er" / "x.safetensors", {"a": torch.ones(1)}, {})
        assert os.umask(0o027) == 0o027  # as it was
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "er" / "x.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_header_that_would_be_too_long_is_none(tmp_path):
    (tmp_path / "x").write_bytes(b"\x01" + b"\xff" * 7 + b"{}")
    assert kind_of(tmp_path / "x") is None


def test_entries_that_are_no_tensors_are_named():
    with pytest.raises(
        ValueError, match=r"x: expected tensors by name, but 2 of its 3 entries are none \(.*1 is a Tensor"
    ):
        flat_tensors({"a": torch.ones(1), 1: torch.ones(1), "epoch": 3}, "x")
    assert flat_tensors({"a": torch.ones(1)}, "x").keys() == {"a"}


def test_nothing_to_report_when_all_keys_fit():
    compare_keys({"a": (1,)}, {"a": (1,)}, "file", "a thing")
    assert describe([]) == "" and describe(["something.else"]) == ""


def test_keys_belong_to_a_family_where_more_than_nine_of_ten_do():
    own = [f"model.diffusion_model.{number}" for number in range(10)]
    assert describe([*own, "other"]).startswith("By its keys it is a full SDXL") and describe([*own[:9], "other"]) == ""


def test_three_keys_are_shown_and_the_rest_is_counted():
    assert first_few(list("abc")) == "a, b, c" and first_few(list("abcde")) == "a, b, c, and 2 more"


def test_an_archive_of_something_else_than_a_dictionary_is_refused(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "x.bin")
    with pytest.raises(ValueError, match="x.bin: expected a dictionary of tensors, got a list"):
        read(tmp_path / "x.bin")


def tower(width=8, depth=2):
    linear = {
        "attn.in_proj": (3 * width, width),
        "attn.out_proj": (width, width),
        "mlp.c_fc": (4 * width, width),
        "mlp.c_proj": (width, 4 * width),
    }
    state = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (5, width),
        "visual.proj": (width, 6),
        "visual.conv1.weight": (width, 3, 2, 2),
    }
    norms = ["ln_pre", "ln_post"]
    for index in range(depth):
        block = f"transformer.resblocks.{index}"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, shape in linear.items():
            dot = "_" if name.endswith("in_proj") else "."
            state |= {f"visual.{block}.{name}{dot}weight": shape, f"visual.{block}.{name}{dot}bias": shape[:1]}
    state |= {f"visual.{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
    return {key: torch.randn(shape) for key, shape in state.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_vision_tower_of_a_clipself_checkpoint(tmp_path, prefix):
    vision, text = tower(), {"token_embedding.weight": torch.randn(9, 4), "logit_scale": torch.ones(())}
    state = {prefix + key: tensor for key, tensor in (vision | text).items()}
    torch.save(
        {"epoch": 6, "name": "run", "state_dict": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        tmp_path / "epoch_6.pt",
    )
    found = load_vision_tower(tmp_path / "epoch_6.pt")
    assert set(found) == set(vision)
    assert all(torch.equal(found[key], vision[key]) for key in vision)


def test_the_bigg_tower_has_584_tensors():
    from core.identity.files import _tower_shapes

    shapes = _tower_shapes({})
    assert len(shapes) == 584
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 1_844_907_264


def test_a_faulty_vision_tower_names_its_keys(tmp_path):
    state = tower()
    del state["visual.ln_post.bias"]
    torch.save(state, tmp_path / "tower.pt")
    with pytest.raises(ValueError, match="expected a CLIP vision tower, 32 tensors.*1 missing .visual.ln_post.bias."):
        load_vision_tower(tmp_path / "tower.pt")
    torch.save({"text": torch.zeros(1)}, tmp_path / "text.pt")
    with pytest.raises(ValueError, match="expected a CLIP with a vision tower"):
        load_vision_tower(tmp_path / "text.pt")


@pytest.mark.parametrize("name", ["x.safetensors", "x.sft", "x.SAFETENSORS", "x", "x.bin", "x.safetensors.tmp"])
def test_a_file_is_what_its_content_is(tmp_path, name):
    """Whatever it is called, also with its metadata; and a torch archive that is called safetensors."""
    path = tmp_path / name
    save_file({"a": torch.ones(2)}, path, metadata={"kind": "relation"})
    assert kind_of(path) == SAFETENSORS
    content, metadata = read(path)
    assert torch.equal(content["a"], torch.ones(2)) and metadata == read_metadata(path) == {"kind": "relation"}
    for old, kind in ((False, TORCH_ZIP), (True, TORCH_PICKLE)):
        torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=not old)
        assert kind_of(path) == kind
        assert torch.equal(read(path)[0]["a"], torch.ones(3)) and read(path)[1] == read_metadata(path) == {}


def test_a_header_whose_length_begins_as_a_pickle_does(tmp_path):
    """128 bytes of header: the file's first byte is 0x80."""
    path = tmp_path / "x.sft"
    for padding in range(200):
        save_file({"a" * (padding + 1): torch.ones(2)}, path)
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80 and kind_of(path) == SAFETENSORS
    assert len(read(path)[0]) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.sft", "safetensors"),
        ("x.safetensors", "safetensors"),
        ("x.bin", "a torch archive"),
        ("x", "a torch archive"),
    ],
)
def test_a_web_page_in_a_files_place(tmp_path, name, expected):
    (tmp_path / name).write_bytes(b"<!DOCTYPE html><html>not found</html>")
    with pytest.raises(ValueError, match=f"expected {expected}, but it begins with b'<!DOCTYPE html><'"):
        read(tmp_path / name)
    assert kind_of(tmp_path / name) is None and read_metadata(tmp_path / name) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"\x80",
        b"\x80\x02",
        b"\x80\x04}",
        b"\x80\x02K",
        b"PK\x03\x04",
        b"\x80\x02(((((",
        b"\x20" + b"\0" * 7 + b"{not json at all, no, no}",
        b"\0" * 8 + b"{",
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, content):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(ValueError, match="x.bin: expected a whole file of tensors, but it cannot be read"):
        read(tmp_path / "x.bin")


@pytest.mark.parametrize("width", ["-64", "0", "10000", "wide", "4.5", "", "\u00b2"])
def test_a_head_width_that_is_none(state, tmp_path, width):
    save(tmp_path / "x.safetensors", state, {"head_width": width})
    with pytest.raises(ValueError, match="expected the metadata's head_width to be a whole number from 1 to 9999"):
        load_identity(tmp_path / "x.safetensors")


def test_a_file_of_another_kind_is_no_identity_model(state, tmp_path):
    save(tmp_path / "x.safetensors", state, {"kind": "relation", "head_width": "4"})
    with pytest.raises(ValueError, match="expected an identity model, got a file of kind 'relation'"):
        load_identity(tmp_path / "x.safetensors")


def test_equal_contents_are_equal_bytes(tmp_path):
    """The library alone writes metadata in another order each time."""
    metadata = {name: name * 3 for name in "abcdefghijklmnop"}
    for number in range(5):
        save(tmp_path / f"{number}.safetensors", {"x": torch.arange(3.0)}, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    tensors, read_back = read(tmp_path / "0.safetensors")
    assert tensors["x"].tolist() == [0, 1, 2] and read_back == {"format": "relate/1", **metadata}


def test_a_file_that_is_not_right_never_appears(tmp_path):
    def wrong(written):
        assert read(written)[0]["x"].tolist() == [1]
        assert written.parent == tmp_path and written.suffix == ".safetensors"  # renamed, not copied, when it is right
        raise ValueError(f"{written.name} is wrong")

    with pytest.raises(ValueError, match="is wrong"):
        save(tmp_path / "x.safetensors", {"x": torch.ones(1)}, {}, wrong)
    assert list(tmp_path.iterdir()) == []
