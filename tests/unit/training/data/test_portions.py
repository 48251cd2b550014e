"""Crops in portions of bounded memory."""

from dataclasses import replace

import pytest

from tests.unit.synthetic_triplets import write_authors
from training.config import DataConfig
from training.data.dataset import load_triplets, prepare
from training.data.portions import portions


@pytest.fixture
def example(tmp_path):
    write_authors(tmp_path)
    config = DataConfig(folder=str(tmp_path), image_px=64)
    return prepare(load_triplets(config, "hugging")[0], config)


def size_of(example):
    pictures = (example.target, example.concepts, *example.photographs)
    return sum(picture.nbytes for picture in pictures)


def test_each_portion_fits_and_nothing_is_made_before_it_is_due(example):
    made = []

    def crops():
        for number in range(5):
            made.append(number)
            yield replace(example)

    lengths = []
    for few in portions(crops(), room=int(2.5 * size_of(example))):
        lengths.append(len(few))
        assert len(made) <= sum(lengths) + 1
    assert lengths == [2, 2, 1]


def test_a_crop_larger_than_the_room_is_alone(example):
    assert [len(few) for few in portions([example, example], room=1)] == [1, 1]


def test_no_crops_are_no_portions():
    assert list(portions([])) == []
