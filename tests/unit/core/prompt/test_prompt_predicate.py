"""The words of a prompt that say what the subjects do."""

import pytest

from core.prompt.predicate import find_predicate


@pytest.mark.parametrize(
    ("prompt", "names", "predicate"),
    [
        ("a fox is hugging a bear in a meadow", ("fox", "bear"), "hugging"),
        ("A wolf shakes hands with a leopard.", ("wolf", "leopard"), "shakes hands"),
        ("A bear, who was carrying the plushie bear", ("bear", "plushie bear"), "carrying"),
        ("A raccoon and a sloth are shaking hands in the rain.", ("raccoon", "sloth"), "shaking hands"),
        ("A cat is playing guitar on a park bench, serenading passersby.", ("cat",), "playing guitar"),
        ("A cat sits on a box under a tree", ("cat",), "sits"),
        ("A cat.", ("cat",), ""),
        ("a house by the sea", ("cat",), ""),
        ("", (), ""),
    ],
)
def test_predicates(prompt, names, predicate):
    assert find_predicate(prompt, names) == predicate
