"""The identity room against the authors' own modules (tests/golden) and its laws."""

import json

import pytest
import torch
from torch.nn import functional as F

from core.attention import as_bias, attend
from core.identity.branch import IdentityBranch, SiteProjection, image_attention
from core.identity.fourier import fourier_features
from core.identity.model import IdentityConfig, IdentityModel, SubjectFeatures
from core.identity.resampler import Resampler, ResamplerConfig
from core.identity.tokens import IdentityTokens, token_gains, token_mask
from core.scene import WHOLE_PICTURE, Box, Layout
from tests import golden_tensors


@pytest.fixture(scope="module")
def golden():
    tensors, metadata = golden_tensors.read("dreamrelation_public")
    return tensors, json.loads(metadata["config"])


def part(golden, prefix):
    return {key.removeprefix(prefix): tensor for key, tensor in golden[0].items() if key.startswith(prefix)}


def close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def resampler(golden):
    state = part(golden, "resampler.weight.")
    module = Resampler(ResamplerConfig.from_state(state, golden[1]["resampler"]["dim_head"]))
    module.load_state_dict(state)
    return module.requires_grad_(False)


def test_fourier_features_agree(golden):
    close(fourier_features(golden[0]["resampler.boxes"]), golden[0]["resampler.fourier"], 1e-5)


def test_fourier_features_hand_values():
    features = fourier_features(torch.tensor([[0, 0.2, 0.55, 0.85], [0.55, 0.26, 0.95, 0.90]]))
    close(features[0, :8], torch.tensor([0, 0.198669, 0.522687, 0.751280, 1, 0.980067, 0.852525, 0.659983]), 1e-6)
    close(features.sum(), torch.tensor(16.011810), 1e-4)


def test_fourier_features_are_of_full_precision_whatever_the_boxes_have():
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0]])
    features = fourier_features(boxes.bfloat16())
    assert features.dtype == torch.float32 and torch.equal(features, fourier_features(boxes))
    with pytest.raises(ValueError, match=r"boxes: expected shape \(S, 4\), got \(4,\)"):
        fourier_features(boxes[0])


def test_resampler_sizes_are_read_from_the_file(resampler, golden):
    config = golden[1]["resampler"]
    ours = resampler.config
    assert (ours.width, ours.depth, ours.tokens, ours.image_width, ours.context_width, ours.phrase_width) == (
        config["dim"],
        config["depth"],
        config["num_queries"],
        config["embedding_dim"],
        config["output_dim"],
        config["phrase_embeddings_dim"],
    )


def test_resampler_agrees(resampler, golden):
    inputs = part(golden, "resampler.")
    close(resampler(inputs["x"], inputs["phrase_embeds"], inputs["boxes"]), inputs["out"])


def test_resampler_agrees_with_learned_latents(resampler, golden):
    inputs = part(golden, "resampler.")
    grounded = torch.tensor([True, True, False, False])  # the second item of two, two subjects each
    close(resampler(inputs["x"], inputs["phrase_embeds"], inputs["boxes"], grounded), inputs["out_second_dropped"])


def test_resampler_ignores_the_order_of_image_tokens(resampler, golden):
    inputs = part(golden, "resampler.")
    shuffled = inputs["x"][:, torch.randperm(21, generator=torch.Generator().manual_seed(0))]
    close(resampler(shuffled, inputs["phrase_embeds"], inputs["boxes"]), inputs["out"], 1e-5)


def test_a_new_resampler_begins_with_latents_of_length_1():
    lengths = Resampler(ResamplerConfig(1024, 0, 64, 64, 4, 6, 8, 8, 5)).grounding_latents.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(1, 4), atol=0.15, rtol=0)


def test_a_resampler_of_half_precision_takes_boxes_of_full_precision():
    module = Resampler(ResamplerConfig(16, 1, 4, 8, 2, 6, 10, 12, 5)).bfloat16()
    tokens, phrases, boxes = torch.ones(2, 3, 6).bfloat16(), torch.ones(2, 5).bfloat16(), torch.rand(2, 4)
    assert module(tokens, phrases, boxes).dtype == torch.bfloat16


def test_resampler_names_the_wrong_input(resampler, golden):
    inputs = part(golden, "resampler.")
    with pytest.raises(ValueError, match=r"image tokens: expected shape \(S, L, W\) with W = 40, got \(4, 21, 39\)"):
        resampler(inputs["x"][..., 1:], inputs["phrase_embeds"], inputs["boxes"])
    with pytest.raises(ValueError, match=r"phrase embeddings: expected shape \(S, P\) with S = 4, P = "):
        resampler(inputs["x"], inputs["phrase_embeds"][:1], inputs["boxes"])
    with pytest.raises(ValueError, match=r"boxes: expected shape \(S, 4\) with S = 4, got \(1, 4\)"):
        resampler(inputs["x"], inputs["phrase_embeds"], inputs["boxes"][:1])


def parallel(golden, weights, gamma, background_gain=0.0, subjects=None, mask_form=lambda mask: mask):
    """One cross-attention with its image branch, from our parts; rows: conditional, unconditional (zero boxes)."""
    p, sizes = part(golden, "parallel_attention."), golden[1]["parallel_attention"]
    heads, side, t0 = sizes["heads"], sizes["side"], sizes["num_dummy_tokens"]
    query = F.linear(p["hidden"], p["attn.to_q.weight"])
    text = attend(query, F.linear(p["text"], p["attn.to_k.weight"]), F.linear(p["text"], p["attn.to_v.weight"]), heads)
    site = SiteProjection(32, 32)
    site.load_state_dict(part(golden, "parallel_attention.processor."))
    boxes = [Box(*box.tolist()) for box in p["boxes"][0]]
    coverage = Layout(tuple(boxes)).coverage(side, side)
    tokens = p["image_tokens"][:1]
    if subjects is not None:  # the same subjects in another order
        coverage = coverage[list(subjects)]
        pieces = tokens[:, t0:].unflatten(1, (2, -1))[:, list(subjects)].flatten(1, 2)
        tokens = torch.cat((tokens[:, :t0], pieces), dim=1)
        weights = weights[list(subjects)]
    mask = token_mask(coverage, t0, sizes["num_tokens"])
    gains = token_gains(weights, t0, sizes["num_tokens"], background_gain)
    with torch.no_grad():
        key, value = site(tokens, gains)
        image = image_attention(query[:1], key, value, heads, mask_form(mask))
    hidden = torch.cat((text[:1] + gamma * image, text[1:]))
    return F.linear(hidden, p["attn.to_out.0.weight"], p["attn.to_out.0.bias"])


def test_parallel_attention_agrees(golden):
    close(parallel(golden, torch.ones(2), 0.6), golden[0]["parallel_attention.out"])


def test_parallel_attention_agrees_with_an_additive_mask(golden):
    out = parallel(golden, torch.ones(2), 0.6, mask_form=lambda mask: as_bias(mask, torch.float32))
    close(out, golden[0]["parallel_attention.out"])


def test_parallel_attention_agrees_with_subject_weights(golden):
    out = parallel(golden, torch.tensor([0.9, 0.3]), 1.0)
    close(out, golden[0]["parallel_attention.out_subject_scales_0.9_0.3"])


def test_parallel_attention_agrees_with_background_tokens(golden):
    out = parallel(golden, torch.ones(2), 0.6, background_gain=1.0)
    close(out[:1], golden[0]["parallel_attention.out_background_not_zeroed"][:1])


def test_swapping_subjects_with_their_boxes_changes_nothing(golden):
    out = parallel(golden, torch.tensor([0.9, 0.3]), 0.6)
    close(parallel(golden, torch.tensor([0.9, 0.3]), 0.6, subjects=(1, 0)), out, 1e-6)


def branch_inputs(seed=0, cells=(6, 10), tokens=3, width=8):
    draw = torch.Generator().manual_seed(seed)
    query, sequence = (
        torch.randn(1, cells[0] * cells[1], width, generator=draw),
        torch.randn(1, 2 + 2 * tokens, width, generator=draw),
    )
    return query, sequence


def test_a_subject_acts_inside_its_own_box_only():
    query, sequence = branch_inputs()
    coverage = Layout((Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1))).coverage(6, 10)
    mask, gains = token_mask(coverage, 2, 3), token_gains(torch.ones(2), 2, 3)
    before = image_attention(query, sequence, sequence * gains[:, None], 2, mask)
    changed = sequence.clone()
    changed[:, 5:] += 1  # the second subject's tokens
    after = image_attention(query, changed, changed * gains[:, None], 2, mask)
    moved = (before != after).any(dim=-1).view(6, 10)
    assert torch.equal(moved, coverage[1])


def test_cells_outside_every_box_get_exactly_nothing():
    query, sequence = branch_inputs()
    coverage = Layout((Box(0, 0, 0.3, 0.5), Box(0.6, 0.4, 1, 1))).coverage(6, 10)
    mask, gains = token_mask(coverage, 2, 3), token_gains(torch.ones(2), 2, 3)
    out = image_attention(query, sequence, sequence * gains[:, None], 2, mask)[0]
    outside = ~coverage.any(dim=0).flatten()
    assert out[outside].abs().max() == 0
    assert out[~outside].abs().amin(dim=-1).min() > 0


def test_zero_weights_give_exactly_zero():
    query, sequence = branch_inputs()
    mask = token_mask(torch.ones(2, 6, 10, dtype=torch.bool), 2, 3)
    value = sequence * token_gains(torch.zeros(2), 2, 3)[:, None]
    assert image_attention(query, sequence, value, 2, mask).abs().max() == 0


def test_a_subject_of_weight_0_takes_nothing_from_one_that_shares_its_cells():
    torch.manual_seed(0)
    branch, background, subjects = IdentityBranch((32,), 48), torch.randn(2, 48), torch.randn(2, 4, 48)

    def attended(count):
        layout, weights = Layout((WHOLE_PICTURE,) * count), torch.tensor([1.0, 0.0][:count])
        projected = branch.project(IdentityTokens(subjects[:count], background, layout, weights))
        query = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(1))
        return image_attention(query, *projected.sites[0], 4, projected.mask(layout.coverage(4, 4)))

    torch.testing.assert_close(attended(2), attended(1))
    assert attended(1).abs().amin() > 0


def test_each_picture_of_a_batch_has_its_own_mask():
    generator = torch.Generator().manual_seed(0)
    query, sequence = torch.randn(2, 6, 8, generator=generator), torch.randn(1, 5, 8, generator=generator)
    mask = torch.rand(2, 6, 5, generator=generator) > 0.5
    mask[..., 0] = True  # no row is empty
    apart = [image_attention(query[i : i + 1], sequence, sequence, 2, mask[i]) for i in range(2)]
    torch.testing.assert_close(image_attention(query, sequence, sequence, 2, mask), torch.cat(apart))
    with pytest.raises(ValueError, match=r"identity mask: expected shape \(B, N\) with N = 6, got \(2, 5\)"):
        image_attention(query, sequence, sequence, 2, mask[:, :5])


def tokens_of_two(**changes):
    fields = {"subjects": torch.ones(2, 3, 4), "background": torch.zeros(2, 4), "layout": Layout((WHOLE_PICTURE,) * 2)}
    return IdentityTokens(**fields | {"weights": torch.tensor([0.5, 2.0])} | changes)


def test_gains_stand_in_the_order_of_the_tokens():
    assert tokens_of_two().gains.tolist() == [0, 0, 0.5, 0.5, 0.5, 2, 2, 2]  # as released: no background
    assert tokens_of_two(background_gain=1.0).gains.tolist() == [1, 1, 0.5, 0.5, 0.5, 2, 2, 2]
    assert (
        tokens_of_two().sequence.shape == (1, 8, 4) and tokens_of_two().sequence[0, :, 0].tolist() == [0] * 2 + [1] * 6
    )
    batch = token_gains(torch.tensor([[0.5], [2.0]]).bfloat16(), 1, 2)
    assert batch.dtype == torch.bfloat16 and batch.tolist() == [[0, 0.5, 0.5], [0, 2, 2]]


@pytest.mark.parametrize(("changes", "message"), [
    ({"subjects": torch.ones(2, 3)}, r"identity tokens: expected shape \(S, T, D\)"),
    ({"background": torch.ones(2, 5)}, r"background tokens: expected shape \(T0, D\) with D = 4"),
    ({"weights": torch.ones(3)}, r"subject weights: expected shape \(S\) with S = 2"),
    ({"layout": Layout((WHOLE_PICTURE,))}, "layout: expected 2 boxes, one a subject, got 1"),
])  # fmt: skip
def test_identity_tokens_fit_each_other(changes, message):
    with pytest.raises(ValueError, match=message):
        tokens_of_two(**changes)


def test_on_the_cpu_it_is_the_same_identity():
    projected = IdentityBranch((8,), 4).project(tokens_of_two(background_gain=1.0))
    moved = projected.cpu()
    assert moved.tokens.background_gain == 1 and moved.tokens.layout == projected.tokens.layout
    for name in ("subjects", "background", "weights"):
        assert torch.equal(getattr(moved.tokens, name), getattr(projected.tokens, name))
    assert all(torch.equal(*sides) for sides in zip(moved.sites[0], projected.sites[0]))


def test_a_branch_projects_in_the_precision_of_the_tokens_and_refuses_those_of_another_width():
    branch = IdentityBranch((8, 16), 4).bfloat16()
    tokens = tokens_of_two(subjects=torch.ones(2, 3, 4).bfloat16(), background=torch.zeros(2, 4).bfloat16())
    projected = branch.project(tokens)
    assert projected.widths == (8, 16) and {side.dtype for site in projected.sites for side in site} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"identity tokens: expected shape \(1, M, D\) with D = 5, got \(1, 8, 4\)"):
        IdentityBranch((8,), 5).project(tokens_of_two())


def test_a_mask_of_another_grid_is_refused():
    query, sequence = branch_inputs()
    mask = token_mask(torch.ones(2, 6, 9, dtype=torch.bool), 2, 3)
    with pytest.raises(ValueError, match="identity mask: expected shape .N. with N = 60, got .54,."):
        image_attention(query, sequence, sequence, 2, mask)


SMALL = IdentityConfig(ResamplerConfig(16, 1, 4, 8, 2, 6, 10, 12, 5), tuple(range(8, 14)), 3)


def test_sizes_are_read_from_a_state_in_any_order():
    """Files list site 11 before site 3."""
    state = IdentityModel(SMALL).state_dict()
    assert IdentityConfig.from_state({key: state[key] for key in sorted(state)}, 4) == SMALL


@torch.inference_mode()
@pytest.mark.parametrize("grounded", [True, False])
def test_each_subject_is_read_from_its_own_photographs_name_and_box(grounded):
    model = IdentityModel(SMALL)
    photographs, phrases = (torch.randn(7, 6), torch.randn(3, 6), torch.randn(7, 6)), torch.randn(3, 5)
    layout = Layout((Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1), Box(0.25, 0.25, 0.75, 0.75)))
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    tokens = model.extract(SubjectFeatures(photographs, phrases), layout, weights, grounded)
    for index, own in enumerate(photographs):
        flag = torch.tensor([grounded])
        alone = model.image_proj(own[None], phrases[index, None], layout.tensor()[index, None], flag)
        close(tokens.subjects[index], alone[0], 1e-6)
    assert tokens.background_gain == 0 and torch.equal(tokens.background, model.dummy_image_tokens[0])
    assert tokens.weights.dtype == torch.float32 and tokens.weights.tolist() == [1, 0.5, 2] and tokens.layout == layout
    with pytest.raises(ValueError, match=r"boxes: expected shape \(S, 4\) with S = 3, got \(2, 4\)"):
        model.extract(SubjectFeatures(photographs, phrases), Layout(layout.boxes[:2]), weights)


@torch.inference_mode()
def test_subjects_are_grounded_unless_asked_otherwise():
    model, layout = IdentityModel(SMALL), Layout((Box(0, 0, 0.5, 1),))
    features = SubjectFeatures((torch.randn(3, 6),), torch.randn(1, 5))
    usual, grounded, learned = (
        model.extract(features, layout, torch.ones(1), *flag) for flag in ((), (True,), (False,))
    )
    assert torch.equal(usual.subjects, grounded.subjects) and not torch.equal(usual.subjects, learned.subjects)
