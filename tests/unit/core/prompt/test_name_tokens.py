"""Where names stand among tokens; the letters' side of the same question is tested in test_prompt_wording."""

import pytest

from core.prompt.name_tokens import find_name_tokens, mentions, plain_text

A, BLACK, DOG, HUGGING, FOX = 320, 1449, 1929, 20751, 3240


def test_a_name_is_found_with_all_its_tokens():
    assert find_name_tokens([None, A, BLACK, DOG, HUGGING, A, FOX, None], [[FOX], [BLACK, DOG]]) == [(6,), (2, 3)]


def test_embeddings_are_counted_and_match_nothing():
    tokens = [None, None, None, A, FOX]
    assert find_name_tokens(tokens, [[FOX], [None], [None, A]]) == [(4,), (), ()]


def test_equal_names_take_their_places_in_turn():
    assert find_name_tokens([A, DOG, HUGGING, A, DOG], [[DOG], [DOG]]) == [(1,), (4,)]
    assert find_name_tokens([DOG, DOG, DOG, DOG], [[DOG], [DOG]]) == [(0, 2), (1, 3)]


def test_one_place_for_two_equal_names_belongs_to_neither():
    assert find_name_tokens([A, DOG], [[DOG], [DOG]]) == [(), ()]


def test_a_name_inside_another_is_looked_for_elsewhere():
    tokens = [A, BLACK, DOG, HUGGING, A, DOG]
    assert find_name_tokens(tokens, [[DOG], [BLACK, DOG]]) == [(5,), (1, 2)]
    assert find_name_tokens(tokens[:4], [[DOG], [BLACK, DOG]]) == [(), (1, 2)]


def test_every_place_of_a_name_counts():
    assert find_name_tokens([FOX, A, FOX], [[FOX]]) == [(0, 2)]


def test_no_tokens_are_no_name():
    assert find_name_tokens([A, DOG], [[], [DOG]]) == [(), (1,)]


@pytest.mark.parametrize(
    "text",
    [
        "a (red) fox",
        "a (red:1.3) fox",
        "a ((red)) fox",
        "a red\nfox",
        "a red  fox",
        "a RED fox",
        "a (red fox:0.5)",
        "(a red fox)",
        "a red fox's den",
        "red fox, bear",
    ],
)
def test_a_name_is_mentioned_however_the_prompt_is_written(text):
    assert mentions(text, "red fox")


def test_accents_written_in_two_ways_are_one():
    assert mentions("a cafe\u0301 cat", "caf\u00e9 cat") and mentions("a caf\u00e9 cat", "cafe\u0301 cat")


def test_a_name_is_written_however_the_subject_is():
    assert mentions("a red fox", "(red) fox") and mentions("a red fox", " Red  fox ")


@pytest.mark.parametrize("text", ["a redfox", "foxes", "a red bear and a fox", ""])
def test_other_words_are_no_mention(text):
    assert not mentions(text, "red fox")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\u4e00\u53ea\u5c0f\u732b\u62b1\u7740\u5c0f\u718a", "\u5c0f\u732b"),  # Chinese: a kitten holds a cub
        ("\u4e00\u53eacat\u62b1\u7740\u5c0f\u718a", "cat"),
        ("\u732b\u304c\u718a\u3092\u62b1\u304f", "\u718a"),  # Japanese: a cat hugs a bear
        ("\uace0\uc591\uc774\uac00 \uacf0\uc744 \uc548\ub294\ub2e4", "\uacf0"),  # Korean: the same
        ("\u0e41\u0e21\u0e27\u0e01\u0e2d\u0e14\u0e2b\u0e21\u0e35", "\u0e41\u0e21\u0e27"),  # Thai: the same
    ],
)
def test_scripts_without_spaces_need_none_around_a_name(text, name):
    assert mentions(text, name)


def test_a_name_in_letters_with_spaces_is_a_whole_word_in_any_prompt():
    assert not mentions("\u4e00\u53eacats", "cat") and not mentions("\u4e00\u53ea\u5c0f\u732b", "cat")


def test_escaped_brackets_are_letters():
    assert plain_text(r"a fox \(red\), (very:1.2) good") == "a fox (red), very good"
