"""The drawn world: exact annotation, the hold-out, random streams, captions, and that bodies stay two."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("resvg_py")

from training.data.triplets import read_triplets
from training.miniworld.world import fusions
from training.miniworld.world.captions import PAIR_WORDS, plain_prompt
from training.miniworld.world.creature import LAYERS
from training.miniworld.world.pose import ARM, KEYPOINTS, STRETCH, mirrored, reach, solve
from training.miniworld.world.relations import HELD_OUT, OVERLAPPING, PAIRS, SEEN
from training.miniworld.world.renderer import mask_box, render, svg
from training.miniworld.world.rng_streams import MOST_INDICES, Stream, generator
from training.miniworld.world.scene import draw_plan, draw_relation, portrait, stage
from training.miniworld.world.single_and_group_poses import SINGLES, TRIOS
from training.miniworld.world.traits import (
    ACCESSORIES,
    BELLIES,
    EMBLEMS,
    FURS,
    LOOK_ALIKES,
    PATTERNS,
    SMALLEST_CONTRAST,
    SPECIES,
    CreatureTraits,
    draw_traits,
    oklab_distance,
)
from training.miniworld.world.triplets import evaluation_plans, look_alike_plans, write_triplets

EVERY = (*PAIRS, *SINGLES, *TRIOS)


def rng(seed=0, *indices):
    return generator(seed, Stream.SHEET, *indices)


def first_draws(*key):
    return generator(*key).integers(2**63, size=2).tolist()


def test_no_two_random_streams_coincide():
    """Every pair of different keys, also where numpy would pad with zeros or a number outgrows 32 bits."""
    numbers = (0, 1, 7, 2**32 - 1, 2**32, 2**33)
    indices = [()] + [
        combination
        for count in range(1, MOST_INDICES + 1)
        for combination in itertools.product((0, 7, 2**32), repeat=count)
    ]
    keys = [(seed, stream, *index) for seed in numbers for stream in Stream for index in indices]
    draws = {tuple(first_draws(*key)) for key in keys}
    assert len(draws) == len(keys)
    assert len({int(stream) for stream in Stream}) == len(list(Stream)), "no number is used twice"


def test_the_streams_of_the_first_world_would_have_coincided():
    assert np.random.default_rng((0, 7)).integers(2**63) == np.random.default_rng((0, 7, 0)).integers(2**63)
    assert first_draws(0, Stream.TRIPLET, 7) != first_draws(0, Stream.TRIPLET, 7, 0)


@pytest.mark.parametrize("key", [(-1, Stream.BANK), (0, Stream.BANK, -1), (0, Stream.BANK, *range(MOST_INDICES + 1))])
def test_a_key_that_could_collide_is_refused(key):
    with pytest.raises(ValueError, match="BANK"):
        generator(*key)


def test_the_world_is_as_large_as_promised():
    assert len(SPECIES) == 8 and len(FURS) == 12 and len(EMBLEMS) >= 4 and len(SEEN) >= 14 and len(TRIOS) >= 3
    assert HELD_OUT == ("hugging", "shaking hands with", "riding", "leapfrogging")
    assert len([relation for relation in SEEN if relation in OVERLAPPING]) >= 6
    assert set(PAIR_WORDS) == set(PAIRS)


def test_a_third_of_the_identities_is_held_out_by_their_own_hash():
    everyone = [
        CreatureTraits(species, fur, belly, pattern, accessory, "red", emblem, "blue")
        for species in SPECIES
        for fur in FURS
        for belly in BELLIES
        for pattern in PATTERNS
        for accessory in ACCESSORIES
        for emblem in EMBLEMS
    ]
    assert abs(np.mean([traits.held_out for traits in everyone]) - 1 / 3) < 0.01
    # pinned: the same on every machine
    assert not CreatureTraits("fox", "red", "cream", "spots", "crown", "blue", "star", "red").held_out
    assert all(CreatureTraits.from_code(traits.code) == traits for traits in everyone[:: len(everyone) // 50])


def test_the_look_alikes_differ_in_their_emblems_alone_and_are_held_out():
    one, other = LOOK_ALIKES
    assert one.held_out and other.held_out and one.emblem != other.emblem
    differing = {name for name in vars(one) if getattr(one, name) != getattr(other, name)}
    assert differing == {"emblem", "emblem_colour"}
    plans = look_alike_plans("hugging", 4, 0)
    assert {plan.cast for plan in plans} == {LOOK_ALIKES, LOOK_ALIKES[::-1]}


def test_pretraining_draws_neither_held_out_identities_nor_relations():
    draw = rng()
    for _ in range(150):
        plan = draw_plan(draw)
        assert plan.relation not in HELD_OUT
        assert not any(traits.held_out for traits in plan.cast)
        assert len({traits.species for traits in plan.cast}) == len(plan.cast)


def test_overlapping_relations_come_more_often():
    draw = rng()
    drawn = [draw_relation(draw) for _ in range(3000)]
    pairs = [relation for relation in drawn if relation in PAIRS]
    share = np.mean([relation in OVERLAPPING for relation in pairs])
    assert share > 1.15 * np.mean([relation in OVERLAPPING for relation in SEEN])


def test_evaluation_draws_held_out_identities():
    assert all(traits.held_out for plan in evaluation_plans("hugging", 8, 0) for traits in plan.cast)


def test_fur_and_belly_are_two_colours():
    draw = rng(4)
    for _ in range(200):
        traits = draw_traits(draw, None)
        assert oklab_distance(FURS[traits.fur], BELLIES[traits.belly]) >= SMALLEST_CONTRAST


@pytest.mark.parametrize("relation", EVERY)
def test_every_relation_is_drawn_with_exact_annotation(relation):
    for seed in range(3):
        plan = draw_plan(rng(seed), relation=relation)
        drawn = render(plan, 64)
        count = len(plan.cast)
        assert drawn.image.shape == (64, 64, 3) and drawn.image.dtype == np.uint8 and drawn.image.std() > 10
        assert drawn.masks.shape == (count, 64, 64) and drawn.keypoints.shape == (count, 17, 3)
        assert (drawn.masks.sum(0) <= 1).all(), "a pixel belongs to one creature at most"
        for mask, box, points in zip(drawn.masks, drawn.boxes, drawn.keypoints):
            assert mask.sum() > 120, "every creature shows"
            assert np.array_equal(mask_box(mask), box) and 0 <= box.min() and box.max() <= 1
            for x, y, visible in points:
                if visible:
                    assert mask[int(y * 64), int(x * 64)], "a visible keypoint lies on its creature"


@pytest.mark.parametrize("relation", PAIRS)
def test_both_faces_are_seen_in_every_relation(relation):
    """Two bodies stay two: of each creature at least an eye and the nose are visible."""
    for seed in range(6):
        drawn = render(draw_plan(rng(seed), relation=relation), 128)
        for points in drawn.keypoints:
            assert points[:2, 2].any() and points[:3, 2].sum() >= 1, relation


@pytest.mark.parametrize("species", SPECIES)
def test_an_emblem_is_finer_than_a_patch_and_counted_where_it_is_visible(species):
    """Patch 14 of 112 pixels is 16 of a 128-pixel portrait."""
    for emblem in EMBLEMS:
        traits = CreatureTraits(species, "red", "cream", "plain", "nothing", "red", emblem, "blue")
        drawn = render(draw_plan(rng(1), relation="standing", cast=(traits,)), 128)
        x0, y0, x1, y1 = drawn.emblem_boxes[0] * 128
        assert 7 <= max(x1 - x0, y1 - y0) < 16
        assert drawn.emblem_visible[0] > 0.8, (species, emblem, drawn.emblem_visible)
        column, row = int((x0 + x1) / 2), int((y0 + y1) / 2)
        assert drawn.masks[0, row, column], "an emblem is part of its creature"


def test_an_emblem_behind_another_body_is_hidden():
    shares = [render(draw_plan(rng(seed), relation="giving a piggyback to"), 128).emblem_visible for seed in range(8)]
    assert max(share[1] for share in shares) < 0.5, "the one on the back wears it against the bearer"
    assert min(share[0] for share in shares) > 0.3


@given(st.integers(0, 10_000), st.sampled_from(EVERY))
def test_a_mirror_seen_twice_is_no_mirror(seed, relation):
    for pose in stage(rng(seed), relation).poses:
        assert np.allclose(solve(pose), solve(mirrored(mirrored(pose))))
        assert np.allclose(solve(pose)[0] * (-1, 1) + (1, 0), solve(mirrored(pose))[1]), "left becomes right"


@given(st.floats(0, 6.28), st.floats(0.01, 1.2))
def test_reach_gets_there_or_stretches_as_far_as_plush_does(angle, distance):
    target = (distance * np.cos(angle), distance * np.sin(angle))
    joint, end = reach((0.0, 0.0), target, ARM, (0.0, 1.0))
    assert np.hypot(*end) == pytest.approx(min(distance, 2 * ARM * STRETCH), abs=1e-6)
    if distance <= 2 * ARM:
        assert np.hypot(*joint) == pytest.approx(ARM, abs=1e-6)


@pytest.mark.parametrize("relation", ["shaking hands with", "high-fiving", "jumping with", "dancing with"])
def test_paws_that_should_touch_touch(relation):
    paws = [KEYPOINTS.index("left front paw"), KEYPOINTS.index("right front paw")]
    for seed in range(20):
        first, second = (solve(pose)[paws] for pose in stage(rng(seed), relation).poses)
        assert np.linalg.norm(first[:, None] - second[None], axis=-1).min() < 0.02


def test_heads_in_a_hug_are_side_by_side_and_an_arm_of_each_crosses_over():
    paws = [KEYPOINTS.index("left front paw"), KEYPOINTS.index("right front paw")]
    for seed in range(20):
        first, second = stage(rng(seed), "hugging").poses
        size = (first.size + second.size) / 2
        assert 0.5 * size < abs(first.head[0] - second.head[0]) < 0.75 * size
        for pose, other in ((first, second), (second, first)):
            reach_of = np.abs(solve(pose)[paws][:, 0] - other.hip[0]).min()
            assert reach_of < 0.19 * size, "a paw lies on the other's body"


def test_captions_say_names_and_predicate_and_never_looks():
    looks = {*FURS, *BELLIES, *EMBLEMS, "spots", "stripes", "socks", "patch", *ACCESSORIES[1:]}
    draw = rng(5)
    for _ in range(300):
        plan = draw_plan(draw, relation=str(draw.choice(EVERY)))
        prompt = plan.caption.prompt
        assert all(name in prompt for name in plan.caption.names) and plan.caption.predicate in prompt
        words = prompt.replace("moonlight", "").replace(",", "").split()
        assert not looks & set(words), prompt
    assert plain_prompt("hugging", ("fox", "bear"), "meadow") == "a fox is hugging a bear in a meadow"


def test_a_portrait_is_the_same_creature_elsewhere():
    traits = draw_traits(rng())
    plans = [portrait(rng(seed), traits, avoid="meadow") for seed in range(12)]
    assert {plan.cast for plan in plans} == {(traits,)}
    assert "meadow" not in {plan.backdrop.place for plan in plans} and len({plan.relation for plan in plans}) > 3


def test_the_same_seed_draws_the_same_picture_at_any_size():
    plan = draw_plan(rng(9))
    assert svg(plan) == svg(draw_plan(rng(9)))
    small, large = render(plan, 64), render(plan, 128)
    assert np.abs(small.boxes - large.boxes).max() < 0.05
    assert np.array_equal(render(plan, 64).image, small.image)


def test_every_painting_order_shows_every_layer_of_every_creature():
    for relation in EVERY:
        staging = stage(rng(2), relation)
        assert sorted(staging.painting_order()) == sorted(itertools.product(range(len(staging.poses)), LAYERS)), (
            relation
        )


@pytest.mark.parametrize("kind", fusions.KINDS)
def test_planted_fusions_are_pictures_of_their_own(kind):
    first, again, other = (fusions.plant(generator(0, Stream.FUSION, index), kind, 64) for index in (0, 0, 1))
    assert first.shape == (64, 64, 3) and np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("copy_paste", [False, True])
def test_triplets_read_back_through_the_packs_own_reader(tmp_path, copy_paste):
    plans = write_triplets(tmp_path, "shaking hands with", 3, seed=2, size=64, copy_paste=copy_paste)
    triplets = read_triplets(tmp_path)
    assert [triplet.prompt for triplet in triplets] == [plan.caption.prompt for plan in plans]
    for triplet, plan in zip(triplets, plans):
        assert triplet.names == plan.caption.names and triplet.predicate in triplet.prompt
        assert triplet.keypoints_target.shape == (2, 17, 3) and triplet.keypoints_concepts.shape == (2, 17, 3)
        moved = (triplet.keypoints_target - triplet.keypoints_concepts)[..., :2].abs().mean()
        assert moved > 0.02, "concepts are in other poses, or cut out"
