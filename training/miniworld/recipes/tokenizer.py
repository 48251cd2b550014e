"""The stock CLIP tokenizer, reduced to the world's words: they split as before, with a fiftieth of the vocabulary.

Byte-pair encoding always applies the highest-ranked merge present, so dropping merges that no word of the world ever
uses cannot change how those words are split. Other words fall into single letters, whose embeddings are one shared
row for the unknown. The remaining tokens are renumbered in the order of their stock ids, which are stored beside them.
(Byte-pair merges: OpenAI CLIP, MIT licence.)
"""

import json
import re
from pathlib import Path

from ...common.atomic_io import write_text
from ..world.captions import vocabulary_texts

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
_WORDS = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


def reduce_tokenizer(stock: Path, target: Path, texts: list[str] | None = None) -> int:
    """Write the reduced tokenizer's files.

    Args:
        stock: folder with the stock CLIP `vocab.json` and `merges.txt` (ComfyUI's `comfy/sd1_tokenizer`, for one).
        target: folder that receives `vocab.json`, `merges.txt`, `tokenizer_config.json` and `stock_ids.json`.
        texts: must split as in the stock tokenizer; the world's vocabulary by default.
    Returns:
        The number of tokens.
    """
    vocabulary = json.loads((stock / "vocab.json").read_text(encoding="utf-8"))
    header, *lines = (stock / "merges.txt").read_text(encoding="utf-8").strip().split("\n")
    ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
    used: set[tuple[str, ...]] = set()
    tokens = {START, END}
    for text in texts or vocabulary_texts():
        for word in _WORDS.findall(text.lower()):
            tokens.update(_split(word, ranks, used))
    letters = sorted(token for token in vocabulary if len(token.removesuffix(END_OF_WORD)) == 1)
    merges = sorted(used, key=ranks.__getitem__)
    tokens.update(letters, ("".join(pair) for pair in merges))
    ordered = sorted(tokens, key=vocabulary.__getitem__)
    write_text(target / "vocab.json", json.dumps({token: index for index, token in enumerate(ordered)}))
    write_text(target / "stock_ids.json", json.dumps([vocabulary[token] for token in ordered]))
    write_text(target / "merges.txt", "\n".join([header, *(" ".join(pair) for pair in merges)]) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
    }
    write_text(target / "tokenizer_config.json", json.dumps(settings, indent=1))
    return len(tokens)


def _split(word: str, ranks: dict[tuple[str, ...], int], used: set[tuple[str, ...]]) -> list[str]:
    """Split one word by byte-pair encoding; add every merge applied to `used`."""
    parts = [*word[:-1], word[-1] + END_OF_WORD]
    while len(parts) > 1:
        pairs = {pair for pair in zip(parts, parts[1:]) if pair in ranks}
        if not pairs:
            break
        best = min(pairs, key=ranks.__getitem__)
        used.add(best)
        merged, at = [], 0
        while at < len(parts):
            if tuple(parts[at : at + 2]) == best:
                merged.append(parts[at] + parts[at + 1])
                at += 2
            else:
                merged.append(parts[at])
                at += 1
        parts = merged
    return parts
