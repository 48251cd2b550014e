"""Subject-Diffusion on a diffusers UNet: equal to diffusers' own gated UNet, and gone without a trace."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.subject.files import SubjectAdapter
from training.host_diffusers.subject import attach, block_names, detach, new_config, object_arguments

SIZES = {
    "sample_size": 16, "out_channels": 4, "block_out_channels": (16, 32), "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24, "attention_head_dim": 2, "norm_num_groups": 8, "use_linear_projection": True,
}  # fmt: skip
IMAGE, TOKENS = 20, 6


def plain_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(in_channels=4, **SIZES).eval()


def adapter_for(unet, seed: int = 1) -> SubjectAdapter:
    torch.manual_seed(seed)
    adapter = SubjectAdapter(new_config(unet, IMAGE, 12, 24, TOKENS)).eval()
    for parameter in adapter.parameters():
        parameter.data = 0.5 * torch.randn_like(parameter)
    return adapter.requires_grad_(False)


def inputs(channels: int):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, channels, 16, 12, generator=generator)
    text = torch.randn(2, 7, 24, generator=generator)
    patches = torch.randn(2, 2, TOKENS, IMAGE, generator=generator)
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.9], [0.5, 0.1, 0.9, 0.8]]]).expand(2, -1, -1)
    return x, text, object_arguments(patches, boxes, torch.tensor([[True, True], [True, False]]))


@torch.inference_mode()
def test_the_five_channel_unet_is_diffusers_gated_unet():
    unet = plain_unet()
    adapter = adapter_for(unet)
    attach(unet, adapter)
    unet.conv_in.weight[:, 4:] = torch.randn(16, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    x, text, objects = inputs(5)
    ours = unet(x, 300, text, cross_attention_kwargs={"gligen": objects}).sample

    gated = UNet2DConditionModel(in_channels=5, attention_type="gated", **SIZES).eval()
    gated.position_net = adapter.proj  # its own makes tokens of words and boxes
    gated.load_state_dict(unet.state_dict(), strict=True)
    theirs = gated(x, 300, text, cross_attention_kwargs={"gligen": objects}).sample
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    other = {**objects, "boxes": objects["boxes"] * 0.5}
    assert not torch.equal(ours, unet(x, 300, text, cross_attention_kwargs={"gligen": other}).sample)


@torch.inference_mode()
def test_closed_gates_and_a_fifth_channel_of_zeros_are_the_base_and_detaching_restores_it():
    unet = plain_unet()
    state, modules = {k: v.clone() for k, v in unet.state_dict().items()}, [name for name, _ in unet.named_modules()]
    x, text, objects = inputs(4)
    before = unet(x, 300, text).sample
    adapter = adapter_for(unet)
    for fuser in adapter.fusers:
        fuser.alpha_attn.zero_()
        fuser.alpha_dense.zero_()
    attach(unet, adapter)
    masked = torch.cat((x, torch.ones(2, 1, 16, 12)), dim=1)
    torch.testing.assert_close(
        unet(masked, 300, text, cross_attention_kwargs={"gligen": objects}).sample, before, atol=1e-6, rtol=0
    )
    detach(unet, adapter)
    assert torch.equal(unet(x, 300, text).sample, before)
    assert [name for name, _ in unet.named_modules()] == modules
    assert all(torch.equal(value, state[key]) for key, value in unet.state_dict().items())


def test_without_location_the_convolution_stays():
    unet = plain_unet()
    convolution = unet.conv_in
    adapter = adapter_for(unet)
    attach(unet, adapter, location=False)
    assert unet.conv_in is convolution
    detach(unet, adapter)
    assert unet.conv_in is convolution


def test_blocks_are_named_in_the_unets_order():
    assert list(block_names(plain_unet())) == [
        "down_blocks.0.attentions.0.transformer_blocks.0",
        "mid_block.attentions.0.transformer_blocks.0",
        "up_blocks.1.attentions.0.transformer_blocks.0",
        "up_blocks.1.attentions.1.transformer_blocks.0",
    ]


def test_another_unets_adapter_and_a_second_one_are_refused():
    unet = plain_unet()
    adapter = adapter_for(unet)
    wider = UNet2DConditionModel(in_channels=4, **{**SIZES, "block_out_channels": (32, 64)})
    with pytest.raises(ValueError, match="made for 4 blocks"):
        attach(wider, adapter)
    attach(unet, adapter)
    with pytest.raises(ValueError, match="has a position_net already"):
        attach(unet, adapter)
