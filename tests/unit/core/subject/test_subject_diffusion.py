"""Subject-Diffusion's parts: equal to the authors' modules, and the laws that hold for any weights."""

import json

import pytest
import torch

from core.subject.adapter import GatedAdapter
from core.subject.blocks import ALL, FIRST, UP, are_chosen, chosen_blocks
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
def test_each_row_of_a_batch_is_made_alone(golden):
    """Of a row of one subject and one of two, without boxes for one alone."""
    tensors, config = golden
    module = object_tokens(tensors, config)
    patches, boxes = tensors["patch_tokens"][:1].repeat(2, 1, 1, 1), tensors["boxes"][:1].repeat(2, 1, 1)
    patches[1] *= 0.5
    present = torch.tensor([[True, False], [True, True]])
    together = module(patches, boxes, present, locate_single=False)
    for row in range(2):
        close(together[row], module(patches[row, None], boxes[row, None], present[row, None], locate_single=False)[0])
    assert not torch.equal(together[0], module(patches, boxes, present)[0])


@torch.inference_mode()
def test_rows_that_do_not_act_have_the_scale_0(golden):
    tensors, config = golden
    inputs = tensors["patch_tokens"], tensors["boxes"], tensors["subject_present"]
    acting = torch.tensor([True, False])
    objects, scale = object_tokens(tensors, config)(*inputs, acting=acting)
    close(objects, tensors["object_tokens"])
    assert scale.dtype == objects.dtype and torch.equal(scale[:, 0, 0], torch.tensor([1.0, 0.0]))
    out = adapter(tensors, config)(tensors["hidden"], (objects, scale))
    assert torch.equal(out[1], tensors["hidden"][1])
    close(out[0], tensors["gated_out"][0])


@torch.inference_mode()
def test_half_precision_stays_so(golden):
    tensors, config = golden
    module, gated = object_tokens(tensors, config).bfloat16(), adapter(tensors, config).bfloat16()
    objects = module(tensors["patch_tokens"].bfloat16(), tensors["boxes"], tensors["subject_present"])
    out = gated(tensors["hidden"].bfloat16(), objects, torch.ones(2, 1, 1))
    assert objects.dtype == out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), tensors["gated_out"], atol=0.1, rtol=0.1)
    mask = torch.ones(1, 1, 4, 4)
    assert mask_addition(mask, torch.ones(3, 1, 3, 3).half()).dtype == torch.float16


def test_inputs_that_do_not_fit_each_other_are_named(golden):
    tensors, config = golden
    module, gated = object_tokens(tensors, config), adapter(tensors, config)
    patches, boxes, present = tensors["patch_tokens"], tensors["boxes"], tensors["subject_present"]
    for wrong, said in (
        ((patches[..., 1:], boxes, present), "patch tokens: expected shape"),
        ((patches[:, :, 1:], boxes, present), "patch tokens: expected shape"),
        ((patches, boxes[:1], present), r"boxes: expected shape \(B, S, 4\) with B = 2, S = 2"),
        ((patches, boxes[:, :1], present), r"boxes: expected shape \(B, S, 4\) with B = 2, S = 2"),
        ((patches, boxes, present[:1]), r"subjects present: expected shape \(B, S\) with B = 2, S = 2"),
        ((patches, boxes, present[:, :1]), r"subjects present: expected shape \(B, S\) with B = 2, S = 2"),
    ):
        with pytest.raises(ValueError, match=said):
            module(*wrong)
    with pytest.raises(ValueError, match=r"object tokens: expected shape \(B, M, D\) with B = 2"):
        gated(tensors["hidden"], tensors["object_tokens"][:1])
    for wrong in (torch.ones(1, 1), torch.ones(2, 2)):
        with pytest.raises(ValueError, match=r"subjects present: expected shape \(B, S\) with B = 1, S = 2"):
            location_mask(torch.zeros(1, 2, 4), wrong, 8, 8, (1, 1))


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


def test_edges_of_the_mask_are_rounded_to_pixels():
    boxes = torch.tensor([[[0.26, 0.24, 0.74, 0.76]]])  # 2.6, 2.4, 7.4, 7.6
    mask = location_mask(boxes, torch.ones(1, 1), 10, 10, (10, 10))
    inside = (mask[0, 0] == 0).nonzero()
    assert inside.amin(0).tolist() == [2, 3] and inside.amax(0).tolist() == [7, 6] and len(inside) == 6 * 4


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


@pytest.mark.parametrize("form", ["balanced", "l1"])
@pytest.mark.parametrize("peak_one", [False, True])
def test_losses_word_by_word(form, peak_one):
    """Two layers, two pictures of 3 x 4 cells, two heads, two words; the second picture has one of them."""
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(2, 2, 12, 5, generator=generator) for _ in range(2)]
    segments = torch.rand(2, 2, 3, 4, generator=generator)
    positions, present = torch.tensor([[3, 1], [2, 99]]), torch.tensor([[True, True], [True, False]])
    expected = []
    for layer in layers:
        for picture in range(2):
            for head in range(2):
                errors = []
                for word in range(1 + int(present[picture, 1])):
                    attention = layer[picture, head, :, positions[picture, word]]
                    attention = attention / attention.max() if peak_one else attention
                    subject = segments[picture, word].flatten()
                    outside, inside = (float((attention * part).sum() / part.sum()) for part in (1 - subject, subject))
                    errors.append(outside - inside if form == "balanced" else float((attention - subject).abs().mean()))
                expected.append(sum(errors) / len(errors))
    found = localisation_loss(layers, segments, positions, present, form, peak_one)
    assert found == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    if not peak_one:
        assert found == localisation_loss(layers, segments, positions, present, form)
    half = localisation_loss([layer.half() for layer in layers], segments.half(), positions, present, form, peak_one)
    assert half.dtype == torch.float32 and half == pytest.approx(float(found), abs=2e-3)


def test_losses_of_nothing_and_of_other_shapes_are_refused():
    maps, segments, two = torch.ones(1, 1, 4, 3), torch.ones(1, 2, 2, 2), torch.zeros(1, 2, dtype=torch.long)
    for given, said in (
        (([], segments, two, two), "expected maps of at least one layer and a form of balanced, l1, got 0 maps"),
        (([maps], segments, two, two, "l2"), "got 1 maps and 'l2'"),
        (([maps], segments, two[:, :1], two), r"positions of words: expected shape \(B, K\) with B = 1, K = 2"),
        (([maps], segments, two.repeat(2, 1), two), r"positions of words: expected shape"),
        (([maps], segments, two, two[:, :1]), r"words present: expected shape \(B, K\) with B = 1, K = 2"),
        (([maps], segments, two, two.repeat(2, 1)), r"words present: expected shape"),
        (([maps.repeat(2, 1, 1, 1)], segments, two, two), r"attention: expected shape \(B, heads, N, T\) with B = 1"),
    ):
        with pytest.raises(ValueError, match=said):
            localisation_loss(*given)
    with pytest.raises(ValueError, match="1 positions are no grid in the shape 1 x 16"):
        grid_of(1, 1, 16)


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
    assert torch.equal(embeddings.flatten(), torch.arange(24.0))  # the input is left as it was
    with pytest.raises(ValueError, match="expected 2 subjects, one for each placeholder, got 1"):
        replace_embeddings(embeddings, tokens, [words[0][:1], words[1]], 9)


def test_blocks_are_all_the_first_of_each_stack_or_those_on_the_way_up():
    blocks = {"down_blocks.1.transformer_blocks.0": 8, "down_blocks.1.transformer_blocks.10": 8,
              "mid_block.transformer_blocks.0": 16, "up_blocks.0.transformer_blocks.1": 16}  # fmt: skip
    names = list(blocks)
    chosen = {which: list(chosen_blocks(blocks, which)) for which in (ALL, FIRST, UP)}
    assert chosen == {ALL: names, FIRST: [names[0], names[2]], UP: names[3:]}
    assert all(are_chosen(chosen_blocks(blocks, which), blocks) for which in chosen)
    assert not are_chosen({names[1]: 8}, blocks) and not are_chosen({names[3]: 17}, blocks)
