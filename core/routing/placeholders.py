"""The words [ref#1] ... [ref#9]: further T5 tokens with learned embeddings (DreamO arXiv:2504.16915, section 3.3).

Row k - 1 of the published table is [ref#k], its last row [res], whose use is not documented. CLIP-L reads them as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

WORDS = (*(f"[ref#{slot}]" for slot in range(1, 10)), "[res]")
_WORD = re.compile(r"\[ref#(\d+)\]")


def numbers_in(text: str) -> tuple[int, ...]:
    """Return the numbers of the placeholders of a prompt, each once, in order; also those above 9."""
    return tuple(dict.fromkeys(int(number) for number in _WORD.findall(text)))


def faults(numbers: Sequence[int], slots: Sequence[int]) -> list[str]:
    """List mismatches between a prompt's placeholders and the references connected.

    Args:
        numbers: of the placeholders in the prompt; empty means a prompt without them, which is fine.
        slots: of the references.

    Returns:
        One sentence for each.
    """
    unconnected = [f"[ref#{number}]" for number in numbers if number not in slots]
    unnamed = [f"[ref#{slot}]" for slot in slots if numbers and slot not in numbers]
    sentences = []
    if unconnected:
        have = ", ".join(map(str, slots)) or "none"
        sentences.append(
            f"the prompt names {', '.join(unconnected)}, but no reference has that slot (there are: {have}); connect "
            "one more Reference Image or change the number"
        )
    if unnamed:
        sentences.append(
            f"the prompt uses placeholders but not {', '.join(unnamed)}, whose reference is connected; write "
            "it after the words for that reference"
        )
    return sentences
