"""Subject adapters on disk: read whole, or refused with every wrong key."""

from dataclasses import replace

import pytest
import torch

from core.checkpoint import save
from core.subject.files import SubjectAdapter, SubjectAdapterConfig, load_subject_adapter, save_subject_adapter

BLOCKS = {
    "down_blocks.0.attentions.0.transformer_blocks.0": 32,
    "mid_block.attentions.0.transformer_blocks.0": 64,
    "up_blocks.1.attentions.10.transformer_blocks.0": 32,
    "up_blocks.1.attentions.2.transformer_blocks.0": 32,
}
CONFIG = SubjectAdapterConfig(image_width=24, embedding_width=20, context_width=48, hidden=40, tokens=16, word=(20, 16),
                              blocks=BLOCKS, head_width=16, input_channels=5)  # fmt: skip
METADATA = {"kind": "subject_adapter", "head_width": "16", "base": "miniworld"}


def state_of(config=CONFIG):
    """A whole file's tensors, from a seed."""
    torch.manual_seed(0)
    module = SubjectAdapter(config)
    blocks = list(config.blocks)
    state = {}
    for key, value in module.state_dict().items():
        if key.startswith("fusers."):
            _, index, name = key.split(".", 2)
            key = f"unet.{blocks[int(index)]}.fuser.{name}"
        state[key] = torch.randn_like(value)
    for block, width in config.blocks.items():
        state |= {
            f"unet.{block}.attn2.{name}.weight": torch.randn(width, config.context_width) for name in ("to_k", "to_v")
        }
    return state | {"unet.conv_in.weight": torch.randn(32, 5, 3, 3), "unet.conv_in.bias": torch.randn(32)}


def test_a_file_is_read_back_with_its_sizes_and_blocks_in_order(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save(path, state_of(), METADATA)
    state, config = load_subject_adapter(path)
    assert list(config.blocks) == [block for block in (*list(BLOCKS)[:2], list(BLOCKS)[3], list(BLOCKS)[2])]
    assert config.blocks == BLOCKS and config.word == (20, 16) and config.base == "miniworld"
    assert (config.input_channels, config.max_subjects, config.locate_single) == (5, 2, True)
    module = SubjectAdapter(config)
    module.load(state)
    assert torch.equal(module.fusers[2].alpha_attn, state[f"unet.{list(BLOCKS)[3]}.fuser.alpha_attn"])


@pytest.mark.parametrize("change, metadata, said", [
    (lambda s: s.pop("mlp.layernorm.bias"), {}, "1 missing .mlp.layernorm.bias"),
    (lambda s: s.update(strange=torch.zeros(1)), {}, "1 unexpected .strange"),
    (lambda s: s.pop("proj.null_image_feature"), {}, "'proj.null_image_feature' is missing"),
    (lambda s: s.update({"unet.conv_in.bias": torch.zeros(3)}), {}, "unet.conv_in.bias is .3,., expected .32,."),
    (lambda s: s.pop("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"), {}, "1 missing"),
    (lambda s: None, {"kind": "relation"}, "got a file of kind 'relation'"),
    (lambda s: None, {"head_width": "-64"}, "head_width to be a whole number from 1 to 9999, got '-64'"),
    (lambda s: None, {"head_width": "48"}, "of a width that 48 divides"),
    (lambda s: None, {"heads": "5"}, "of a width that 5 divides"),
])  # fmt: skip
def test_other_files_are_refused_with_every_wrong_key(tmp_path, change, metadata, said):
    state = state_of()
    change(state)
    save(tmp_path / "adapter.safetensors", state, METADATA | metadata)
    with pytest.raises(ValueError, match=said):
        load_subject_adapter(tmp_path / "adapter.safetensors")


def test_settings_are_written_beside_the_tensors_and_a_refused_file_never_appears(tmp_path):
    config = replace(CONFIG, coordinates=False, fused_words=False, locate_single=False, max_subjects=3, placeholder="q")

    def refuse(written):
        load_subject_adapter(written)
        raise ValueError("not what was trained")

    with pytest.raises(ValueError, match="not what was trained"):
        save_subject_adapter(tmp_path / "adapter.safetensors", state_of(config), config, {}, refuse)
    assert list(tmp_path.iterdir()) == []
    save_subject_adapter(tmp_path / "adapter.safetensors", state_of(config), config, {})
    assert load_subject_adapter(tmp_path / "adapter.safetensors")[1] == config


def test_an_adapter_of_two_text_encoders_that_changes_nothing_of_the_base(tmp_path):
    """As for SDXL, its heads counted as in SD 1."""
    config = replace(CONFIG, head_width=0, heads=4, input_channels=0, word_2=(24, 12))
    state = {key: tensor for key, tensor in state_of(config).items() if "conv_in" not in key and "attn2" not in key}
    save_subject_adapter(tmp_path / "adapter.safetensors", state, config, {})
    found, read_config = load_subject_adapter(tmp_path / "adapter.safetensors")
    assert read_config == config and set(found) == set(state)
    module = SubjectAdapter(read_config)
    module.load(found)
    assert [fuser.attn.heads for fuser in module.fusers] == [4] * 4
    assert [word.shape for word in module.words(torch.ones(2, 3, 20))] == [(2, 3, 16), (2, 3, 12)]
    single = SubjectAdapter(CONFIG)
    assert [word.shape for word in single.words(torch.ones(1, 20))] == [(1, 16)]
    assert [fuser.attn.heads for fuser in single.fusers] == [width // 16 for width in BLOCKS.values()]


def test_settings_that_hold_and_trained_text_encoders_come_back(tmp_path):
    state = state_of() | {"text_encoder.x": torch.ones(1), "text_encoder_2.y": torch.ones(2)}
    save_subject_adapter(tmp_path / "adapter.safetensors", state, CONFIG, {})
    found, config = load_subject_adapter(tmp_path / "adapter.safetensors")
    assert config == CONFIG and set(found) == set(state)
    save(tmp_path / "other.safetensors", state | {"my.text_encoder.": torch.ones(1)}, METADATA)
    with pytest.raises(ValueError, match="1 unexpected .my.text_encoder"):
        load_subject_adapter(tmp_path / "other.safetensors")


def test_heads_are_64_wide_where_a_file_does_not_say(tmp_path):
    blocks = {name: 64 for name in list(BLOCKS)[:2]}
    save(tmp_path / "adapter.safetensors", state_of(replace(CONFIG, blocks=blocks)), {})
    assert load_subject_adapter(tmp_path / "adapter.safetensors")[1].head_width == 64
    save(tmp_path / "adapter.safetensors", state_of(), {})  # 64 divides one of its widths only
    with pytest.raises(ValueError, match="of a width that 64 divides"):
        load_subject_adapter(tmp_path / "adapter.safetensors")
    bare = {key: tensor for key, tensor in state_of().items() if not key.startswith("unet.")}
    save(tmp_path / "adapter.safetensors", bare, {})
    with pytest.raises(ValueError, match="the gated adapter of at least one block, .* got none"):
        load_subject_adapter(tmp_path / "adapter.safetensors")
