"""Frozen blocks stored elsewhere or otherwise train exactly as resident ones: loss and every gradient, to the bit."""

import pytest
import torch

from tests.recipe.tiny_flux import inputs, network
from training.engine.flux.recorder import LossAttention
from training.host_diffusers.flux.attention import hook_attention
from training.host_diffusers.flux.lora import attach_lora
from training.host_diffusers.flux.stored import from_fp8, store_blocks, streamed_blocks, to_fp8

CPU = torch.device("cpu")


def stored(fp8, streamed):
    return lambda transformer: store_blocks(transformer, CPU, torch.float32, fp8, streamed)


def step(generation, checkpointing, prepare=lambda transformer: None, sites="DS"):
    """One step's loss and gradients of a LoRA that does something already."""
    net, given = network(generation), inputs(generation)
    parameters = attach_lora(net.transformer, sites, 2, 4.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for index, parameter in enumerate(parameters.values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    prepare(net.transformer)
    if checkpointing:
        net.transformer.enable_gradient_checkpointing()
    net.transformer.train()
    loss = net(**given).square().mean()
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in parameters.items()}


def difference(one, other):
    losses = (one[0] - other[0]).abs().item()
    return max([losses, *((one[1][name] - other[1][name]).abs().max().item() for name in one[1])])


def resident_fp8(transformer):
    """The weights that 8 bits stand for, resident."""
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        for weight in block.parameters():
            if weight.ndim == 2 and not weight.requires_grad:
                weight.data = from_fp8(*to_fp8(weight.data), torch.float32)


@pytest.mark.parametrize("generation", [1, 2])
def test_checkpointing_and_streaming_change_nothing(generation):
    plain = step(generation, False)
    assert all(gradient.abs().max() > 0 for gradient in plain[1].values())
    assert difference(step(generation, True), plain) == 0.0
    for streamed in (2, 5):
        assert difference(step(generation, True, stored(False, streamed)), plain) == 0.0
    assert difference(step(generation, False, stored(False, 3)), plain) == 0.0


@pytest.mark.parametrize("generation", [1, 2])
def test_eight_bits_are_the_same_weights_resident(generation):
    resident = step(generation, False, resident_fp8)
    for streamed in (0, 3):
        assert difference(step(generation, True, stored(True, streamed)), resident) == 0.0
    assert difference(step(generation, True), resident) > 0


def test_eight_bits_are_a_quarter_of_the_memory_and_close_to_the_weights():
    net = network(1)
    attach_lora(net.transformer, "T", 2, 2.0, torch.Generator())
    before = net.transformer.transformer_blocks[0].ff.net[2].weight.clone()
    store_blocks(net.transformer, CPU, torch.float32, True, 0)
    weight = net.transformer.transformer_blocks[0].ff.net[2].weight
    assert weight.dtype == torch.float8_e4m3fn and weight.nbytes * 4 == before.nbytes
    assert net.transformer.x_embedder.weight.dtype == torch.float32
    again = from_fp8(*to_fp8(before), torch.float32)
    assert ((again - before).abs() <= before.abs() / 16 + before.abs().amax(1, keepdim=True) / 448 / 256).all()


def test_streamed_blocks_are_spread_evenly():
    assert streamed_blocks(10, 0) == set() and streamed_blocks(10, 99) == set(range(10))
    assert streamed_blocks(10, 2) == {2, 7} and len(streamed_blocks(57, 13)) == 13


@pytest.mark.parametrize("generation", [1, 2])
def test_losses_on_attention_are_the_same_under_checkpointing(generation):
    """Blocks run twice then; the second run's maps do not count, and the gradients are the same to the bit."""
    found = []
    for checkpointing in (False, True):
        net, given = network(generation), inputs(generation)
        blocks = hook_attention(net.transformer)
        parameters = attach_lora(net.transformer, "DS", 2, 4.0, torch.Generator().manual_seed(0))
        if checkpointing:
            net.transformer.enable_gradient_checkpointing()
        net.transformer.train()
        span = torch.tensor([[0, 0.5, 0.5, 0, 0], [0.0] * 5])
        places, worded = torch.tensor([[1, 3], [2, 4]]), torch.tensor([True, False])
        attend = LossAttention(blocks, net.layout(5, (4, 6), (16, 8)), span, places, worded, True)
        velocity = net(**given, attend=attend)
        assert [len(each) for each in (attend.maps, attend.holders, attend.predicates)] == [blocks] * 3
        assert attend.holders[0][1] == 0 and attend.predicates[0][1].abs().max() == 0  # no such words in this prompt
        assert attend.predicates[0][0].mean().item() == pytest.approx(1.0)
        parts = [torch.stack(each).square().mean() for each in (attend.maps, attend.holders, attend.predicates)]
        loss = velocity.square().mean() + sum(parts)
        loss.backward()
        assert [len(each) for each in (attend.maps, attend.holders, attend.predicates)] == [blocks] * 3
        found.append((loss.detach(), {name: parameter.grad for name, parameter in parameters.items()}))
    assert difference(*found) == 0.0
