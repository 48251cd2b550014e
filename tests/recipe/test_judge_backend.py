"""A vision-language model as a judge: a tiny random one, saved and loaded as the published ones are."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe import tiny_vision
from training.host_diffusers.vision_language import MEGAPIXEL, open_judge, shrunk

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))
OTHER = Image.new("RGB", (40, 40), (0, 200, 100))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return open_judge(str(tiny_vision.qwen_vl(tmp_path_factory.mktemp("judge"))), "cpu")


def test_yes_and_no_are_the_log_probabilities_of_the_first_answer_token(judge):
    yes, no = judge.yes_no([WIDE], "Is the cat hugging the bear?")
    content = [
        {"type": "image", "image": WIDE},
        {"type": "text", "text": "Is the cat hugging the bear? Answer with Yes or No only."},
    ]
    inputs = judge.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logs = judge.model(**inputs).logits[0, -1].log_softmax(-1)
    words = [judge.processor.tokenizer.decode([token]) for token in judge.tokens]
    assert words == ["Yes", "No"]
    assert (yes, no) == (pytest.approx(float(logs[judge.tokens[0]])), pytest.approx(float(logs[judge.tokens[1]])))
    assert np.exp(yes) + np.exp(no) <= 1


def test_answers_depend_on_picture_and_question_and_on_nothing_else(judge):
    first = judge.yes_no([WIDE], "Is it a cat?")
    assert first == judge.yes_no([WIDE], "Is it a cat?")
    assert first != judge.yes_no([OTHER], "Is it a cat?")
    assert first != judge.yes_no([WIDE], "Is it a dog?")


def test_a_greedy_answer_is_the_answer_without_the_question(judge):
    answer = judge.answer([WIDE, OTHER], "Grade them.", longest=6)
    assert answer == judge.answer([WIDE, OTHER], "Grade them.", longest=6)
    assert "Grade" not in answer and 0 < len(answer) <= 6  # a token is a byte or a word


def test_the_judge_says_what_an_answer_depends_on(judge):
    assert set(judge.facts) == {"judge", "revision", "dtype", "transformers"} and judge.facts["dtype"] == "float32"


def test_large_pictures_are_shrunk_to_a_million_pixels():
    assert shrunk(WIDE).size == WIDE.size
    small = shrunk(Image.new("L", (4000, 1000)))
    assert small.mode == "RGB" and small.size == (2000, 500) and small.width * small.height <= MEGAPIXEL


def test_what_is_no_judge_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--judge .*cannot be opened"):
        open_judge(str(tiny_vision.dinov2(tmp_path)), "cpu")
