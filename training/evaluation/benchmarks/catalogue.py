"""The sets that can be converted: where their files are from, how many cases they have, under what licence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .edits import multibanana, omnicontext, psrbench
from .lines import Case
from .msbench import msbench
from .people import multihuman, xversebench
from .subjects import customconcept101, dreambench, dreambench_plus, relationbench


@dataclass(frozen=True)
class Benchmark:
    """A public prompt set.

    Attributes:
        title: for tables.
        source: where the user gets it.
        size: number of cases of the whole set.
        licence: of code and pictures, as far as it is stated.
        read: reads the cases of a folder.
    """

    title: str
    source: str
    size: str
    licence: str
    read: Callable[[Path], list[Case]]


SETS = {
    "xversebench": Benchmark(
        "XVerseBench",
        "bytedance/XVerse",
        "90 single, 210 multi",
        "Apache-2.0; photographs of people inside, objects and animals from DreamBench++",
        xversebench,
    ),
    "multihuman": Benchmark(
        "MultiHuman-Testbench",
        "Qualcomm-AI-research/MultiHuman-Testbench",
        "1800",
        "code BSD-3-Clause-Clear; faces by download under a research licence",
        multihuman,
    ),
    "psrbench": Benchmark("PSRBench", "wang-shulei/PSR", "7 x 50", "none stated: ask the authors", psrbench),
    "multibanana": Benchmark(
        "MultiBanana",
        "kohsei/MultiBanana-Benchmark (hub), matsuolab/multibanana (code)",
        "3769",
        "CC BY-NC 4.0",
        multibanana,
    ),
    "omnicontext": Benchmark(
        "OmniContext",
        "OmniGen2/OmniContext (hub), VectorSpaceLab/OmniGen2 (code)",
        "8 tasks",
        "code Apache-2.0; pictures not stated",
        omnicontext,
    ),
    "dreambench": Benchmark("DreamBench", "google/dreambooth", "30 x 25", "CC BY 4.0", dreambench),
    "dreambench++": Benchmark(
        "DreamBench++", "yuangpeng/dreambench_plus", "150 x 9", "code Apache-2.0; pictures mixed", dreambench_plus
    ),
    "customconcept101": Benchmark(
        "CustomConcept101",
        "adobe-research/custom-diffusion",
        "101 concepts, 101 pairs x 12",
        "Adobe research licence (non-commercial); pictures Unsplash and CC BY-SA 4.0",
        customconcept101,
    ),
    "msbench": Benchmark(
        "MS-Bench",
        "MS-Diffusion/MS-Diffusion, doge1516/MS-Bench (hub)",
        "1148 combinations, 4488 samples",
        "code MIT; pictures not stated",
        msbench,
    ),
    "relationbench": Benchmark(
        "RelationBench",
        "templates of arXiv:2410.23280, your own subjects",
        "100",
        "templates quoted from the paper; pictures are yours",
        relationbench,
    ),
}


def licence_of(name: str) -> str:
    """Return the licence of a set that a prompts file names; empty for other sets."""
    return SETS[name].licence if name in SETS else ""
