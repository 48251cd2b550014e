"""What is asked for: groups of subjects, prompts that say it, seeds that depend on nothing else."""

import pytest

from training.common.errors import UserErrors
from training.generation import wording
from training.generation.scenes import pick, read_groups, read_relation, scene_of, slot_of
from training.generation.wording import FOLDER, read_wording

WORDS = read_wording("")
GROUPS = [("wolf", "owl"), ("bear",), ("cat", "dog", "frog")]


def test_groups_take_turns_and_seeds_are_of_slot_and_attempt_alone():
    scenes = [scene_of("hugging", GROUPS, slot, attempt, 0) for slot in (1, 2, 3, 4) for attempt in (1, 2)]
    assert [scene.names for scene in scenes[::2]] == [*GROUPS, GROUPS[0]]
    assert len({scene.seed for scene in scenes}) == 8 and all(0 <= scene.seed < 2**48 for scene in scenes)
    assert scenes[0] == scene_of("hugging", GROUPS[:1], 1, 1, 0)
    assert (scenes[0].folder, scenes[0].seed) == ("01-1", 185618340807621)  # the same on every machine


def test_a_folder_says_its_slot_and_foreign_ones_say_none():
    assert [slot_of(name) for name in ("03-2", scene_of("hugging", GROUPS, 120, 3, 0).folder)] == [3, 120]
    assert [slot_of(name) for name in ("mine", "3", "3-b", "")] == [0] * 4


def test_nothing_is_picked_twice_while_it_lasts():
    assert sorted(pick("abcde", 5, 3, "place")) == list("abcde")
    assert sorted(pick("ab", 4, 3, "place")) == list("aabb")


def test_subjects_are_read_with_every_fault_at_once():
    assert read_groups(" polar  bear,wolf ; cat ") == [("polar bear", "wolf"), ("cat",)]
    assert read_groups("หมี, แมว; bjo\u0308rn, कुत्ता") == [("หมี", "แมว"), ("bj\u00f6rn", "कुत्ता")]
    with pytest.raises(UserErrors) as caught:
        read_groups("wolf, Wolf; a/b, c; cat 2, d; a, b, c, e; target")
    text = str(caught.value)
    for part in ('two subjects are named "Wolf"', '"a/b"', '"cat 2"', "1 to 3 subjects", '"target"'):
        assert part in text
    for empty in ("", " ; "):
        with pytest.raises(UserErrors, match="expected names"):
            read_groups(empty)
    with pytest.raises(UserErrors, match="expected words"):
        read_relation(" - ")
    assert read_relation(" shaking  hands with ") == "shaking hands with"


@pytest.mark.parametrize("slot", (1, 2, 3))
def test_every_prompt_names_whom_it_shows_and_none_twice_a_place_or_a_pose(slot):
    scene = scene_of("hugging", GROUPS, slot, 1, 0)
    sentence = wording.caption(WORDS, scene)
    assert "hugging" in sentence and all(name in sentence for name in scene.names) and " a owl" not in sentence
    target, composed = wording.target_prompt(WORDS, scene), wording.compose_prompt(WORDS, scene)
    assert all(f"{name} with" in target and f"{name} with" in composed for name in scene.names)
    places, poses = [place for place in WORDS.places if place in sentence], []
    for index, name in enumerate(scene.names):
        edit, alone = wording.edit_prompt(WORDS, scene, index), wording.subject_prompt(WORDS, scene, index)
        assert f"the same {name}, alone" in edit and f"one {name} with" in alone
        assert all(f"the {other} is gone" in edit for other in scene.names if other != name)
        places += [place for place in WORDS.places if place in edit]
        poses += [pose for pose in WORDS.poses if pose in edit]
    assert len(places) == len(set(places)) == 1 + len(scene.names)
    assert len(poses) == len(set(poses)) == len(scene.names)


def test_panels_are_marked_from_left_to_right():
    text = wording.panels_prompt(WORDS, scene_of("hugging", GROUPS, 1, 1, 0))
    assert text.startswith("This three-panel image shows the same wolf with") and "the same owl with" in text
    assert text.index("[LEFT] the wolf with") < text.index("[MIDDLE] the same wolf") < text.index("[RIGHT]")
    assert "[PANEL-4]" in wording.panels_prompt(WORDS, scene_of("hugging", GROUPS, 3, 1, 0))


def test_a_wording_file_is_checked_whole(tmp_path):
    assert read_wording("miniworld").gone == ""
    text = (FOLDER / "wording.toml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.toml"
    mine.write_text(text, encoding="utf-8")
    assert read_wording(str(mine)) == WORDS
    mine.write_text(text.replace("{gone}.", "{who}.").replace('"A {a} is {relation} {place}.",', '"A {b}.",'), "utf-8")
    with pytest.raises(UserErrors) as caught:
        read_wording(str(mine))
    for part in ("{who} is unknown here", "{b} is unknown here", "expected {relation} in it"):
        assert part in str(caught.value)
    with pytest.raises(UserErrors, match="--wording nothing"):
        read_wording("nothing")
