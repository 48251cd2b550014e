"""DreamO's tables and presets, and a clear word for files that are none."""

import pytest
import torch
from safetensors.torch import save_file

from core.routing.files import PRESETS, find_file, load_tables
from tests.unit.core.test_flux_lora_keys import pair


def test_a_file_without_tables_is_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({f"double_blocks.{i}.img_mod.lin.weight": torch.ones(1) for i in range(20)}, path)
    with pytest.raises(
        ValueError,
        match=r"expected DreamO's embeddings .* but dreamo_task_embedding.weight, "
        r"dreamo_idx_embedding.weight missing among its 20 tensors",
    ):
        load_tables(path)


def test_tables_of_both_files(tmp_path):
    tables = {
        "dreamo_task_embedding.weight": torch.ones(2, 4),
        "dreamo_idx_embedding.weight": torch.ones(10, 4),
        "dreamo_t5_embedding.weight": torch.arange(12.0)[:, None].expand(12, 3),
    }
    save_file({key: value.contiguous() for key, value in tables.items()}, tmp_path / "embedding.safetensors")
    found = load_tables(tmp_path / "embedding.safetensors")
    assert found.words.shape == (10, 3) and found.words[0, 0] == 2  # the last ten rows, as the published code takes
    save_file(
        {
            "dreamo_task_embedding.weight": torch.ones(2, 4),
            "dreamo_idx_embedding.weight": torch.ones(10, 4),
            **pair("double_blocks_0_qkv_lora1"),
        },
        tmp_path / "dreamo.safetensors",
    )
    assert load_tables(tmp_path / "dreamo.safetensors").words is None


def test_a_misshapen_table_is_named_with_its_file(tmp_path):
    save_file(
        {"dreamo_task_embedding.weight": torch.ones(3, 4), "dreamo_idx_embedding.weight": torch.ones(10, 4)},
        tmp_path / "t.safetensors",
    )
    with pytest.raises(ValueError, match=r"t.safetensors: dreamo_task_embedding.weight: expected shape \(2, D\)"):
        load_tables(tmp_path / "t.safetensors")


def test_presets_are_the_published_ones():
    weights = {name: {adapter.name: adapter.strength for adapter in adapters} for name, adapters in PRESETS.items()}
    assert weights == {
        "v1": {"dreamo": 1.0, "cfg_distill": 1.0, "quality_pos": 0.15, "quality_neg": -0.8},
        "v1.1": {"dreamo": 1.0, "cfg_distill": 1.0, "sft": 1.0, "dpo": 1.25},
    }


def test_files_are_found_in_folders_and_comfyuis_layout_goes_first():
    (dreamo, *_) = PRESETS["v1"]
    assert (
        find_file(dreamo, ["dreamo.safetensors", "sub\\dreamo_comfyui.safetensors"])
        == "sub\\dreamo_comfyui.safetensors"
    )
    assert find_file(dreamo, ["v1/Dreamo.safetensors"]) == "v1/Dreamo.safetensors"
    assert find_file(dreamo, ["my_dreamo.safetensors"]) is None
