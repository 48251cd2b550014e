"""A prompt made from names and a relation."""

import pytest

from core.prompt.sentence import make_sentence


@pytest.mark.parametrize("names, relation, place, sentence", [
    (["cat", "plushie bear"], "hugging", "", "a cat is hugging a plushie bear"),
    (["cat", "plushie bear"], "is hugging with", "in a garden", "a cat is hugging with a plushie bear in a garden"),
    (["fox", "owl"], "high-fiving", "", "a fox is high-fiving an owl"),
    (["fox", "owl"], "chases", "", "a fox chases an owl"),
    (["the old man", "Anna"], "shaking hands with", "", "the old man is shaking hands with Anna"),
    (["cat"], "", "in the snow", "a cat in the snow"),
    (["cat"], "sleeping", "", "a cat is sleeping"),
    (["cat", "dog"], "", "", "a cat and a dog"),
    (["cat", "dog", "bear"], "is hugging", "", "a cat, a dog and a bear are hugging"),
    (["  plushie\n bear ", "cat"], " riding ", " at  night ", "a plushie bear is riding a cat at night"),
    (["小猫", "bear"], "hugging", "", "小猫 is hugging a bear"),
])  # fmt: skip
def test_sentence(names, relation, place, sentence):
    assert make_sentence(names, relation, place) == sentence


@pytest.mark.parametrize("names", [[], [""], ["cat", "  "]])
def test_a_subject_without_a_name_is_refused(names):
    with pytest.raises(ValueError, match="expected the words that name each subject"):
        make_sentence(names)
