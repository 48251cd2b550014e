"""The memory estimate of --dry-run against what autograd really keeps on the CPU."""

import pytest
import torch
from diffusers import UNet2DConditionModel

import training.engine.memory
from tests.bench.finetune import measure, settings, table
from tests.bench.finetune_networks import small_sizes
from tests.surface import ROOT
from training.engine.memory import _identity, _inputs, estimate
from training.host_diffusers import CrossAttentionExtras, IdentityBatch, attach_identity, attach_relation
from training.host_diffusers.checkpoint_configs import SDXL_UNET

LATENT, BATCH = 16, 2


def really_kept(unet, identity):
    """Bytes of distinct storages that a real forward pass saves."""
    own = {parameter.data_ptr() for parameter in unet.parameters()}
    sizes, alive = {}, []

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    arguments, keywords = _inputs(unet, LATENT, BATCH)

    def real(tensor):
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    keywords = {"added_cond_kwargs": {name: real(value) for name, value in keywords["added_cond_kwargs"].items()}}
    extras = CrossAttentionExtras()
    if identity:
        shapes = _identity(unet, LATENT, BATCH)
        extras = CrossAttentionExtras(
            IdentityBatch(
                tuple((real(key), real(value)) for key, value in shapes.sites),
                {level: real(mask) for level, mask in shapes.masks.items()},
            )
        )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        unet(*map(real, arguments), cross_attention_kwargs=extras.kwargs(), **keywords)
    return sum(sizes.values())


@pytest.mark.parametrize("identity", [False, True])
def test_the_estimate_is_what_a_real_pass_keeps(identity):
    config = small_sizes().configs["unet"]
    with torch.device("meta"):
        empty = UNet2DConditionModel.from_config(config)
    told = estimate(empty, LATENT, BATCH, torch.float32, 4, False, False, identity)
    unet = UNet2DConditionModel.from_config(config).requires_grad_(False)
    attach_relation(unet, 4, 4.0, torch.Generator())
    if identity:
        attach_identity(unet)
    assert told.activations == pytest.approx(really_kept(unet, identity), rel=0.05)
    assert told.weights == sum(p.numel() * 4 for p in unet.parameters() if not p.requires_grad)


def test_checkpointing_keeps_a_fraction_and_eight_bits_save():
    config = small_sizes().configs["unet"]

    def told(**changes):
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(config)
        settings = {
            "dtype": torch.bfloat16,
            "rank": 4,
            "checkpointing": False,
            "eight_bit": False,
            "with_identity": True,
            **changes,
        }
        return estimate(unet, LATENT, BATCH, **settings)

    assert told(checkpointing=True).activations < 0.5 * told().activations
    assert told(eight_bit=True).trained == told().trained * 10 // 16
    assert told(dtype=torch.float32).weights == 2 * told().weights
    assert "GiB a process" in training.engine.memory.MemoryEstimate(2**30, 0, 2**30).sentence()


def test_the_presets_comments_are_the_estimates():
    def told(batch):
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(SDXL_UNET)
        return f"about {estimate(unet, 128, batch, torch.bfloat16, 4, True, False, True).total / 2**30:.0f} GiB"

    recommended, whole = told(1), told(8)
    folder = ROOT / "training" / "configs"
    assert f"{recommended} as it stands" in (folder / "relation_sdxl.toml").read_text(encoding="utf-8")
    for preset in ("relation_sdxl", "relation_sdxl_paper", "relation_sdxl_as_released"):
        assert f"8 at once {whole}" in (folder / f"{preset}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", settings([2])[:2], ids=lambda setting: setting.name)
def test_the_benchmark_runs_at_its_smallest(setting):
    row = measure(setting, small_sizes(), torch.device("cpu"), torch.float32, steps=1)
    assert row["pictures_a_second"] > 0
    assert setting.name in table([row, {**row, "setting": "published"}])
