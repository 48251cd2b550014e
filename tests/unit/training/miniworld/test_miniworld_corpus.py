"""The miniworld's data on disk: packed pictures, the corpus, labelled scenes."""

import numpy as np
import pytest

pytest.importorskip("resvg_py")

from training.miniworld.recipes import corpus, labelled_scenes
from training.miniworld.recipes.packed_images import PackedImages, compress, write_packed
from training.miniworld.world.fusions import KINDS


def test_packed_pictures_come_back_bit_for_bit_in_any_order(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    size = write_packed(tmp_path / "a.pack", map(compress, pictures), 8)
    packed = PackedImages(tmp_path / "a.pack")
    assert len(packed) == 5 and size == (tmp_path / "a.pack").stat().st_size
    assert np.array_equal(packed[np.array([4, 0, 4, 2])], pictures[[4, 0, 4, 2]])


def test_a_packed_file_without_its_index_counts_as_unfinished(tmp_path):
    write_packed(tmp_path / "a.pack", [compress(np.zeros((8, 8, 3), np.uint8))], 8)

    def failing():
        yield compress(np.ones((8, 8, 3), np.uint8))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packed(tmp_path / "a.pack", failing(), 8)
    with pytest.raises(FileNotFoundError, match="packed pictures"):
        PackedImages(tmp_path / "a.pack")


def test_the_corpus_does_not_depend_on_how_many_draw_it(tmp_path):
    size = corpus.CorpusSize(scenes=8, identities=4, portraits=2, seed=1)
    for name, processes in (("one", 1), ("two", 2)):
        assert len(list(corpus.render_corpus(tmp_path / name, size, processes))) == 2
    one, two = (corpus.Corpus.open(tmp_path / name) for name in ("one", "two"))
    every = np.arange(8)
    assert np.array_equal(one.scenes[every], two.scenes[every])
    assert np.array_equal(one.portraits[every], two.portraits[every]) and one.portraits[every].shape[1] == 256
    assert one.scene_facts == two.scene_facts and one.bank == two.bank and len(one.bank) == 4 and one.size == size
    for name in ("who", "boxes", "keypoints", "cover"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert list(corpus.render_corpus(tmp_path / "one", size, 1)) == [], "a finished corpus is not drawn again"


def test_a_corpus_of_another_size_is_drawn_anew(tmp_path):
    list(corpus.render_corpus(tmp_path, corpus.CorpusSize(2, 4, 1), 1))
    list(corpus.render_corpus(tmp_path, corpus.CorpusSize(3, 4, 1), 1))
    assert len(corpus.Corpus.open(tmp_path).scenes) == 3


def test_facts_of_a_scene_fit_its_truth(tmp_path):
    list(corpus.render_corpus(tmp_path, corpus.CorpusSize(12, 6, 1), 1))
    data = corpus.Corpus.open(tmp_path)
    for row, facts in enumerate(data.scene_facts):
        count = len(facts["who"])
        assert data.who[row, :count].tolist() == facts["who"] and (data.who[row, count:] == -1).all()
        assert [data.bank[who].species for who in facts["who"]] == list(facts["names"])
        assert (data.cover[row, :count].max((1, 2)) > 128).all() and not data.cover[row, count:].any()


def test_cover_is_the_share_of_a_cell():
    masks = np.zeros((1, 32, 32), bool)
    masks[0, :2, :2] = True
    masks[0, 2, 2] = True
    cover = corpus.cover_of(masks, cells=16)
    assert cover[0, 0, 0] == 255 and cover[0, 1, 1] == 64 and cover.sum() == 255 + 64


def test_an_unfinished_corpus_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="miniworld render"):
        corpus.Corpus.open(tmp_path)


def test_labelled_scenes_cover_every_relation_and_every_kind_of_fusion(tmp_path):
    count = labelled_scenes.FUSED_EVERY * len(KINDS)
    assert len(list(labelled_scenes.render_labelled(tmp_path, count, 0, 1))) == 1
    data = labelled_scenes.LabelledScenes.open(tmp_path)
    assert set(data.relation) == {*range(len(labelled_scenes.RELATIONS)), labelled_scenes.FUSED}
    assert set(data.kind) == {-1, *range(len(KINDS))}
    assert ((data.kind >= 0) == (data.relation == labelled_scenes.FUSED)).all()
    plain = data.kind < 0
    assert (data.boxes[plain].max(-1) > 0).all() and not data.boxes[~plain].any()
    for column, (name, values) in enumerate(labelled_scenes.TRAITS.items()):
        assert data.traits[..., column].max() < len(values), name
    assert list(labelled_scenes.render_labelled(tmp_path, count, 0, 1)) == []
