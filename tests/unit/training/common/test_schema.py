"""Checked models: strict values, all faults at once with what came, every field with its meaning."""

import pytest
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from training.common.schema import Checked, Words, check_file_name, check_path, entry_faults, sentences
from training.config import Config
from training.data.triplet_entries import AuthorsEntry, TripletEntry
from training.evaluation.prompts import AskedQuestion, PromptEntry


class Inner(Checked):
    """A table."""

    count: int = Field(1, ge=1, le=3, description="how many")
    share: FiniteFloat = Field(0.5, ge=0, description="of all")
    kept: FiniteFloat = Field(1.0, gt=0, le=1, description="of the rest")

    def contradictions(self):
        return [("count", "is too many."), ("share", "is too much.")] if self.count * self.share > 2 else []


class Outer(Checked):
    """A file."""

    name: Words = Field(description="its name")
    inner: Inner = Inner()
    stages: list[Inner] = Field([], description="tables one after another")


def told(**values):
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(values)
    return [(".".join(map(str, place)), sentence) for place, sentence in sentences(error.value, Outer)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [("name", "missing; this key has no default.")]),
        ({"name": ""}, [("name", "expected its name, got ''.")]),
        ({"name": 3}, [("name", "expected a string, got 3.")]),
        ({"name": "a", "nam": 1}, [("nam", "unknown key. Did you mean name?")]),
        ({"name": "a", "inner": {"conut": 1}}, [("inner.conut", "unknown key. Did you mean inner.count?")]),
        (
            {"name": "a", "inner": {"zzz": 1}},
            [("inner.zzz", "unknown key. Known here: inner.count, inner.share, inner.kept.")],
        ),
        ({"name": "a", "inner": {"count": "2"}}, [("inner.count", "expected a whole number, got '2'.")]),
        ({"name": "a", "inner": {"count": True}}, [("inner.count", "expected a whole number, got True.")]),
        (
            {"name": "a", "inner": {"count": 9, "share": -1.0}},
            [("inner.count", "expected 1 to 3, got 9."), ("inner.share", "expected at least 0, got -1.0.")],
        ),
        ({"name": "a", "inner": {"kept": 0.0}}, [("inner.kept", "expected above 0 and at most 1, got 0.0.")]),
        ({"name": "a", "inner": {"kept": 2.0}}, [("inner.kept", "expected above 0 and at most 1, got 2.0.")]),
        ({"name": "a", "inner": {"share": float("inf")}}, [("inner.share", "expected a finite number, got inf.")]),
        (
            {"name": "a", "inner": {"count": 3, "share": 1}},
            [("inner.count", "is too many."), ("inner.share", "is too much.")],
        ),
        ({"name": "a", "inner": 4}, [("inner", "expected a table [inner], got 4.")]),
        (
            {"name": "a", "stages": [{}, {"conut": 1}]},
            [("stages.1.conut", "unknown key. Did you mean stages.1.count?")],
        ),
        ({"name": "a", "stages": [{"count": 9}]}, [("stages.0.count", "expected 1 to 3, got 9.")]),
    ],
)
def test_faults_read_as_sentences(values, expected):
    assert told(**values) == expected


def test_a_whole_number_is_a_number_and_long_values_are_cut():
    assert Outer(name="a", inner={"share": 1}).inner.share == 1.0
    assert len(told(name=["x" * 500])[0][1]) < 120


def test_at_most_three_faults_of_a_key_are_spelled_out():
    with pytest.raises(ValidationError) as error:
        TripletEntry.model_validate({"target": "a", "concepts": ["b"], "prompt": "c", "names": [None] * 9})
    faults = entry_faults(error.value, TripletEntry, "line 1")
    assert len(faults) == 4 and faults[-1] == "line 1: 'names': 6 more of this kind."


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({"text": "x", "wnated": True}, "number 1.wnated: unknown key. Did you mean questions.0.wanted?"),
        ({"text": 3}, "number 1.text: expected a text, got 3."),
        ({"text": " "}, "number 1.text: expected a question, got ' '."),
        ({}, "number 1.text is missing; expected a question."),
        ({"text": "x", "parents": [-1]}, "number 1.parents.1: expected at least 0, got -1."),
        ("x", "number 1: expected an object, got 'x'."),
    ],
)
def test_faults_inside_lists_of_objects_are_sentences(question, expected):
    with pytest.raises(ValidationError) as error:
        PromptEntry.model_validate({"picture": "1.png", "prompt": "a", "questions": [question]})
    assert entry_faults(error.value, PromptEntry, "line 1") == [f"line 1: 'questions', {expected}"]


def test_keys_of_our_own_and_of_others_are_kept_and_misspelt_ones_are_not():
    good = {"target": "a", "concepts": ["b"], "prompt": "c", "names": ["d"]}
    assert TripletEntry.model_validate({**good, "origin": {}, "my_note": 1}).model_extra == {"my_note": 1}
    with pytest.raises(ValidationError):
        TripletEntry.model_validate({**good, "maks": ["e"]})
    TripletEntry.model_validate({**good, "masks": ["e"], "masks2": ["f"]})  # not instead of ours: theirs


def models(kind):
    yield kind
    for field in kind.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models(field.annotation)


@pytest.mark.parametrize(
    "kind", [*models(Config), TripletEntry, AuthorsEntry, PromptEntry, AskedQuestion], ids=lambda kind: kind.__name__
)
def test_every_field_says_what_it_means(kind):
    assert kind.__doc__ and kind.model_config["strict"] and kind.model_config["frozen"]
    for name, field in kind.model_fields.items():
        table = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert table or field.description, f"{kind.__name__}.{name}"


def test_every_number_of_the_config_has_bounds():
    for kind in models(Config):
        for name, field in kind.model_fields.items():
            if field.annotation in (int, float):
                assert any(hasattr(entry, "ge") for entry in field.metadata), f"{kind.__name__}.{name}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b", "'/'"),
        ("a\\b", "'\\\\\\\\'"),
        ("..", "no name"),
        ("a.", "no name"),
        ("NUL", "no name"),
        ("com1.x", "no name"),
        ("a\nb", r"'\\n'"),
        ('a"b', "'\"'"),
        ("x" * 181, "at most 180 bytes, got 181"),
        ("拥" * 61, "at most 180 bytes, got 183"),
    ],
)
def test_names_of_files(name, expected):
    with pytest.raises(ValueError, match=expected):
        check_file_name(name)


@pytest.mark.parametrize("name", ["", "hugging", "shaking_hands_with", "my hug", "拥抱", "v1.2", "a-b_c"])
def test_good_names_of_files(name):
    assert check_file_name(name) == name


def test_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert check_path("~/base") == "/home/me/base"
    assert check_path("a/~/b") == "a/~/b" and check_path("") == "" and check_path("C:\\a") == "C:\\a"
    for text, expected in (
        ("C:\new", "a new line"),
        ("a\0b", "control character"),
        ("x" * 256, "a name of 256 bytes"),
        ("拥" * 86, "a name of 258 bytes"),
        ("ab/" * 1400, "4200 bytes"),
    ):
        with pytest.raises(ValueError, match=expected):
            check_path(text)


def test_a_model_says_that_unknown_keys_are_allowed_where_they_are():
    extra = {
        kind.__name__
        for kind in (TripletEntry, AuthorsEntry, PromptEntry, Config)
        if ConfigDict(**kind.model_config).get("extra") == "allow"
    }
    assert extra == {"TripletEntry", "AuthorsEntry"}
