"""Sets of subjects: DreamBench, DreamBench++, CustomConcept101, RelationBench."""

from __future__ import annotations

import re
from pathlib import Path

from core import user_files

from ...common.errors import UserErrors
from ..relationbench import PAIR_BOXES, SINGLE_BOX, find_subjects
from ..relationbench import cases as relationbench_cases
from .lines import Case, picture_like, pictures_in, read_json, read_text_file

LIVE = {"cat", "dog"}  # DreamBench's classes that get the prompts of living things
# Concepts of CustomConcept101 that fill a picture or are worn: their boxes are no fair place.
_UNMOVABLE = ("scene_", "wearable_", "person_wearable")


def dreambench(folder: Path) -> list[Case]:
    """Read `dataset/prompts_and_classes.txt` and `dataset/<subject>/*.jpg` of google/dreambooth: 30 x 25 prompts.

    The unique token is left out of the prompts. 00.jpg is the reference, all pictures are views.
    """
    root = folder / "dataset" if (folder / "dataset").is_dir() else folder
    text = read_text_file(root / "prompts_and_classes.txt")
    classes = re.findall(r"^(\w+),([\w ]+)$", text.split("Prompts")[0], re.MULTILINE)[1:]
    lists = [re.findall(r"'([^']*)'\.format", part) for part in text.split("prompt_list")[1:]]
    if not classes or len(lists) != 2:
        raise UserErrors(f"{root / 'prompts_and_classes.txt'}: expected DreamBench's classes and two lists of prompts.")
    cases = []
    for subject, kind in classes:
        views = pictures_in(root / subject) or (root / subject / "00.jpg",)
        for number, prompt in enumerate(lists[kind in LIVE]):
            cases.append(
                Case(
                    id=f"{subject}-{number:02d}",
                    picture=f"{subject}_{number:02d}_{{k}}.png",
                    prompt=" ".join(prompt.format("", kind).split()),
                    references=(views[0],),
                    names=(kind,),
                    views=(views,),
                    boxes=SINGLE_BOX,
                    task="live" if kind in LIVE else "object",
                )
            )
    return cases


def dreambench_plus(folder: Path) -> list[Case]:
    """Read `images/**/<name>.jpg` and `captions/**/<name>.txt`: line 1 the subject, then the prompts."""
    captions = user_files.visible_files(folder / "captions", {".txt"}, deep=True)
    if not captions:
        raise UserErrors(f"--from {folder}: expected DreamBench++'s folders captions/ and images/; no caption found.")
    cases = []
    for path in captions:
        inside = path.relative_to(folder / "captions").with_suffix("")
        name, *prompts = [line.strip() for line in read_text_file(path).splitlines() if line.strip()]
        reference = picture_like(folder / "images" / inside.with_suffix(".jpg"))
        for number, prompt in enumerate(prompts):
            cases.append(
                Case(
                    id=f"{inside.as_posix()}-{number}",
                    picture=f"{inside.as_posix().replace('/', '_')}_{number}_{{k}}.png",
                    prompt=prompt,
                    references=(reference,),
                    names=(name,),
                    boxes=SINGLE_BOX,
                    task=inside.parent.as_posix() if inside.parent.name else "",
                )
            )
    return cases


def customconcept101(folder: Path) -> list[Case]:
    """Read `dataset.json`, `dataset_multiconcept.json` and `prompts/*.txt` of custom-diffusion.

    Args:
        folder: `customconcept101/`, with the pictures in `benchmark_dataset/`.
    """
    cases = []
    pairs = folder / "dataset_multiconcept.json"
    singles = folder / "dataset.json"
    if not pairs.is_file() and not singles.is_file():
        raise UserErrors(f"--from {folder}: expected customconcept101/ with dataset.json or dataset_multiconcept.json.")
    for number, concept in enumerate(read_json(singles) if singles.is_file() else ()):
        cases += _concept_cases(folder, f"single-{number:03d}", [concept], concept["prompt_filename"])
    for number, (first, second, compose) in enumerate(read_json(pairs) if pairs.is_file() else ()):
        cases += _concept_cases(folder, f"pair-{number:03d}", [first, second], compose["prompt_filename_compose"])
    return cases


def _concept_cases(folder: Path, name: str, concepts: list[dict[str, str]], prompts: str) -> list[Case]:
    names = tuple(concept["class_prompt"] for concept in concepts)
    folders = [folder / concept["instance_data_dir"] for concept in concepts]
    views = tuple(pictures_in(one) or (one / "1.jpeg",) for one in folders)
    unfair = any(one.name.startswith(_UNMOVABLE) for one in folders)
    task = "single" if len(concepts) == 1 else "pair with a scene or a wearable" if unfair else "pair"
    lines = [line.strip() for line in read_text_file(folder / prompts).splitlines() if line.strip()]
    return [
        Case(
            id=f"{name}-{number:02d}",
            picture=f"{name}_{number:02d}_{{k}}.png",
            prompt=prompt.format(*names),
            references=tuple(own[0] for own in views),
            names=names,
            views=views,
            boxes=SINGLE_BOX if len(concepts) == 1 else PAIR_BOXES,
            task=task,
        )
        for number, prompt in enumerate(lines)
    ]


def relationbench(folder: Path) -> list[Case]:
    """Fill RelationBench's 25 templates with a folder of subjects.

    The authors' own list of cases (QingyuShi/RelationBench on the hub) has not been seen by us; if you have it, write
    its lines as a prompts file, whose keys are in `training/evaluation/prompts.py`.
    """
    return [
        Case(
            id=Path(line["picture"]).stem,
            picture=line["picture"],
            prompt=line["prompt"],
            references=tuple(line["references"]),
            names=tuple(line["names"]),
            relation=line["relation"],
            boxes=SINGLE_BOX if len(line["names"]) == 1 else PAIR_BOXES,
            extra={"template": line["template"]},
            symmetric=line.get("symmetric"),
        )
        for line in relationbench_cases(find_subjects(folder), 1)
    ]
