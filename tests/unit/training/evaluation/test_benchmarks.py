"""Every adapter on a three-item copy of its format; missing files in one report; subsets that are nested."""

import json
from itertools import product

import pytest
from PIL import Image

from training.common.errors import UserErrors
from training.evaluate import main
from training.evaluation.benchmarks.catalogue import SETS
from training.evaluation.benchmarks.lines import Case, picture_name, pictures_in, read_json, read_text_file, subset
from training.evaluation.benchmarks.msbench import literals
from training.evaluation.benchmarks.people import dsg_questions
from training.evaluation.prompts import read_prompts


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.new("RGB", (8, 6), (200, 40, 40)).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def xversebench(root):
    inputs = [
        {"image_path": "images/human/1.jpg", "caption": "a man"},
        {"image_path": "images/animal/2.jpg", "caption": "a cat"},
    ]
    put(
        root / "eval/tools/XVerseBench_single.json",
        [
            {"index": 0, "prompt": "ENT1 reads.", "modulation": [{"src_inputs": inputs[:1]}]},
            {"index": 1, "prompt": "ENT1 sleeps.", "modulation": [{"src_inputs": inputs[1:]}]},
        ],
    )
    put(
        root / "eval/tools/XVerseBench_multi.json",
        [{"index": 0, "prompt": "ENT1 feeds ENT2.", "modulation": [{"src_inputs": inputs}]}],
    )
    put(
        root / "eval/tools/XVerseBench_multi_DSG.json",
        {
            "0": {
                "qid2question": {"1": "Does he feed it?", "2": "Is there a man?"},
                "qid2dependency": {"1": [2], "2": [0]},
            }
        },
    )
    put(root / "images/human/1.jpg"), put(root / "images/animal/2.jpg")
    return {
        "picture": "single/0_0.png",
        "prompt": "ENT1 reads.",
        "id": "single-0",
        "set": "xversebench",
        "names": ["a man"],
        "references": ["set/images/human/1.jpg"],
        "task": "single",
        "seed": 0,
    }


def multihuman(root):
    people = ["faces/a.png", "faces/b.png", "faces/c.png"]
    put(
        root / "data/multihuman_metadata.json",
        [
            {"prompt": "one waves", "people": people[:1], "identifier": ["man"], "vlm_questions": ["Is he waving?"]},
            {"prompt": "two hug", "people": people[:2], "identifier": "person", "vlm_questions": []},
            {"prompt": "three dance", "people": people, "identifier": ["man", "woman"], "vlm_questions": ["Dancing?"]},
        ],
    )
    for one in people:
        put(root / one)
    return {
        "picture": "0.png",
        "prompt": "one waves",
        "id": "0",
        "set": "multihuman",
        "names": ["man"],
        "references": ["set/faces/a.png"],
        "questions": [{"text": "Is he waving?", "wanted": True}],
        "task": "1",
        "seed": 0,
    }


def psrbench(root):
    put(
        root / "action.json",
        [
            {"instruction": "the cat runs", "input_path": ["in/a.png"], "category1": "cat", "result_path": "out/x.png"},
            {
                "instruction": "both run",
                "input_paths": ["in/a.png", "in/b.png"],
                "category1": "cat",
                "category2": "dog",
            },
        ],
    )
    put(
        root / "three.json",
        [
            {
                "instruction": "all run",
                "input_path": ["in/a.png", "in/b.png", "in/a.png"],
                "category1": "cat",
                "category2": "dog",
                "category3": "fox",
            }
        ],
    )
    put(root / "in/a.png"), put(root / "in/b.png")
    return {
        "picture": "action/x.png",
        "prompt": "the cat runs",
        "id": "action-0",
        "set": "psrbench",
        "names": ["cat"],
        "references": ["set/in/a.png"],
        "task": "action",
        "seed": 0,
    }


def multibanana(root):
    for task, name, count in (("three/object", "7", 3), ("three/object", "8", 2), ("scene", "1", 1)):
        put(root / task / f"{name}_prompt.txt", f"compose {count}\n")
        for number in range(count):
            put(root / task / f"{name}_{number}.jpg")
    return {
        "picture": "scene/1_generated.jpg",
        "prompt": "compose 1",
        "id": "scene/1",
        "set": "multibanana",
        "references": ["set/scene/1_0.jpg"],
        "task": "scene",
        "seed": 0,
    }


def omnicontext(root):
    row = {
        "key": "k1",
        "task_type": "multi_object",
        "instruction": "put both together",
        "input_images": ["a.png"],
        "instruction_language": "en",
    }
    rows = [
        row,
        {**row, "key": "k2", "input_images": ["a.png", "b.jpg"]},
        {**row, "key": "k3", "task_type": "scene"},
        {**row, "key": "k4", "instruction_language": "cn"},
    ]
    put(root / "omnicontext.jsonl", "\n".join(map(json.dumps, rows)))
    put(root / "a.png"), put(root / "b.jpg")
    return {
        "picture": "multi_object/k1.png",
        "prompt": "put both together",
        "id": "multi_object/k1",
        "set": "omnicontext",
        "references": ["set/a.png"],
        "task": "multi_object",
        "seed": 0,
    }


def dreambench(root):
    prompts = {"Object": "'a {0} {1} in the jungle'", "Live Subject": "'a {0} {1} wearing a red hat'"}
    text = "Classes\n\nsubject_name,class\nbackpack,backpack\ndog6,dog\nbear_plushie,stuffed animal\n\nPrompts\n\n"
    text += "\n\n".join(
        f"{kind} Prompts\n\nprompt_list = [\n{one}.format(unique_token, class_token)\n]"
        for kind, one in prompts.items()
    )
    put(root / "dataset/prompts_and_classes.txt", text)
    for subject in ("backpack", "dog6", "bear_plushie"):
        put(root / f"dataset/{subject}/00.jpg"), put(root / f"dataset/{subject}/01.jpg")
    return {
        "picture": "backpack_00_0.png",
        "prompt": "a backpack in the jungle",
        "id": "backpack-00",
        "set": "dreambench",
        "names": ["backpack"],
        "boxes": [[0.25, 0.25, 0.75, 0.75]],
        "references": ["set/dataset/backpack/00.jpg"],
        "views": [["set/dataset/backpack/00.jpg", "set/dataset/backpack/01.jpg"]],
        "task": "object",
        "seed": 0,
    }


def dreambench_plus(root):
    put(root / "captions/live/animal/00.txt", "cat\na cat on a boat\n\na cat in the snow\n")
    put(root / "captions/object/03.txt", "lamp\na lamp at night\n")
    put(root / "images/live/animal/00.jpg"), put(root / "images/object/03.png")
    return {
        "picture": "live_animal_00_0_0.png",
        "prompt": "a cat on a boat",
        "id": "live/animal/00-0",
        "set": "dreambench++",
        "names": ["cat"],
        "boxes": [[0.25, 0.25, 0.75, 0.75]],
        "references": ["set/images/live/animal/00.jpg"],
        "task": "live/animal",
        "seed": 0,
    }


def customconcept101(root):
    one, other = (
        {
            "class_prompt": name,
            "instance_data_dir": f"./benchmark_dataset/{folder}",
            "prompt_filename": "prompts/one.txt",
        }
        for name, folder in (("dog", "pet_dog1"), ("jacket", "wearable_jacket1"))
    )
    put(root / "dataset.json", [one])
    put(root / "dataset_multiconcept.json", [[one, other, {"prompt_filename_compose": "prompts/two.txt"}]])
    put(root / "prompts/one.txt", "a {0} on a hill\n")
    put(root / "prompts/two.txt", "photo of the {0} and {1}. \na {1} beside a {0}")
    for path in ("pet_dog1/1.jpeg", "pet_dog1/2.jpeg", "wearable_jacket1/a.png"):
        put(root / "benchmark_dataset" / path)
    return {
        "picture": "single-000_00_0.png",
        "prompt": "a dog on a hill",
        "id": "single-000-00",
        "set": "customconcept101",
        "names": ["dog"],
        "boxes": [[0.25, 0.25, 0.75, 0.75]],
        "references": ["set/benchmark_dataset/pet_dog1/1.jpeg"],
        "views": [["set/benchmark_dataset/pet_dog1/1.jpeg", "set/benchmark_dataset/pet_dog1/2.jpeg"]],
        "task": "single",
        "seed": 0,
    }


def msbench(root):
    put(
        root / "msdiffusion/dataset/prompts/msbench.py",
        """
data_class_dict = {"dog1": "dog", "cat": "cat", "teddybear": "stuffed animal"}
subject_combination_boxes = {"living_living": [[0., 0.25, 0.5, 0.75], [0.5, 0.25, 1., 0.75]],
                             "living_object": [[0., 0.25, 0.5, 0.75], [0.5, 0.25, 1., 0.75]]}
normal = ["a {0} and a {1} in a room"]
subject_combination_prompts = {"living_living": normal, "living_object": normal}
computed = open("anything")
""",
    )
    put(root / "msbench/living/cat.png"), put(root / "msbench/living/dog1.jpg")
    put(root / "msbench/object/teddybear.jpg")
    return {
        "picture": "living_living_cat-dog1_0_0.png",
        "prompt": "a cat and a dog in a room",
        "id": "living_living/cat-dog1/0",
        "set": "msbench",
        "names": ["cat", "dog"],
        "boxes": [[0, 0.25, 0.5, 0.75], [0.5, 0.25, 1, 0.75]],
        "references": ["set/msbench/living/cat.png", "set/msbench/living/dog1.jpg"],
        "task": "living_living",
        "seed": 0,
    }


FORMATS = {
    "xversebench": xversebench,
    "multihuman": multihuman,
    "psrbench": psrbench,
    "multibanana": multibanana,
    "omnicontext": omnicontext,
    "dreambench": dreambench,
    "dreambench++": dreambench_plus,
    "customconcept101": customconcept101,
    "msbench": msbench,
}


def convert(name, tmp_path, *more, out="prompts.jsonl"):
    return main(["convert", name, "--from", str(tmp_path / "set"), "--out", str(tmp_path / out), *more])


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", FORMATS)
def test_three_items_of_a_set(name, tmp_path, capsys):
    first = FORMATS[name](tmp_path / "set")
    assert convert(name, tmp_path) == 0
    written = lines(tmp_path / "prompts.jsonl")
    assert len(written) == 3 and {key: value for key, value in written[0].items() if value} == {
        key: value for key, value in first.items() if value
    }
    for line in written:  # what was written is read again, with every file there
        put(tmp_path / "pictures" / line["picture"])
    assert len(read_prompts(tmp_path / "prompts.jsonl", tmp_path / "pictures")) == 3
    facts = json.loads((tmp_path / "prompts.facts.json").read_text())
    assert facts["licence"] == SETS[name].licence and facts["cases"] == 3
    assert SETS[name].licence in capsys.readouterr().out
    assert Image.open(tmp_path / "prompts.sheet.png").width > 800


@pytest.mark.parametrize("name", FORMATS)
def test_every_missing_file_is_in_one_report(name, tmp_path, capsys):
    FORMATS[name](tmp_path / "set")
    gone = [path for path in sorted((tmp_path / "set").rglob("*.*")) if path.suffix in (".jpg", ".png", ".jpeg")]
    for path in gone:
        path.unlink()
    assert convert(name, tmp_path) == 2
    report = capsys.readouterr().err
    assert "is missing" in report or name == "msbench" and "no case" in report
    if name not in ("msbench", "multibanana", "dreambench", "customconcept101"):  # these list their folders
        assert all(path.stem in report for path in gone)
    assert not (tmp_path / "prompts.jsonl").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_of_something_else_is_refused_with_what_was_expected(name, tmp_path, capsys):
    put(tmp_path / "set" / "readme.txt", "nothing")
    assert convert(name, tmp_path) == 2
    assert "expected" in capsys.readouterr().err


def test_broken_files_are_a_fault_and_no_traceback(tmp_path, capsys):
    put(tmp_path / "set/eval/tools/XVerseBench_single.json", [{"index": 0}])
    assert convert("xversebench", tmp_path) == 2
    assert "not in XVerseBench's format (KeyError: 'modulation')" in capsys.readouterr().err


def test_a_broken_picture_leaves_nothing_written(tmp_path, capsys):
    FORMATS["multihuman"](tmp_path / "set")
    picture = next(path for path in sorted((tmp_path / "set").rglob("*.*")) if path.suffix in (".jpg", ".png"))
    picture.write_bytes(picture.read_bytes()[:40])
    for _ in range(2):
        assert convert("multihuman", tmp_path) == 2
        assert f"{picture.name}: not a whole picture" in capsys.readouterr().err
    assert not list(tmp_path.glob("prompts.*"))


def test_seeds_and_a_file_that_exists(tmp_path, capsys):
    FORMATS["multihuman"](tmp_path / "set")
    assert convert("multihuman", tmp_path, "--seeds", "2") == 0
    assert [line["picture"] for line in lines(tmp_path / "prompts.jsonl")][:3] == ["0_0.png", "0_1.png", "1_0.png"]
    assert convert("multihuman", tmp_path, "--limit", "0") == 2
    report = capsys.readouterr().err
    assert "--limit 0: expected at least 1" in report and "exists; choose a file" in report


def test_a_pair_with_a_wearable_is_kept_apart(tmp_path):
    FORMATS["customconcept101"](tmp_path / "set")
    convert("customconcept101", tmp_path)
    assert {line["task"] for line in lines(tmp_path / "prompts.jsonl")} == {"single", "pair with a scene or a wearable"}


def test_a_questions_parents_come_before_it(tmp_path):
    graph = {
        "qid2question": {"1": "child", "2": "parent", "3": "grandchild"},
        "qid2dependency": {"1": [2], "2": [0], "3": [1]},
    }
    assert [(one["text"], one["parents"]) for one in dsg_questions(graph)] == [
        ("parent", []),
        ("child", [0]),
        ("grandchild", [1]),
    ]
    circle = {"qid2question": {"1": "a", "2": "b"}, "qid2dependency": {"1": [2], "2": [1]}}
    assert [one["parents"] for one in dsg_questions(circle)] == [[], [0]]


def test_a_python_file_is_read_as_data(tmp_path):
    facts = literals("a = [1]\nb = {'x': a}\nc = open('x')\nd = a + b", tmp_path)
    assert facts == {"a": [1], "b": {"x": [1]}}


def test_msbench_has_the_published_number_of_combinations():
    """Forty pictures in seven categories make 1148 combinations and 4488 samples."""
    from math import comb, prod

    sizes = {
        "living": 10,
        "object": 10,
        "scene": 4,
        "upwearing": 5,
        "midwearing": 6,
        "wholewearing": 2,
        "downwearing": 3,
    }
    kinds = [
        "living living",
        "living object",
        "object object",
        "living upwearing",
        "living midwearing",
        "living wholewearing",
        "midwearing downwearing",
        "living scene",
        "object scene",
        "living living living",
        "object object object",
        "living object scene",
        "upwearing midwearing downwearing",
    ]
    counts = {kind: prod(comb(sizes[one], kind.split().count(one)) for one in set(kind.split())) for kind in kinds}
    assert sum(counts.values()) == 1148
    assert sum(count * (1 if "scene" in kind else 6) for kind, count in counts.items()) == 4488


def test_a_smaller_subset_is_a_part_of_a_larger_one():
    cases = [Case(str(number), "p.png", "") for number in range(200)]
    chosen = {limit: [case.id for case in subset(cases, limit)] for limit in (50, 100, 200, None)}
    assert set(chosen[50]) < set(chosen[100]) and len(chosen[50]) == 50
    assert chosen[50] == sorted(chosen[50], key=int) and chosen[200] == chosen[None]
    assert chosen[50] != [str(number) for number in range(50)]


def test_pictures_of_several_seeds_have_different_names():
    for pattern, seed in product(("a_{k}.png", "part/a.png"), range(2)):
        assert picture_name(pattern, seed, 2) == f"{'part/' if '/' in pattern else ''}a_{seed}.png"
    assert picture_name("a.png", 0, 1) == "a.png"


def test_text_of_a_set_is_read_as_all_text_is(tmp_path):
    """A byte order mark is no part of it, other encodings are named, and litter is no case."""
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.txt").write_text("a cat", encoding="utf-16")
    with pytest.raises(UserErrors, match="a.txt: expected a text file of the benchmark .*got UTF-16"):
        read_text_file(tmp_path / "a.txt")
    for name in ("cat.png", "._cat.png"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in pictures_in(tmp_path)] == ["cat.png"] and pictures_in(tmp_path / "none") == ()
