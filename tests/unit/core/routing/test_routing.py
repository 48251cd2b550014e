"""Where reference tokens stand, what is added to them, and which of them answers: by hand and by law."""

import math

import pytest
import torch

from core.routing.call_layout import CallLayout, Parts
from core.routing.image_prep import cut_face, on_8_bits, on_white, prepare, published_size, resize
from core.routing.placeholders import faults, numbers_in
from core.routing.routing import Routing
from core.routing.routing_map import Recorder, RoutingMap, in_picture, logit_map, mass_map, otsu_mask
from core.routing.token_layout import (
    DreamOEmbeddings,
    Reference,
    TokenLayout,
    next_slot,
    positions,
    token_grid,
    with_reference,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference(slot, **fields):
    return Reference(random(1, 16, 4, 6, seed=slot), "subject", slot, **fields)


@pytest.mark.parametrize(("size", "resolution", "wanted"), [
    ((768, 1024), 512, (432, 576)), ((1080, 1920), 512, (384, 672)), ((600, 400), 512, (624, 416)),
    ((100, 3000), 512, (80, 2800)), ((333, 777), 512, (320, 768)), ((64, 64), 512, (512, 512)),
    ((512, 512), 512, (512, 512)), ((768, 1024), 1024, (880, 1168)), ((1080, 1920), 1024, (768, 1360)),
    ((191, 264), 512, (432, 592)), ((1008, 928), 512, (528, 480)), ((612, 408), 512, (624, 416)),
    ((1536, 1150), 512, (576, 432)), ((225, 225), 512, (512, 512)),
])  # fmt: skip
def test_the_published_sizes(size, resolution, wanted):
    assert published_size(*size, resolution) == wanted


def test_an_extreme_picture_keeps_one_token_a_side():
    assert published_size(1, 100_000, 512) == (16, 161904)


def test_shrinking_averages_areas():
    picture = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(resize(picture, 1, 2), torch.tensor([[4.5, 6.5]]))
    # 3 columns to 2: each takes one column and half of the middle one
    torch.testing.assert_close(resize(torch.tensor([[0.0, 3.0, 6.0]]), 1, 2), torch.tensor([[1.0, 5.0]]))


def test_enlarging_is_linear_between_neighbours():
    row = torch.tensor([[0.0, 1.0]])
    # 2 cells to 3: the middle one straddles the border half and half, the outer ones are copies
    torch.testing.assert_close(resize(row, 1, 3), torch.tensor([[0.0, 0.5, 1.0]]))
    torch.testing.assert_close(resize(row, 1, 4), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))


@pytest.mark.parametrize("size", [(7, 5), (31, 2), (1, 64), (16, 16)])
def test_a_flat_picture_stays_flat_at_any_size(size):
    torch.testing.assert_close(resize(torch.full((3, 13, 9), 0.25), *size), torch.full((3, *size), 0.25))


def test_what_the_mask_leaves_out_is_white():
    picture, mask = torch.zeros(3, 2, 2), torch.tensor([[1.0, 0.0], [0.5, 0.0]])
    assert torch.equal(on_white(picture, mask)[0], torch.tensor([[0.0, 1.0], [0.5, 1.0]]))


def test_a_face_is_cut_to_a_square_with_white_beyond_the_picture():
    mask = torch.zeros(20, 30)
    mask[:10, 25:] = 1.0
    face = cut_face(torch.zeros(3, 20, 30), mask)
    assert face.shape == (3, 11, 11) and face[:, 1:, :].min() == 0
    assert (face == 0).sum() == 3 * 10 * 5 and face.max() == 1


HALF = torch.zeros(32, 48)
HALF[:, :24] = 1.0


@pytest.mark.parametrize(("task", "mask", "size", "white"), [
    ("subject", HALF, (64, 96), 0.5), ("try-on", HALF, (64, 96), 0.5), ("style", HALF, (64, 96), 0.0),
    ("subject", None, (64, 96), 0.0), ("identity", None, (64, 96), 0.0),
    ("identity", HALF, (80, 80), None),  # a square of the side, cut to whole tokens
])  # fmt: skip
def test_a_reference_is_prepared_for_its_task(task, mask, size, white):
    found = prepare(torch.full((3, 32, 48), 0.2001), mask, task, 90)
    assert found.shape == (3, *size) and torch.equal(found, on_8_bits(found))
    if white is not None:
        assert (found == 1).float().mean() == white
        assert (found[..., : 48 if white else 96] == on_8_bits(torch.tensor(0.2))).all()
    else:
        assert (found[:, 40, 40] < 0.3).all() and (found[..., -4:] > 0.9).all()


@pytest.mark.parametrize(("picture", "mask", "message"), [
    (math.nan, None, r"image: expected numbers in \[0, 1\], got NaN"),
    (0.5, torch.full((4, 4), 0.5), "mask: expected some of the picture to keep"),
    (0.5, torch.ones(4, 5), r"mask: expected shape \(H, W\) with H = 4, W = 4, got \(4, 5\)"),
])  # fmt: skip
def test_a_reference_that_cannot_be_prepared(picture, mask, message):
    pixels = torch.full((3, 4, 4), 0.5)
    pixels[1, 2, 3] = picture
    with pytest.raises(ValueError, match=message):
        prepare(pixels, mask, "subject", 512)


def test_eight_bits_keep_every_8_bit_value():
    levels = torch.arange(256.0) / 255
    assert torch.equal(on_8_bits(levels), levels)


def test_positions_of_the_worked_example():
    """1024 x 768 picture, references of 512 x 512 and 416 x 624 pixels: 48 x 64, 32 x 32 and 39 x 26 tokens."""
    ids = positions((48, 64), ((32, 32), (39, 26)))
    assert ids.dtype == torch.float32 and ids.shape == (32 * 32 + 39 * 26, 3)
    first, second = ids[:1024], ids[1024:]
    assert first[0].tolist() == [0, 48, 64] and first[-1].tolist() == [0, 79, 95]
    assert first[1].tolist() == [0, 48, 65] and first[32].tolist() == [0, 49, 64]
    assert second[0].tolist() == [0, 80, 96] and second[-1].tolist() == [0, 118, 121]


def test_positions_do_not_collide_where_bfloat16_ones_do():
    ids = positions((200, 200), ((320, 1),))[:, 1]
    assert len(ids.unique()) == 320 and len(ids.bfloat16().unique()) == 187


def test_an_odd_latent_is_rounded_up_to_tokens():
    assert token_grid(9, 7) == (5, 4) and token_grid(8, 2) == (4, 1)


def test_the_added_embeddings():
    tables = DreamOEmbeddings(random(2, 8), random(10, 8, seed=1))
    added = tables.embedding(3, (2, 1), (4, 9))
    assert added.shape == (1, 6, 8)
    assert torch.equal(added[0, :3], tables.task[1].expand(3, -1))
    assert torch.equal(added[0, 3], tables.task[0] + tables.index[4]) and torch.equal(added[0, 3], added[0, 4])
    assert torch.equal(added[0, 5], tables.task[0] + tables.index[9])


def test_rows_are_summed_in_the_tables_own_dtype():
    tables = DreamOEmbeddings(random(2, 8).bfloat16(), random(10, 8, seed=1).bfloat16())
    assert torch.equal(tables.embedding(0, (1,), (2,))[0, 0], tables.task[0] + tables.index[2])


def test_misshapen_tables_are_named():
    with pytest.raises(ValueError, match=r"dreamo_idx_embedding.weight: expected shape \(10, D\) with D = 8, got"):
        DreamOEmbeddings(random(2, 8), random(10, 9))


def test_references_stand_in_the_order_of_their_slots():
    one, two = reference(1), reference(2)
    assert with_reference((two,), one) == with_reference((one,), two) == (one, two)
    assert next_slot((two,)) == 1 and next_slot((one, two)) == 3


def test_a_slot_taken_and_a_tenth_reference_are_refused():
    with pytest.raises(ValueError, match="reference 2: expected a free slot"):
        with_reference((reference(2),), reference(2))
    with pytest.raises(ValueError, match="expected at most 9"):
        next_slot(tuple(reference(slot) for slot in range(1, 10)))


def test_all_faults_of_a_reference_in_one_error():
    with pytest.raises(ValueError, match=r"reference 12: image: .*NaN.*; task: .*; slot: .*; weight: .*; region: .*"):
        Reference(torch.full((1, 16, 4, 4), math.nan), "ip", 12, torch.zeros(4, 4), -1.0)
    with pytest.raises(ValueError, match=r"latent: expected .* of one picture, got \(2, 16, 4, 4\)"):
        Reference(torch.zeros(2, 16, 4, 4), "subject", 1)


def test_any_other_reference_of_the_slot_takes_it():
    with pytest.raises(ValueError, match="reference 2: expected a free slot"):
        with_reference((reference(1), reference(2)), reference(2))


@pytest.mark.parametrize(("latent", "fields", "message"), [
    (torch.zeros(16, 4, 4), {}, r"latent: expected .* of one picture, got \(16, 4, 4\)"),
    (torch.zeros(1, 4, 4), {}, r"latent: expected .* of one picture, got \(1, 4, 4\)"),
    (torch.zeros(1, 16, 2, 4, 4), {}, r"latent: expected .* of one picture, got \(1, 16, 2, 4, 4\)"),
    (torch.tensor([0.0, math.inf]).view(1, 1, 1, 2), {}, "image: expected numbers in .0, 1., got NaN or infinity"),
    (torch.zeros(1, 16, 4, 4), {"weight": math.inf}, "weight: expected a number from 0 up, got inf"),
    (torch.zeros(1, 16, 4, 4), {"weight": math.nan}, "weight: expected a number from 0 up, got nan"),
    (torch.zeros(1, 16, 4, 4), {"region": torch.ones(1, 4, 4)}, r"region: expected shape \(H, W\), got \(1, 4, 4\)"),
])  # fmt: skip
def test_what_is_no_reference(latent, fields, message):
    with pytest.raises(ValueError, match=message):
        Reference(latent, "subject", 1, **fields)


def test_a_reference_has_a_token_for_four_cells_also_as_a_single_frame():
    assert reference(1, weight=0.0).grid == (2, 3)
    assert Reference(torch.zeros(1, 16, 1, 4, 6), "style", 9).grid == (2, 3)


def test_a_misshapen_table_of_words_is_named():
    with pytest.raises(ValueError, match=r"dreamo_t5_embedding.weight: expected shape \(10, E\), got \(9, 4\)"):
        DreamOEmbeddings(random(2, 8), random(10, 8), random(9, 4))


SEQUENCE = TokenLayout(text=3, image=(2, 4), references=((1, 2), (3, 1)), others=2)


def test_the_sequence():
    assert SEQUENCE.size == 3 + 8 + 2 + 2 + 3
    assert SEQUENCE.image_tokens == slice(3, 11)
    assert SEQUENCE.reference_tokens(0) == slice(13, 15) and SEQUENCE.reference_tokens(1) == slice(15, 18)


def test_the_spans_of_the_sequence():
    layout = SEQUENCE.layout(((2,), ()))
    assert (layout.size, layout.grid, layout.image, layout.text) == (18, (2, 4), (3, 11), ((0, 3),))
    assert layout.references == (((13, 15),), ((15, 18),)) and layout.copies == (((2, 3),), ())
    with pytest.raises(ValueError, match=r"layout: expected 2 x 2 x 3 picture tokens, got the span \(1, 12\)"):
        CallLayout(20, (2, 3), (1, 12), (), (), frames=2)


def test_parts_stand_one_after_another():
    parts = Parts().add("text", 3).add("image", 8).add(0, 2)
    assert parts.size == 13 and parts.spans == {"text": (0, 3), "image": (3, 11), 0: (11, 13)}


def test_the_logit_map_is_equation_2_token_by_token():
    query, key = random(2, 3, SEQUENCE.size, 4), random(2, 3, SEQUENCE.size, 4, seed=1)
    found = logit_map(query, key, SEQUENCE.layout())
    assert found.shape == (2, 2, 2, 4)
    for index, tokens in enumerate((range(13, 15), range(15, 18))):
        products = torch.stack([query[:, :, token, None] @ key[:, :, 3:11].transpose(-1, -2) for token in tokens])
        by_hand = (products / 2).mean(dim=(0, 2)).reshape(2, 2, 4)  # sqrt(4) = 2
        torch.testing.assert_close(found[:, index], by_hand, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_mass_map_is_the_softmax_over_everything(chunk):
    query, key = random(1, 2, SEQUENCE.size, 4), random(1, 2, SEQUENCE.size, 4, seed=1)
    shares = (query @ key.transpose(-1, -2) / 2).softmax(-1).mean(dim=1)
    found = mass_map(query, key, SEQUENCE.layout(), chunk)
    torch.testing.assert_close(found[0, 1].flatten(), shares[0, 3:11, 15:18].sum(-1))


def test_the_mass_map_counts_all_spans_of_a_reference_and_the_bias():
    layout = CallLayout(12, (2, 3), (1, 7), (), (((0, 1), (9, 12)), ((7, 9),)))
    query, key, bias = random(2, 2, 12, 4), random(2, 2, 12, 4, seed=1), random(12, 12, seed=2)
    shares = (query @ key.mT / 2 + bias).softmax(dim=-1).mean(dim=1)[:, 1:7]
    of_first = shares[..., 0] + shares[..., 9:].sum(dim=-1)
    by_hand = torch.stack((of_first, shares[..., 7:9].sum(dim=-1)), dim=1).reshape(2, 2, 2, 3)
    torch.testing.assert_close(mass_map(query, key, layout, 4, bias), by_hand)


def test_otsu_splits_two_heaps():
    values = torch.cat((torch.linspace(0, 1, 30), torch.linspace(5, 6, 10))).reshape(2, 20)
    assert torch.equal(otsu_mask(values[None])[0], (values > 3).float())
    assert otsu_mask(torch.ones(1, 4, 4)).sum() == 0


def test_otsus_threshold_separates_the_classes_most_of_all_edges_of_256():
    maps = (random(2, 3, 40, 50).exp() + 3).half()
    masks = otsu_mask(maps)
    assert masks.shape == maps.shape and masks.dtype == torch.float32
    for values, mask in zip(maps.float().flatten(0, 1), masks.flatten(0, 1)):
        low, high = values.min(), values.max()
        bins = ((values - low) / (high - low) * 256).floor().clamp(max=255)
        apart = []
        for edge in range(1, 256):
            one, other = bins[bins < edge], bins[bins >= edge]
            apart.append(len(one) * len(other) * float(one.mean() - other.mean()) ** 2)
        threshold = low + (high - low) * (apart.index(max(apart)) + 1) / 256
        assert torch.equal(mask, (values > threshold).float())


def test_a_map_that_is_no_numbers_is_high_nowhere():
    assert otsu_mask(torch.full((1, 2, 2), math.nan)).sum() == 0


@pytest.mark.parametrize("kind", [logit_map, mass_map])
def test_a_map_is_made_in_full_precision_and_of_its_own_layout_only(kind):
    query, key = random(1, 2, SEQUENCE.size, 4).bfloat16(), random(1, 2, SEQUENCE.size, 4, seed=1).bfloat16()
    found = kind(query, key, SEQUENCE.layout())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, kind(query.float(), key.float(), SEQUENCE.layout()), atol=1e-3, rtol=1e-2)
    with pytest.raises(ValueError, match=r"queries: expected shape \(B, H, S, d\) with S = 18, got \(1, 2, 17, 4\)"):
        kind(query[:, :, 1:], key, SEQUENCE.layout())


def test_maps_and_slots_fit_each_other():
    with pytest.raises(ValueError, match=r"routing maps: expected shape \(K, B, R, h, w\) with R = 2, got \(1, 1, 1,"):
        RoutingMap(torch.zeros(1, 1, 1, 2, 2), (1, 2), 1)


@pytest.mark.parametrize("kv_heads", [6, 3, 2])
def test_the_logit_map_of_grouped_queries_and_frames(kv_heads):
    layout = CallLayout(20, (2, 3), (0, 12), (), (((12, 15), (19, 20)), ((15, 19),)), frames=2)
    query, key = random(1, 6, 20, 4), random(1, kv_heads, 20, 4, seed=1)
    wide = key.repeat_interleave(6 // kv_heads, dim=1)
    products = (query @ wide.transpose(-1, -2) / 2).mean(dim=1)[0]
    by_hand = products[[12, 13, 14, 19], :12].mean(dim=0).reshape(2, 2, 3).mean(dim=0)
    torch.testing.assert_close(logit_map(query, key, layout)[0, 0], by_hand, atol=1e-6, rtol=1e-5)


def test_the_recorder_keeps_the_mean_of_whole_calls_only():
    recorder = Recorder()
    maps = [random(1, 2, 2, 3, seed=seed) for seed in range(4)]
    recorder.take(maps[:2], 2)
    recorder.take(maps[:1], 2)  # a block was skipped
    recorder.take([each.mT for each in maps[:2]], 2)  # of another grid
    recorder.take(maps[2:], 2)
    kept = recorder.result((1, 3))
    assert recorder.left_out == 2 and kept.steps == 2 and kept.blocks.shape == (2, 1, 2, 2, 3)
    torch.testing.assert_close(kept.blocks[0], (maps[0] + maps[2]) / 2)
    torch.testing.assert_close(kept.maps, torch.stack(maps).mean(0))
    assert Recorder().result((1,)) is None


def test_mass_maps_of_steered_calls_are_preferred_and_a_new_run_forgets():
    recorder = Recorder()
    recorder.take([torch.ones(1, 1, 2, 2)], 1)
    recorder.take([torch.full((1, 1, 2, 2), 0.25)], 1, "mass")
    kept = recorder.result((1,))
    assert kept.kind == "mass" and kept.steps == 1 and (kept.maps == 0.25).all()
    recorder.reset()
    assert recorder.result((1,)) is None


def test_placeholders_and_references_must_find_each_other():
    assert numbers_in("a man from [ref#2] and [ref#1], [ref#2] [ref#12] [res]") == (2, 1, 12)
    assert faults((1, 2), (1, 2)) == [] and faults((), (1, 2)) == []
    lost, unnamed = faults((1, 3), (1, 2))
    assert "[ref#3]" in lost and "there are: 1, 2" in lost and "[ref#2]" in unnamed


def test_what_a_routing_keeps_in_place():
    left = torch.zeros(4, 4)
    left[:, :2] = 1.0
    tables = DreamOEmbeddings(random(2, 8), random(10, 8))
    routing = Routing((reference(1, region=left), reference(3)), tables, strength=2.0, words={3: (1, 3, 7)})
    layout = routing.layout(TokenLayout(3, (4, 4), ((2, 3), (1, 1))))
    assert routing.slots == (1, 3) and routing.regions.window == (0.0, 1.0)
    # words behind the 3 tokens of text were cut off
    assert layout.copies == ((), ((1, 2),)) and layout.references == (((19, 25),), ((25, 26),))
    assert routing.regions.steers and not routing.regions.copies_are_pictures
    assert routing.regions.attention(layout, (0, 26)) is not None
    assert not Routing((reference(1, region=left),), tables).regions.steers


@pytest.mark.parametrize(
    ("area", "tokens", "picture", "grid", "corner"),
    [
        ((8, 12, 8, 0), (4, 6), (16, 24), (8, 12), (4, 0)),
        ((9, 8, 8, 15), (5, 4), (17, 23), (9, 12), (4, 8)),  # odd sides are padded to whole tokens
        ((1, 8, 12, 0, 8, 12), (8, 12), (16, 24), (16, 24), (8, 12)),  # with a time axis, a token for each cell
        ((1, 8, 12, 0, 8, 4), (4, 6), (16, 24), (8, 12), (4, 2)),  # with a time axis, four cells in a token
        ((4, 8, 4, 6), (2, 4), (16, 24), (8, 12), (2, 3)),  # in the middle
        ((5, 8, 11, 0), (3, 4), (16, 8), (8, 4), (5, 0)),  # half a token in, as far as the picture goes
    ],
)
def test_maps_of_a_part_stand_where_it_is(area, tokens, picture, grid, corner):
    placed = in_picture(torch.ones(2, 3, *tokens), area, picture)
    expected = torch.zeros(*grid)
    expected[corner[0] : corner[0] + tokens[0], corner[1] : corner[1] + tokens[1]] = 1
    assert placed.shape == (2, 3, *grid) and (placed == expected).all()
    below = in_picture(torch.full((2, 3, *tokens), -2.0), area, picture)  # of logits, which may all be negative
    assert (below == -2).all()


def test_around_a_part_stands_the_lowest_value_of_its_own_map():
    maps = torch.tensor([[[-3.0, 1.0]], [[2.0, -1.0]], [[5.0, 4.0]]])  # three references, one row
    placed = in_picture(maps, (1, 2, 0, 1), (1, 4))
    assert placed.squeeze(1).tolist() == [[-3, -3, 1, -3], [-1, 2, -1, -1], [0, 5, 4, 0]]
