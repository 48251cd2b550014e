"""The relation's words: found in every published prompt, and counted in tokens as published."""

import os
from pathlib import Path

import pytest

from training.data.prompt_spans import find_phrase, find_predicate, token_span, token_spans

HUG = [
    ("A lion and a polar bear hug.", "lion", "polar bear", "hug", (7, 8)),
    ("A wolf and a leopard hug.", "wolf", "leopard", "hug", (6, 7)),
    ("A bear is hugging a tiger.", "bear", "tiger", "hugging", (4, 5)),
    ("A kangaroo is hugging with a chimpanzee.", "kangaroo", "chimpanzee", "hugging", (4, 5)),
    ("A raccoon hugs a sloth.", "raccoon", "sloth", "hugs", (3, 4)),
]
SHAKE = [
    ("A wolf shakes hands with a leopard.", "wolf", "leopard", "shakes hands", (3, 5)),
    ("A polar bear shakes hands with a lion.", "polar bear", "lion", "shakes hands", (4, 6)),
    ("A bear shakes hands with a tiger.", "bear", "tiger", "shakes hands", (3, 5)),
    ("A raccoon and a sloth are shaking hands.", "raccoon", "sloth", "shaking hands", (7, 9)),
    ("A tiger is shaking hands with a goat.", "tiger", "goat", "shaking hands", (4, 6)),
]


@pytest.mark.parametrize(("prompt", "first", "second", "predicate", "_"), HUG + SHAKE)
def test_published_predicates_are_found_without_being_told(prompt, first, second, predicate, _):
    assert find_predicate(prompt, [first, second]) == predicate


def test_the_relations_name_wins_where_the_prompt_says_it():
    prompt = "Two friends, a cat and a dog, sit back to back."
    assert find_predicate(prompt, ["cat", "dog"], "back to back") == "back to back"
    assert find_predicate("A dog.", ["dog"]) is None
    assert find_predicate("A cat is reading a book by the fire.", ["cat"]) == "reading a book by the fire"
    assert find_predicate("Nobody is here.", ["cat", "dog"]) is None


def test_a_prompt_without_spaces_says_its_relation_and_names():
    hug = "\u5c0f\u732b\u62e5\u62b1\u5c0f\u718a"  # a kitten hugs a cub
    assert find_predicate(hug, ["\u5c0f\u732b", "\u5c0f\u718a"]) == hug[2:4]
    assert find_phrase(hug, hug[2:4]) == (2, 4) and find_phrase("hugging", "hug") is None


def test_captions_as_people_write_them():
    loose = "A cat  is shaking\thands\n with a frog."
    assert find_predicate(loose, ["cat", "frog"], "shaking hands with") == "shaking\thands\n with"
    assert token_span(loose, "shaking hands with", words) == (4, 7)
    assert find_predicate("A fox, smiling, hugs a bear.", ["fox", "bear"]) == "smiling, hugs"
    assert token_span("A fox, smiling, hugs a bear.", "smiling, hugs", words) == (3, 5)
    assert find_phrase("Zwei B\u00e4ren ku\u0308ssen", "k\u00fcssen") == (11, 18)  # composed and not


def test_two_subjects_of_one_noun_stand_on_either_side_of_the_relation():
    assert find_predicate("A dog hugs a dog.", ["dog", "dog"]) == "hugs"
    assert find_predicate("A black dog is hugging a dog.", ["dog", "black dog"]) == "hugging"
    assert find_predicate("A dog and a dog shake hands.", ["dog", "dog"]) == "shake hands"
    assert token_spans("A black dog hugs a dog.", ["dog", "black dog", "cat"], words) == [(6, 7), (2, 4), None]
    assert token_spans("A dog hugs a dog.", ["dog", "dog"], words) == [(2, 3), (5, 6)]


def words(text):
    return len(text.replace(".", " .").split())


def test_spans_by_hand():
    assert token_span("A cat hugs a cat.", "hugs", words) == (3, 4)
    assert token_span("A catalogue; a cat hugs.", "cat", words) == (4, 5)
    assert token_span("A dog.", "hugs", words) is None
    assert find_phrase("A dog HUGS it", "hugs") == (6, 10)
    assert find_phrase("A dog", " ") is None


def clip_tokenizer():
    root = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    folder = root / "comfy" / "sd1_tokenizer"
    if not folder.is_dir():
        pytest.skip("needs CLIP's vocabulary, which a ComfyUI has (COMFYUI_PATH)")
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def test_token_spans_are_the_published_ones():
    tokenizer = clip_tokenizer()

    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) if text.strip() else 0

    for prompt, _, _, predicate, span in HUG + SHAKE:
        assert token_span(prompt, predicate, count) == span
    plushie = "A cat is hugging with a plushie bear."
    assert token_span(plushie, "plushie bear", count) == (7, 10)
    assert token_span(HUG[3][0], "chimpanzee", count) == (7, 10)
    assert token_span("A dog, a cat and a well-known bear are playing chess.", "playing", count) == (13, 14)
    assert token_span("A cat hugs a cat.", "cat", count) == (2, 3)
