"""The miniworld's reduced tokenizer: it splits as the stock one, and its rows expand to the stock table."""

import json

import torch

from training.host_diffusers.miniworld.architectures import Words
from training.miniworld.recipes.tokenizer import reduce_tokenizer


def test_the_reduced_tokenizer_splits_as_the_stock_one(tmp_path):
    """A stock tokenizer of three merges; of `hug bear` only two are ever used."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(letter + "</w>" for letter in letters),
        "hu",
        "hug</w>",
        "zz",
    ]
    stock = tmp_path / "stock"
    stock.mkdir()

    (stock / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (stock / "merges.txt").write_text("#version: 0.2\nh u\nz z\nhu g</w>\n")
    kept = reduce_tokenizer(stock, tmp_path / "small", ["hug bear"])
    merges = (tmp_path / "small" / "merges.txt").read_text().split("\n")[1:]
    assert [line for line in merges if line] == ["h u", "hu g</w>"]
    assert kept == len(tokens) - 1, "only the unused merge's token is gone"
    words = Words(tmp_path / "small")
    assert words.tokenizer.tokenize("hug bear") == ["hug</w>", "b", "e", "a", "r</w>"]
    assert [tokens[words.stock_ids[i]] for i in words.tokenizer("hug")["input_ids"]] == [
        "<|startoftext|>",
        "hug</w>",
        "<|endoftext|>",
    ]


def test_expanded_rows_are_the_stock_table():
    words = Words()
    rows = torch.arange(len(words), dtype=torch.float32)[:, None]
    table = words.expand_rows(rows)
    assert table.shape == (49408, 1)
    assert table[words.stock_ids[5]] == 5 and table[40000] == len(words) - 1
