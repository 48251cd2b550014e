"""References named in a prompt: the golden texts of the algorithm, and its laws for any names and boxes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.prompt.wording import (
    AS_WRITTEN,
    PLACES,
    REFERENCES,
    WORDINGS,
    Mention,
    bind,
    find_all_names,
    find_names,
    place_of,
)
from core.scene import WHOLE_PICTURE, Box

LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
HUG = "A cat is hugging a plushie bear."
BOTH = "The cat from {0} is on the left and the plushie bear from {1} is on the right."


def mentions(names, boxes, label="image {}"):
    return [Mention(name, label.format(number), box) for number, (name, box) in enumerate(zip(names, boxes), start=1)]


GOLDEN = [
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        PLACES,
        "image {}",
        "A cat from image 1 is hugging a plushie bear from image 2. " + BOTH.format("image 1", "image 2"),
    ),
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        PLACES,
        "Picture {}",
        "A cat from Picture 1 is hugging a plushie bear from Picture 2. " + BOTH.format("Picture 1", "Picture 2"),
    ),
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        PLACES,
        "Image {}",
        "A cat from Image 1 is hugging a plushie bear from Image 2. " + BOTH.format("Image 1", "Image 2"),
    ),
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        PLACES,
        "<Picture {}>",
        "A cat from <Picture 1> is hugging a plushie bear from <Picture 2>. "
        + BOTH.format("<Picture 1>", "<Picture 2>"),
    ),
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        PLACES,
        "<image{}>",
        "A cat from <image1> is hugging a plushie bear from <image2>. " + BOTH.format("<image1>", "<image2>"),
    ),
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        PLACES,
        "[ref#{}]",
        "A cat from [ref#1] is hugging a plushie bear from [ref#2]. " + BOTH.format("[ref#1]", "[ref#2]"),
    ),
    (
        HUG,
        ("cat", "plushie bear"),
        (LEFT, RIGHT),
        REFERENCES,
        "image {}",
        "A cat from image 1 is hugging a plushie bear from image 2.",
    ),
    (
        "A bear is riding a plushie bear.",
        ("bear", "plushie bear"),
        (LEFT, RIGHT),
        REFERENCES,
        "image {}",
        "A bear from image 1 is riding a plushie bear from image 2.",
    ),
    (
        "A dog is kissing a dog.",
        ("dog", "dog"),
        (RIGHT, LEFT),
        PLACES,
        "image {}",
        "A dog from image 1 is kissing a dog from image 2. The dog from image 1 is on the right and the dog from image "
        "2 is on the left.",
    ),
    (
        "Two friends hug in the rain.",
        ("cat", "plushie bear"),
        (LEFT, WHOLE_PICTURE),
        PLACES,
        "image {}",
        "Two friends hug in the rain. The cat is from image 1. The plushie bear is from image 2. The cat from image 1 "
        "is on the left.",
    ),
    (
        "The cat from image 2 hugs the bear.",
        ("cat", "bear"),
        (LEFT, RIGHT),
        PLACES,
        "image {}",
        "The cat from image 2 hugs the bear.",
    ),
    (
        "A cat sits.",
        ("cat",),
        (Box(0.3, 0.6, 0.7, 1),),
        PLACES,
        "Picture {}",
        "A cat from Picture 1 sits. The cat from Picture 1 is at the bottom in the middle.",
    ),
    (
        "A category error: a Cat sleeps.",
        ("cat",),
        (WHOLE_PICTURE,),
        PLACES,
        "image {}",
        "A category error: a Cat from image 1 sleeps.",
    ),
]


@pytest.mark.parametrize(("prompt", "names", "boxes", "wording", "label", "wanted"), GOLDEN)
def test_golden(prompt, names, boxes, wording, label, wanted):
    assert bind(prompt, mentions(names, boxes, label), wording).text == wanted


@pytest.mark.parametrize("prompt", ["A raw photo 35mm of a cat.", "A picture 8k, a cat.", "\u753b\u50cf2\u679a, cat"])
def test_a_number_that_counts_no_reference_keeps_the_names_bound(prompt):
    assert "cat from image 1" in bind(prompt, mentions(("cat",), (WHOLE_PICTURE,))).text


def test_a_chinese_prompt_binds_its_names_where_they_stand_or_is_left_as_it_numbers_them():
    subjects = mentions(("\u5c0f\u732b", "\u5c0f\u718a"), (LEFT, RIGHT), "Picture {}")
    hug = "\u4e00\u53ea\u5c0f\u732b\u62b1\u7740\u4e00\u53ea\u5c0f\u718a\u3002"  # "A kitten is holding a cub."
    bound = bind(hug, subjects, REFERENCES)
    assert not bound.missing and not bound.added
    assert bound.text == hug.replace("\u732b", "\u732b from Picture 1").replace("\u718a", "\u718a from Picture 2")
    numbered = "\u8ba9\u56fe1\u7684\u5c0f\u732b\u62b1\u7740image 2\u7684\u5c0f\u718a"
    assert bind(numbered, subjects).text == numbered and bind(numbered[4:], subjects).text == numbered[4:]


def test_the_places_of_names_in_the_golden_text_are_those_of_equal_subjects_in_turn():
    text = bind("A dog is kissing a dog.", mentions(("dog", "dog"), (RIGHT, LEFT))).text
    first, second = find_all_names(text, ["dog", "dog"])
    assert [text[end:].split(" is")[0].split(".")[0].strip() for _, end in first] == ["from image 1"] * 2
    assert [text[end:].split(" is")[0].split(".")[0].strip() for _, end in second] == ["from image 2"] * 2


def test_a_missing_name_is_reported_with_the_sentence_that_was_added():
    bound = bind("Two friends hug.", mentions(("cat", "bear"), (WHOLE_PICTURE, WHOLE_PICTURE)))
    assert bound.missing == ("cat", "bear")
    assert bound.added == ("The cat is from image 1.", "The bear is from image 2.")
    assert bind("A cat.", mentions(("cat",), (LEFT,)), AS_WRITTEN).missing == ()
    as_written = bind("Friends.", mentions(("cat",), (LEFT,)), AS_WRITTEN)
    assert (as_written.text, as_written.missing, as_written.added) == ("Friends.", ("cat",), ())


def test_a_prompt_without_a_full_stop_gets_one_before_further_sentences():
    assert bind("a cat sits", mentions(("cat",), (LEFT,))).text == (
        "a cat from image 1 sits. The cat from image 1 is on the left."
    )
    assert bind("", mentions(("cat",), (WHOLE_PICTURE,))).text == "The cat is from image 1."


@pytest.mark.parametrize("name", ["St. Bernard", "st . bernard", "Zoe's cat"])
def test_punctuation_in_a_name_is_found_with_and_without_spaces(name):
    (places,) = find_all_names("The St. Bernard meets Zoe's cat.", [name])
    assert len(places) == 1


def test_an_unknown_wording_is_refused():
    with pytest.raises(ValueError, match="wording: expected one of references and places, references, as written"):
        bind(HUG, [], "loud")


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (WHOLE_PICTURE, ""),
        (LEFT, "on the left"),
        (Box(0, 0, 1, 0.5), "at the top"),
        (Box(0.5, 0.5, 1, 1), "at the bottom on the right"),
        (Box(0.25, 0, 0.75, 1), "in the middle"),
        (Box(0.0, 0.2, 1, 0.8), ""),
    ],
)
def test_a_box_in_words(box, words):
    assert place_of(box) == words


names = st.sampled_from(["cat", "dog", "plushie bear", "bear", "St. Bernard", "Zoe", "a"])
boxes = st.sampled_from([LEFT, RIGHT, WHOLE_PICTURE, Box(0.3, 0.6, 0.7, 1)])
texts = st.lists(st.sampled_from(["a cat", "the dog", "hugs", "plushie bear", ".", ",", "Zoe", "bear", ""]), max_size=8)


@given(
    texts.map(" ".join),
    st.lists(st.tuples(names, boxes), max_size=4),
    st.sampled_from(WORDINGS),
    st.sampled_from(["image {}", "Picture {}", "<image{}>", "[ref#{}]"]),
)
def test_binding_twice_is_binding_once(prompt, subjects, wording, label):
    subjects = mentions([name for name, _ in subjects], [box for _, box in subjects], label)
    once = bind(prompt, subjects, wording).text
    assert bind(once, subjects, wording).text == once


@given(texts.map(" ".join), st.lists(names, min_size=1, max_size=5))
def test_no_two_names_share_a_place(prompt, subjects):
    places = sorted(place for found in find_all_names(prompt, subjects) for place in found)
    assert all(first[1] <= second[0] for first, second in zip(places, places[1:]))


@given(texts.map(" ".join), st.lists(names, min_size=1, max_size=4))
def test_every_subject_is_named_with_its_reference(prompt, subjects):
    text = bind(prompt, mentions(subjects, [WHOLE_PICTURE] * len(subjects))).text
    for number in range(1, len(subjects) + 1):
        assert f"from image {number}" in text


@pytest.mark.parametrize(
    "text",
    [
        "a (red) fox",
        "a (red:1.3) fox",
        "a red (fox:1.2)",
        "a red\nfox",
        "a red  fox",
        "a ((RED)) (fox)",
        "a (red fox:0.9)",
    ],
)
def test_a_name_is_found_however_the_prompt_writes_it(text):
    (place,) = find_names(text, ["red fox"])
    assert place is not None and text[slice(*place)].lower().startswith("red") and "fox" in text[slice(*place)].lower()


@pytest.mark.parametrize("text", ["a redfox", "a red, fox", "a red and a fox", "a red:1.2 fox_1"])
def test_other_words_are_not_the_name(text):
    assert find_names(text, ["red fox"]) == [None]


@pytest.mark.parametrize("text", ["a caf\u00e9 cat", "a cafe\u0301 cat"])
@pytest.mark.parametrize("name", ["caf\u00e9 cat", "Cafe\u0301 cat"])
def test_accents_may_be_composed_or_not(text, name):
    (place,) = find_names(text, [name])
    assert place == (2, len(text))


def test_a_letter_without_its_accent_is_another():
    assert find_names("a cafe\u0301", ["cafe"]) == [None] and find_names("a caf\u00e9", ["cafe"]) == [None]
