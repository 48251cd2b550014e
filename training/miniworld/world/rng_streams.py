"""One table of random streams: every generator of the world is named here, and no two can coincide.

numpy's SeedSequence pads a short key with zeros, so the keys (seed, 7) and (seed, 7, 0) would give the same numbers.
Here every key has the same length, the seed in its own words and each index raised by one, so that two different
(seed, stream, indices) never share a key.
"""

from enum import IntEnum

import numpy as np

MOST_INDICES = 3


class Stream(IntEnum):
    """Purpose of a generator. Numbers are part of every data set: never reuse one, add new ones at the end."""

    BANK = 1  # identities of a corpus
    PORTRAIT = 2  # reference pictures of a corpus
    SCENE = 3  # scenes of a corpus
    BACKDROP = 4  # where a backdrop's hills and trees stand
    LABELLED = 5  # scenes the classifiers learn from and are validated on
    FUSION = 6  # planted fused bodies
    TRIPLET = 7  # training triplets of a relation
    EVALUATION = 8  # scenes that a model draws for evaluation
    EXAMPLE = 9  # the example creatures
    SHEET = 10  # contact sheets
    REFERENCE = 11  # reference pictures of these scenes
    STRANGER = 12  # other identities of the same species, and their pictures
    LAYOUT = 13  # poses of a scene drawn anew
    DETECTOR = 14  # scenes the detector learns from and is validated on
    FAULT = 15  # planted faults
    GENERATED = 16  # triplets that are drawn to be annotated


def generator(seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """Make the generator of one draw.

    Args:
        seed: of the data set, 0 or more.
        stream: purpose.
        indices: number of the draw, at most MOST_INDICES numbers of 0 or more.

    Returns:
        A numpy Generator that no other (seed, stream, indices) has.

    Raises:
        ValueError: a negative number or too many indices.
    """
    if seed < 0 or any(index < 0 for index in indices) or len(indices) > MOST_INDICES:
        raise ValueError(
            f"random stream {stream.name}: expected a seed and at most {MOST_INDICES} indices, all 0 or more; "
            f"got seed {seed}, indices {indices}"
        )
    padded = [index + 1 for index in indices] + [0] * (MOST_INDICES - len(indices))
    key = [int(stream), *padded, seed]
    # 64-bit words keep keys of equal length whatever the size of a number
    words = [part for number in key for part in (number & 0xFFFFFFFF, number >> 32)]
    return np.random.default_rng(words)
