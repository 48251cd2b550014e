"""attach_identity in diffusers: equal to the published processors, absent when absent, trainable, checkpointable."""

import json

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from core.attention import as_bias
from core.identity.branch import IdentityBranch
from core.identity.tokens import token_mask
from core.relation.attention_loss import predicate_attention_loss
from core.scene import Box, Layout, coverage
from tests import golden_tensors
from training.host_diffusers import (
    CrossAttentionExtras,
    IdentityBatch,
    PredicateProbe,
    attach_identity,
    cross_attentions,
    identity_batch,
)
from training.host_diffusers.identity import _Processor

BOXES = [[0.0, 0.2, 0.55, 0.85], [0.55, 0.26, 0.95, 0.90]]


@pytest.fixture(scope="module")
def golden():
    tensors, metadata = golden_tensors.read("dreamrelation_public")
    config = json.loads(metadata["config"])["unet"]
    return {key.removeprefix("unet."): tensor for key, tensor in tensors.items() if key.startswith("unet.")}, config


@pytest.fixture
def host(golden):
    tensors, config = golden
    unet = UNet2DConditionModel.from_config(config["config"])
    unet.load_state_dict({k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")})
    unet.requires_grad_(False)
    branch = IdentityBranch(tuple(site.width for site, _, _ in cross_attentions(unet)), 32)
    branch.load_state_dict({k.removeprefix("ms_adapter."): v for k, v in tensors.items() if k.startswith("ms_adapter")})
    return unet, branch


def tokens_of(tensors, branch, unet):
    """The published arrangement: 2 background tokens, then 3 tokens of each of 2 subjects."""
    sequence = tensors["image_tokens"]
    subjects = sequence[:, 2:].unflatten(1, (2, 3))
    return identity_batch(branch, subjects, sequence[0, :2], tensors["boxes"], torch.ones(2, 2), (16, 16), unet)


def call(unet, tensors, extras=None):
    conditions = {"text_embeds": tensors["text_embeds"], "time_ids": tensors["time_ids"]}
    kwargs = extras.kwargs() if extras else None
    return unet(
        tensors["latent"], 400, tensors["text"], added_cond_kwargs=conditions, cross_attention_kwargs=kwargs
    ).sample


def test_a_whole_unet_equals_the_published_adapter(golden, host):
    tensors, config = golden
    unet, branch = host
    attach_identity(unet, strength=config["scale"])
    with torch.no_grad():
        out = call(unet, tensors, CrossAttentionExtras(identity=tokens_of(tensors, branch, unet)))
    torch.testing.assert_close(out, tensors["eps"], atol=1e-4, rtol=1e-4)


def test_absent_is_the_untouched_host_bit_for_bit(golden, host):
    tensors, _ = golden
    unet, branch = host
    plain = call(unet, tensors)
    detach = attach_identity(unet, strength=0.0)
    extras = CrossAttentionExtras(identity=tokens_of(tensors, branch, unet))
    assert torch.equal(call(unet, tensors, extras), plain)
    detach()
    detach = attach_identity(unet, strength=0.6)
    assert torch.equal(call(unet, tensors), plain)
    assert not torch.equal(call(unet, tensors, extras), plain)
    detach()
    assert all(isinstance(attention.processor, AttnProcessor2_0) for _, attention, _ in cross_attentions(unet))


def test_rows_without_identity_are_text_only(golden, host):
    tensors, _ = golden
    unet, branch = host
    plain = call(unet, tensors)
    attach_identity(unet)
    one = tokens_of(tensors, branch, unet).take(torch.tensor([0])).absent_before()  # row 1 has no boxes
    out = call(unet, tensors, CrossAttentionExtras(identity=one))
    assert (out[1] - plain[1]).abs().max() > 1e-4
    torch.testing.assert_close(out[0], plain[0], atol=1e-6, rtol=0)


def test_another_processor_is_wrapped_and_its_output_kept(golden, host):
    tensors, _ = golden
    unet, branch = host
    extras = CrossAttentionExtras(identity=tokens_of(tensors, branch, unet))
    detach = attach_identity(unet)
    fused = call(unet, tensors, extras)
    detach()

    class Foreign:
        def __call__(self, *args):
            return AttnProcessor2_0()(*args)

    for _, attention, _ in cross_attentions(unet):
        attention.set_processor(Foreign())
    attach_identity(unet)
    torch.testing.assert_close(call(unet, tensors, extras), fused, atol=1e-5, rtol=1e-5)


def test_gradients_reach_branch_and_tokens_alike_with_checkpointing(golden, host):
    tensors, _ = golden
    unet, branch = host
    attach_identity(unet)
    subjects = tensors["image_tokens"][:, 2:].unflatten(1, (2, 3)).clone().requires_grad_()
    boxes = torch.tensor([BOXES, BOXES])
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet.train()
        probe = PredicateProbe(torch.nn.functional.one_hot(torch.tensor([3, 4]), 77).float(), frozenset({1}))
        background = tensors["image_tokens"][0, :2]
        batch = identity_batch(branch, subjects, background, boxes, torch.ones(2, 2), (16, 16), unet)
        out = call(unet, tensors, CrossAttentionExtras(batch, probe))
        probe.open = False
        loss = out.square().mean() + sum(seen.square().sum() for _, seen in probe.maps)
        weights = [projection.to_k_ip.weight for projection in branch.values()]
        found.append(torch.autograd.grad(loss, [subjects, *weights]))
        assert len(probe.maps) == len(weights)  # the second pass of checkpointing adds no map
    assert all(grad.abs().max() > 0 for grad in found[0])
    for once, again in zip(*found):
        torch.testing.assert_close(once, again)


def test_another_bases_branch_is_refused(host):
    unet, _ = host
    with pytest.raises(ValueError, match="2 text cross-attentions and context width 8; this one has 8 and 32"):
        identity_batch(
            IdentityBranch((8, 8), 8),
            torch.zeros(1, 1, 2, 8),
            torch.zeros(1, 8),
            torch.zeros(1, 1, 4),
            torch.ones(1, 1),
            (16, 16),
            unet,
        )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 32), (13, 40), (7, 5)])
def test_coverage_of_a_batch_is_the_layouts(height, width):
    boxes = [*BOXES, [0.15, 0.0, 0.35, 1.0], [0.05, 0.15, 0.95, 0.9]]
    expected = Layout(tuple(Box(*box) for box in boxes)).coverage(height, width)
    assert torch.equal(coverage(torch.tensor([boxes]), height, width)[0], expected)
    assert not coverage(torch.zeros(1, 1, 4), height, width).any()


def drawn(seed, *shape):
    return torch.from_numpy(np.random.RandomState(7 + seed).standard_normal(shape)).float()


def filled(module, names):
    """The fill of the published test vectors: by sorted key, seeds 1000, 1001, ..."""
    state = module.state_dict() if isinstance(module, torch.nn.Module) else dict.fromkeys(names, torch.empty(32, 48))
    for k, key in enumerate(sorted(state)):
        z = torch.from_numpy(np.random.RandomState(1000 + k).standard_normal(state[key].numel())).view(state[key].shape)
        state[key] = (z / (z.numel() / z.shape[0]) ** 0.5 if z.ndim >= 2 else 0.1 * z).float()
    return state


@pytest.fixture
def published_layer():
    """One layer of the published test vectors T4 and T5: 8 x 8 grid, 7 text, 3 background, 2 x 4 identity tokens."""
    attn = Attention(query_dim=32, cross_attention_dim=48, heads=4, dim_head=8, bias=False)
    attn.load_state_dict(filled(attn, ()))
    weights = filled(None, ("to_k_ip.weight", "to_v_ip.weight"))
    hidden, context = drawn(3, 2, 64, 32), drawn(4, 2, 18, 48)
    tokens = context[:, 7:]
    covered = coverage(torch.stack((torch.zeros(2, 4), torch.tensor(BOXES))), 8, 8)
    gains = torch.tensor([0.0] * 3 + [1.0] * 8)[:, None]
    key, value = tokens @ weights["to_k_ip.weight"].T, tokens @ weights["to_v_ip.weight"].T * gains
    batch = IdentityBatch(((key, value),), {1: as_bias(token_mask(covered, 3, 4), torch.float32)})
    processor = _Processor(attn.processor, index=0, level=1, strength=0.6)
    return attn, processor, hidden, context[:, :7], batch


def test_one_layer_equals_the_published_test_vector(published_layer):
    attn, processor, hidden, text, batch = published_layer
    with torch.no_grad():
        out = processor(attn, hidden, text, ip_hidden_states=CrossAttentionExtras(identity=batch))
    torch.testing.assert_close(
        out[0, 0, :4], torch.tensor([0.976282, 0.062249, 0.421385, -0.524858]), atol=1e-5, rtol=0
    )
    assert float(out.sum()) == pytest.approx(332.268363, abs=1e-3)
    assert float(out[1].square().sum()) == pytest.approx(857.984473, abs=1e-3)


def test_predicate_map_and_its_loss_equal_the_published_test_vector(published_layer):
    attn, processor, hidden, text, batch = published_layer
    span = torch.zeros(2, 7)
    span[:, 3:5] = 0.5
    probe = PredicateProbe(span, frozenset({1}))
    with torch.no_grad():
        processor(attn, hidden, text, ip_hidden_states=CrossAttentionExtras(batch, probe))
    looked = probe.maps[0][1].view(2, 8, 8)
    torch.testing.assert_close(looked[0, 0, :3], torch.tensor([0.168457, 0.154290, 0.113714]), atol=1e-5, rtol=0)
    assert float(looked.sum()) == pytest.approx(16.492711, abs=1e-4)
    region = torch.zeros(2, 16, 16)
    region[:, 4:12, 2:14] = 1
    loss = predicate_attention_loss([looked], region)
    torch.testing.assert_close(loss, torch.tensor([-0.01107707, -0.00082593]), atol=1e-6, rtol=0)
