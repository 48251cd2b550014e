"""Names found in decoded tokens, for tokenizers that write bytes and for those that write spaces by context."""

import pytest

from core.prompt.text_positions import TextPositions, token_characters

BYTES = {1: "<|im_start|>system\n", 2: "a cat in the system", 3: "<|im_start|>user\n", 4: "A", 5: " cat", 6: " hugs",
         7: " a", 8: " plush", 9: "ie", 10: " bear", 11: ".", 12: " The"}  # fmt: skip
WORDS = {1: "a", 2: "cat", 3: "hugs", 4: "st", 5: ".", 6: "bernard"}


def by_bytes(ids):
    return "".join(BYTES[token] for token in ids)


def by_words(ids):
    return " ".join(WORDS[token] for token in ids)


def positions(ids, decode, cut=0, images=()):
    text, spans = token_characters(ids, decode)
    tokens = tuple((*span, place - cut) for place, span in enumerate(spans))
    return TextPositions(text, tokens, tuple(images), len(ids) - cut)


@pytest.mark.parametrize(
    ("ids", "decode"), [([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], by_bytes), ([1, 2, 3, 4, 5], by_words)]
)
def test_token_characters_part_the_text(ids, decode):
    text, spans = token_characters(ids, decode)
    assert text == decode(ids) and spans[0][0] == 0 and spans[-1][1] == len(text)
    assert all(first[1] == second[0] for first, second in zip(spans, spans[1:]))


def test_names_of_several_tokens_and_of_none():
    found = positions([3, 4, 5, 6, 7, 8, 9, 10, 11], by_bytes, cut=1).find(["plushie bear", "cat", "dog"])
    assert found == [(4, 5, 6), (1,), ()]


def test_the_templates_own_words_are_no_names():
    assert positions([1, 2, 3, 4, 5, 6], by_bytes, cut=0).find(["cat"]) == [(4,)]


def test_every_place_counts_and_equal_names_share_in_turn():
    assert positions([3, 5, 6, 5, 12, 5, 12, 5], by_bytes).find(["cat", "cat"]) == [(1, 5), (3, 7)]


def test_a_tokenizer_that_writes_spaces_by_context():
    assert positions([1, 4, 5, 6, 3, 1, 2], by_words).find(["St. Bernard", "cat"]) == [(1, 2, 3), (6,)]


def test_a_name_that_was_cut_away_has_no_position():
    assert positions([5, 6, 5], by_bytes, cut=1).find(["cat"]) == [(1,)]


def test_a_name_that_is_there_less_often_than_its_subjects_is_nobodys():
    assert positions([3, 5, 6], by_bytes).find(["cat", "cat"]) == [(), ()]
    assert positions([3, 5, 6], by_bytes).find(["cat", ""]) == [(1,), ()]
