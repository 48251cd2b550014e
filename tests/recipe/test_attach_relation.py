"""attach_relation in diffusers: nothing until it is trained, restored when detached, beside identity in any order."""

import pytest
import torch
from peft import LoraConfig

from tests.recipe.tiny_recipe import write_base
from training.host_diffusers import (
    attach_identity,
    attach_relation,
    merge_relation,
    relation_of,
    relation_parameters,
    set_relation,
)
from training.host_diffusers.identity import _Processor


@pytest.fixture
def unet(tmp_path):
    return write_base(tmp_path / "base").eval().requires_grad_(False)


def call(unet):
    generator = torch.Generator().manual_seed(0)
    conditions = {"text_embeds": torch.randn(2, 40, generator=generator), "time_ids": torch.ones(2, 6)}
    return unet(
        torch.randn(2, 4, 8, 8, generator=generator),
        torch.tensor([10, 700]),
        torch.randn(2, 77, 64, generator=generator),
        added_cond_kwargs=conditions,
    ).sample.detach()


def attach(unet, seed=0):
    return attach_relation(unet, 4, 4.0, torch.Generator().manual_seed(seed))


def train(unet):
    with torch.no_grad():
        for parameter in relation_parameters(unet).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))


def test_fresh_pairs_change_nothing_and_follow_the_seed(unet):
    plain = call(unet)
    detach = attach(unet, seed=3)
    assert torch.equal(call(unet), plain)
    down = {name: p.clone() for name, p in relation_parameters(unet).items() if name.endswith("down")}
    assert torch.cat([p.flatten() for p in down.values()]).std().item() == pytest.approx(0.25, abs=0.01)
    detach()
    torch.manual_seed(99)
    attach(unet, seed=3)
    assert all(torch.equal(relation_parameters(unet)[name], p) for name, p in down.items())


def test_detach_and_switch_restore_the_host(unet):
    plain, keys = call(unet), set(unet.state_dict())
    detach = attach(unet)
    train(unet)
    trained = call(unet)
    assert not torch.equal(trained, plain)
    set_relation(unet, False)
    assert torch.equal(call(unet), plain)
    set_relation(unet, True)
    assert torch.equal(call(unet), trained)
    detach()
    assert torch.equal(call(unet), plain)
    assert set(unet.state_dict()) == keys
    assert type(unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_q")) is torch.nn.Linear


def test_detach_leaves_anothers_lora(unet):
    unet.add_adapter(LoraConfig(r=2, target_modules=r".*attn1\.to_q", init_lora_weights=False), adapter_name="style")
    styled = call(unet)
    attach(unet)()
    unet.set_adapter("style")
    assert torch.equal(call(unet), styled)


def test_either_order_beside_identity(unet):
    attach(unet)
    train(unet)
    detach = attach_identity(unet)
    first = call(unet)
    detach()
    assert torch.equal(call(unet), first)
    processors = [module for module in unet.attn_processors.values() if isinstance(module, _Processor)]
    assert processors == []


def test_the_file_format_has_the_trained_numbers(unet):
    attach(unet)
    train(unet)
    lora = relation_of(unet, 4.0)
    assert len(lora.pairs) == 32
    site, projection = "mid_block.attentions.0.transformer_blocks.1.attn2", "to_out.0"
    layer = unet.get_submodule(f"{site}.{projection}")
    torch.testing.assert_close(lora.pairs[site, projection].delta(), layer.get_delta_weight("relation"))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_merged_draws_as_attached_and_is_taken_out_to_the_bit(unet, strength):
    plain, weights = call(unet), {name: value.clone() for name, value in unet.state_dict().items()}
    detach = attach(unet)
    train(unet)
    ups = [parameter for name, parameter in relation_parameters(unet).items() if name.endswith("up")]
    with torch.no_grad():
        torch._foreach_mul_(ups, 0.1)  # pairs of unit variance amplify float32's rounding beyond any tolerance
        lora = relation_of(unet, 4.0)
        torch._foreach_mul_(ups, strength)
    attached = call(unet)
    detach()
    restore = merge_relation(unet, lora, strength)
    merged = call(unet)
    torch.testing.assert_close(merged, attached, rtol=1e-4, atol=5e-5)
    assert not torch.allclose(merged, plain, atol=1e-2)
    restore()
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())
