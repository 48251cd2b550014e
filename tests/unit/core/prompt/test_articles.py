"""English articles."""

import pytest

from core.prompt.articles import correct_articles, indefinite, with_article


@pytest.mark.parametrize("article, words", [
    ("an", "owl apple umbrella unidentified uninvited unimpressed hour honest heir egg Owl understudy usher urn"),
    ("a", "cat house unicorn uniform university used useful usual ukulele European ewe one UFO u-boat"),
])  # fmt: skip
def test_the_sound_decides(article, words):
    assert {word: indefinite(word) for word in words.split()} == dict.fromkeys(words.split(), article)


@pytest.mark.parametrize("name, some, the", [
    ("unicorn", "a unicorn", "the unicorn"),
    ("old owl", "an old owl", "the old owl"),
    ("Anna", "Anna", "Anna"),
    ("my dog", "my dog", "my dog"),
    ("小猫", "小猫", "小猫"),
])  # fmt: skip
def test_a_name_gets_the_article_that_it_lacks(name, some, the):
    assert (with_article(name), with_article(name, definite=True)) == (some, the)


def test_articles_in_a_text_are_put_right():
    text = "A owl and a unicorn, a uninvited owl beside a cat. Vitamin a"
    assert correct_articles(text) == "An owl and a unicorn, an uninvited owl beside a cat. Vitamin a"
