"""The drawn world: exact annotation, the hold-out, captions that never tell an identity."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("resvg_py")

from training.data.triplets import read_triplets
from training.miniworld.recipes import corpus as corpus_room
from training.miniworld.world.captions import plain_prompt
from training.miniworld.world.pose import ARM, KEYPOINTS, STRETCH, mirrored, reach, solve
from training.miniworld.world.relations import HELD_OUT, PAIRS, SEEN
from training.miniworld.world.renderer import mask_box, render, svg
from training.miniworld.world.scene import draw_plan, portrait, stage
from training.miniworld.world.single_and_group_poses import GROUP_POSES, SINGLE_POSES
from training.miniworld.world.traits import (
    ACCESSORIES,
    BELLY_HUES,
    FUR_NAMES,
    PATTERNS,
    SPECIES,
    CreatureTraits,
    draw_traits,
)
from training.miniworld.world.triplets import evaluation_plans, write_triplets

EVERY = (*PAIRS, *SINGLE_POSES, *GROUP_POSES)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_the_world_is_as_large_as_promised():
    assert len(SPECIES) >= 6 and len(SEEN) >= 12 and len(HELD_OUT) >= 4 and len(GROUP_POSES) >= 3


def test_a_third_of_the_identities_is_held_out_by_their_own_hash():
    everyone = [
        CreatureTraits(s, fur, belly, pattern, accessory, 0)
        for s in SPECIES
        for fur in range(len(FUR_NAMES))
        for belly in range(BELLY_HUES)
        for pattern in PATTERNS
        for accessory in ACCESSORIES
    ]
    assert abs(np.mean([who.held_out for who in everyone]) - 1 / 3) < 0.01
    assert (
        CreatureTraits("fox", 3, 1, "spots", "crown", 2).held_out
        == CreatureTraits("fox", 3, 1, "spots", "crown", 2).held_out
    )
    assert CreatureTraits("bear", 0, 0, "plain", "nothing", 0).held_out is False  # pinned: the same on every machine
    assert CreatureTraits("cat", 0, 0, "plain", "nothing", 0).held_out is False


def test_pretraining_draws_neither_held_out_identities_nor_relations():
    rng = generator()
    for _ in range(150):
        plan = draw_plan(rng)
        assert plan.relation not in HELD_OUT
        assert not any(who.held_out for who in plan.identities)
        assert len({who.species for who in plan.identities}) == len(plan.identities)


def test_evaluation_draws_held_out_identities():
    assert all(who.held_out for plan in evaluation_plans("hugging", 8, 0) for who in plan.identities)


@pytest.mark.parametrize("relation", EVERY)
def test_every_relation_is_drawn_with_exact_annotation(relation):
    plan = draw_plan(generator(3), relation=relation)
    drawn = render(plan, 64)
    count = len(plan.identities)
    assert drawn.image.shape == (64, 64, 3) and drawn.image.dtype == np.uint8 and drawn.image.std() > 10
    assert drawn.masks.shape == (count, 64, 64) and drawn.keypoints.shape == (count, 17, 3)
    assert (drawn.masks.sum(0) <= 1).all(), "a pixel belongs to one creature at most"
    for mask, box, points in zip(drawn.masks, drawn.boxes, drawn.keypoints):
        assert mask.sum() > 40
        assert np.array_equal(mask_box(mask), box) and 0 <= box.min() and box.max() <= 1
        for x, y, visible in points:
            if visible:
                assert mask[int(y * 64), int(x * 64)], "a visible keypoint lies on its creature"


@given(st.integers(0, 10_000), st.sampled_from(EVERY))
def test_a_mirror_seen_twice_is_no_mirror(seed, relation):
    for pose in stage(generator(seed), relation).poses:
        again = mirrored(mirrored(pose))
        assert np.allclose(solve(pose), solve(again))
        swapped = solve(mirrored(pose))
        assert np.allclose(solve(pose)[0] * (-1, 1) + (1, 0), swapped[1]), "left becomes right"


@given(st.floats(0, 6.28), st.floats(0.01, 1.2))
def test_reach_gets_there_or_stretches_as_far_as_plush_does(angle, distance):
    target = (distance * np.cos(angle), distance * np.sin(angle))
    joint, end = reach((0.0, 0.0), target, ARM, (0.0, 1.0))
    assert np.hypot(*end) == pytest.approx(min(distance, 2 * ARM * STRETCH), abs=1e-6)
    if distance <= 2 * ARM:
        assert np.hypot(*joint) == pytest.approx(ARM, abs=1e-6)


@pytest.mark.parametrize(("relation", "paws"), [("shaking hands with", 1), ("high-fiving", 1), ("jumping with", 1)])
def test_paws_that_should_touch_touch(relation, paws):
    for seed in range(20):
        first, second = (
            solve(pose)[[KEYPOINTS.index("left front paw"), KEYPOINTS.index("right front paw")]]
            for pose in stage(generator(seed), relation).poses
        )
        gaps = np.linalg.norm(first[:, None] - second[None], axis=-1)
        assert gaps.min() < 0.02


def test_captions_say_names_and_predicate_and_never_looks():
    looks = {*FUR_NAMES, "spots", "stripes", "socks", "patch", *ACCESSORIES[1:]}
    rng = generator(5)
    for _ in range(300):
        plan = draw_plan(rng, relation=str(rng.choice(EVERY)))
        prompt = plan.caption.prompt
        assert all(name in prompt for name in plan.caption.names) and plan.caption.predicate in prompt
        assert not [word for word in looks if f" {word}" in f" {prompt}"], prompt
    assert plain_prompt("hugging", ("fox", "bear"), "meadow") == "a fox is hugging a bear in a meadow"


def test_a_portrait_is_the_same_creature_elsewhere():
    who = draw_traits(generator())
    plans = [portrait(generator(seed), who, avoid="meadow") for seed in range(12)]
    assert {plan.identities for plan in plans} == {(who,)}
    assert "meadow" not in {plan.backdrop.place for plan in plans} and len({plan.relation for plan in plans}) > 3


def test_the_same_seed_draws_the_same_picture_at_any_size():
    plan = draw_plan(generator(9))
    assert svg(plan) == svg(draw_plan(generator(9)))
    small, large = render(plan, 64), render(plan, 128)
    assert np.abs(small.boxes - large.boxes).max() < 0.05
    assert np.array_equal(render(plan, 64).image, small.image)


def test_the_corpus_does_not_depend_on_how_many_draw_it(tmp_path):
    size = corpus_room.CorpusSize(scenes=6, identities=4, portraits=2, seed=1)
    for name, processes in (("one", 1), ("two", 2)):
        list(corpus_room.render_corpus(tmp_path / name, size, processes))
    one, two = (corpus_room.Corpus.open(tmp_path / name) for name in ("one", "two"))
    assert np.array_equal(one.scenes, two.scenes) and np.array_equal(one.portraits, two.portraits)
    assert one.scene_facts == two.scene_facts
    codes = json.loads((tmp_path / "one" / "corpus.json").read_text())["bank"]
    assert len(codes) == 4 and one.size == size


def test_an_unfinished_corpus_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="training.miniworld render"):
        corpus_room.Corpus.open(tmp_path)


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
