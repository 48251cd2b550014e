"""Subject-Diffusion's parts: equal to the authors' modules, and the laws that hold for any weights."""

import json

import pytest
import torch

from core.subject.adapter import GatedAdapter
from core.subject.fused_prompt import fused_prompt, placeholder_positions, replace_embeddings
from core.subject.location import location_mask, mask_addition
from core.subject.losses import grid_of, localisation_loss
from core.subject.tokens import ObjectTokens
from tests import golden_tensors


@pytest.fixture(scope="module")
def golden():
    tensors, metadata = golden_tensors.read("subject_diffusion_public")
    return tensors, json.loads(metadata["config"])


def part(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def object_tokens(tensors, config):
    module = ObjectTokens(config["in_dim"], config["out_dim"], config["hidden"], config["num_tokens"])
    module.load_state_dict(part(tensors, "grounding."), strict=True)
    return module


def adapter(tensors, config):
    module = GatedAdapter(config["query_dim"], config["out_dim"], config["heads"], config["dim_head"])
    module.load_state_dict(part(tensors, "gated."), strict=True)
    return module


@torch.inference_mode()
def test_object_tokens_are_the_authors(golden):
    tensors, config = golden
    ours = object_tokens(tensors, config)(tensors["patch_tokens"], tensors["boxes"], tensors["subject_present"])
    close(ours, tensors["object_tokens"])


@torch.inference_mode()
def test_the_gated_adapter_is_the_authors(golden):
    tensors, config = golden
    close(adapter(tensors, config)(tensors["hidden"], tensors["object_tokens"]), tensors["gated_out"])


def test_the_balanced_loss_is_the_authors(golden):
    tensors, _ = golden
    batch = len(tensors["token_index"])
    maps = tensors["attn_probs"].unflatten(0, (batch, -1))
    words = tensors["token_index"], tensors["token_present"]
    ours = localisation_loss([maps], tensors["segmaps"], *words, peak_one=True)  # as the golden was made
    close(ours, tensors["localization_loss"])


@torch.inference_mode()
def test_absent_subjects_are_null_and_never_nan(golden):
    tensors, config = golden
    module = object_tokens(tensors, config)
    present = torch.tensor([[True, False]])
    patches, boxes = tensors["patch_tokens"][:1].clone(), tensors["boxes"][:1].clone()
    plain = module(patches, boxes, present)
    patches[:, 1], boxes[:, 1] = float("nan"), float("nan")
    assert torch.equal(module(patches, boxes, present), plain) and plain.isfinite().all()


@torch.inference_mode()
def test_a_single_subject_may_do_without_its_box(golden):
    tensors, config = golden
    module = object_tokens(tensors, config)
    patches, boxes = tensors["patch_tokens"][:1], tensors["boxes"][:1]
    one, two = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    moved = boxes * 0.5
    alone = module(patches, boxes, one, locate_single=False)
    assert torch.equal(alone, module(patches, moved, one, locate_single=False))
    assert not torch.equal(module(patches, boxes, one), module(patches, moved, one))
    assert not torch.equal(
        module(patches, boxes, two, locate_single=False), module(patches, moved, two, locate_single=False)
    )


@torch.inference_mode()
def test_closed_gates_and_scale_zero_are_the_base_bit_for_bit(golden):
    tensors, config = golden
    x, objects = tensors["hidden"], tensors["object_tokens"]
    assert torch.equal(GatedAdapter(config["query_dim"], config["out_dim"], 4, 10)(x, objects), x)
    assert torch.equal(adapter(tensors, config)(x, objects, scale=0.0), x)
    half = adapter(tensors, config)(x, objects, scale=torch.tensor([1.0, 0.0])[:, None, None])
    assert torch.equal(half[1], x[1])
    close(half[0], tensors["gated_out"][0])


def test_the_location_mask_is_the_published_one():
    boxes = torch.tensor([[[50, 100, 200, 400], [0, 0, 0, 0]]]) / 512
    mask = location_mask(boxes, torch.tensor([[True, False]]), 512, 512, (64, 64))
    inside = (mask[0, 0] == 0).nonzero()
    assert mask.shape == (1, 1, 64, 64) and len(inside) == 666
    assert inside.min(0).values.tolist() == [13, 7] and inside.max(0).values.tolist() == [49, 24]


def test_the_mask_of_a_wide_picture_is_drawn_along_its_own_sides_and_without_absent_subjects():
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.0, 1.0, 1.0]]])
    expected = torch.ones(1, 1, 48, 80)
    expected[..., 24:, 20:40] = 0
    assert torch.equal(location_mask(boxes, torch.tensor([[True, False]]), 384, 640, (48, 80)), expected)
    expected[..., 60:] = 0
    assert torch.equal(location_mask(boxes, torch.tensor([[True, True]]), 384, 640, (48, 80)), expected)


def test_the_fifth_channel_is_an_addition():
    generator = torch.Generator().manual_seed(0)
    conv = torch.nn.Conv2d(5, 8, 3, padding=1)
    latent = torch.randn(2, 4, 9, 7, generator=generator)
    mask = (torch.rand(2, 1, 9, 7, generator=generator) > 0.5).float()
    four = torch.nn.functional.conv2d(latent, conv.weight[:, :4], conv.bias, padding=1)
    torch.testing.assert_close(four + mask_addition(mask, conv.weight[:, 4:]), conv(torch.cat((latent, mask), 1)))


def test_losses_have_the_values_that_follow_from_their_equations():
    segment = torch.zeros(1, 2, 8, 8)
    segment[:, 0, :, :4], segment[:, 1, :, 4:] = 1, 1
    flat = segment.flatten(2).transpose(1, 2)[:, None]  # (1, 1, 64, 2): each word looks at its subject alone
    positions, present = torch.tensor([[0, 1]]), torch.ones(1, 2)
    expected = {
        ("balanced", "right"): -1.0,
        ("balanced", "wrong"): 1.0,
        ("balanced", "even"): 0.0,
        ("l1", "right"): 0.0,
        ("l1", "wrong"): 1.0,
        ("l1", "even"): 0.5,
    }
    for (form, what), value in expected.items():
        maps = {"right": flat, "wrong": 1 - flat, "even": torch.full_like(flat, 0.5)}[what]
        assert localisation_loss([maps], segment, positions, present, form) == pytest.approx(value, abs=1e-4)
    nobody = localisation_loss([flat], segment, positions, torch.zeros(1, 2))
    assert nobody == 0


def test_maps_lie_on_grids_in_the_shape_of_the_picture():
    segment = torch.zeros(1, 1, 8, 16)
    segment[..., :4, :] = 1
    upper = torch.cat((torch.ones(1, 1, 64, 1), torch.zeros(1, 1, 64, 1)), dim=2)  # 8 rows of 16: the first four
    assert localisation_loss([upper], segment, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)) == pytest.approx(
        -1.0, abs=1e-4
    )
    with pytest.raises(ValueError, match="7 positions are no grid in the shape 8 x 16"):
        grid_of(7, 8, 16)


def test_the_template_is_the_published_one():
    text = fused_prompt(" a dog and a cat playing on the beach ", ["dog", "cat"])
    assert text == "a dog and a cat playing on the beach, the dog is sks, the cat is sks"
    assert placeholder_positions([1, 48136, 3, 4, 5, 48136], 48136) == [1, 5]


@pytest.mark.parametrize("prompt, labels, said", [
    ("a sks dog", ["dog"], "already has the word 'sks'"), ("a dog", [" "], "subject 1 has no name"),
])  # fmt: skip
def test_a_prompt_that_cannot_be_fused_is_refused(prompt, labels, said):
    with pytest.raises(ValueError, match=said):
        fused_prompt(prompt, labels)


def test_embeddings_are_replaced_in_order_and_nowhere_else():
    tokens = torch.tensor([[5, 9, 6, 9], [9, 1, 2, 3]])
    embeddings = torch.arange(2 * 4 * 3, dtype=torch.float32).view(2, 4, 3)
    words = [torch.full((2, 3), -1.0) * torch.tensor([[1.0], [2.0]]), torch.full((1, 3), -3.0)]
    filled = replace_embeddings(embeddings, tokens, words, 9)
    assert filled[0, 1].tolist() == [-1] * 3 and filled[0, 3].tolist() == [-2] * 3 and filled[1, 0].tolist() == [-3] * 3
    untouched = tokens != 9
    assert torch.equal(filled[untouched], embeddings[untouched])
    with pytest.raises(ValueError, match="expected 2 subjects, one for each placeholder, got 1"):
        replace_embeddings(embeddings, tokens, [words[0][:1], words[1]], 9)
