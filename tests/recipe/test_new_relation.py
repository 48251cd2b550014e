"""docs/new_relation.md run literally in the miniworld: an idea to a LoRA and its count, nothing annotated by hand."""

import json
import re
import shlex

import pytest
from safetensors import safe_open

from tests.surface import ROOT, run_command
from training.data.triplets import read_triplets
from training.evaluation.prompts import read_prompts
from training.evaluation.relationbench import relationbench
from training.evaluation.reproduce import command as reproduce
from training.evaluation.reproduce.jobs import check_entries
from training.evaluation.reproduce.settings import SDXL

# what makes the lines of the page small; everything else in them is as printed
SMALL = {
    "--count 5": "--count 2",
    "--scenes 24": "--scenes 2",
    "--method relate": "--method relate --set steps=2 --device cpu",
    '--set "relation=': "--set train.steps=3 --set train.warmup_steps=0 --set train.batch_size=2 --set samples.every=0 "
    '--set train.device=cpu --set output.cache=out/shake/cache --set "relation=',
}


def printed_commands():
    """The lines of the page's second block: module and arguments."""
    page = (ROOT / "docs" / "new_relation.md").read_text(encoding="utf-8")
    block = re.findall(r"```\n(.*?)```", page, re.DOTALL)[1]
    return [line for line in block.splitlines() if line]


def test_five_commands_from_an_idea_to_a_counted_lora(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    commands, out = printed_commands(), tmp_path / "shake"
    assert len(commands) == 5
    for line in commands:
        for printed, small in SMALL.items():
            line = line.replace(printed, small)
        start, module, *arguments = shlex.split(line.replace("out/shake", str(out)).removeprefix("python "))
        assert start == "-m"
        assert run_command(module, arguments, monkeypatch) == 0, capsys.readouterr().err
    # 1. triplets: annotated by the miniworld's models from pixels alone, their origin named
    triplets = read_triplets(out / "triplets")
    assert len(triplets) == 2 and {one.predicate for one in triplets} == {"shaking hands with"}
    assert all(one.masks and one.keypoints_target.shape == (2, 17, 3) for one in triplets)
    lines = [json.loads(line) for line in (out / "triplets" / "triplets.jsonl").read_text("utf-8").splitlines()]
    assert {line["origin"]["licence"] for line in lines} == {"MIT"} and lines[0]["origin"]["engine"] == "miniworld"
    report = json.loads((out / "triplets" / "report.json").read_text(encoding="utf-8"))
    assert report["yield"] and report["accepted"]
    assert report["generation"]["engine"] == "miniworld"  # kept by annotate --apply
    # 2. the LoRA
    with safe_open(out / "lora" / "miniworld_shaking_hands_with.safetensors", framework="pt") as file:
        assert file.metadata()["relation"] == "shaking hands with" and len(file.keys()) > 10
        assert file.metadata()["data_licences"] == "MIT"
    # 3. the count
    exact = json.loads((out / "measured" / "scores.json").read_text(encoding="utf-8"))["exact"]
    assert exact["relation"]["trials"] == 2


def test_a_relation_that_relationbench_does_not_have_is_measured_on_lines_of_its_own(tmp_path):
    page = (ROOT / "docs" / "new_relation.md").read_text(encoding="utf-8")
    *_, last = re.findall(r"```\n(.*?)```", page, re.DOTALL)[0].splitlines()
    arguments = shlex.split(last.partition("relationbench run")[2])
    assert reproduce.parser().parse_args(arguments).prompts is not None
    (line,) = re.findall(r"`(\{.*\})`", page)
    (tmp_path / "prompts.jsonl").write_text(line, encoding="utf-8")
    for name in json.loads(line)["references"]:
        (tmp_path / name).touch()
    entries = read_prompts(tmp_path / "prompts.jsonl", tmp_path / "pictures", missing="keep")
    check_entries(entries, ["ms-diffusion", "relate"])
    (entry,) = entries
    assert entry.relation not in {template["relation"] for template in relationbench()["templates"]}
    assert SDXL.relation_file(entry.relation) in page


@pytest.fixture
def generate(tmp_path, monkeypatch, capsys):
    """`python -m training.generate` in the miniworld; exit code and what it said."""

    def run(*changes):
        arguments = ["--engine", "miniworld", "--relation", "high-fiving", "--subjects", "cat, frog", "--count", "1"]
        code = run_command("training.generate", [tmp_path / "out", *arguments, *changes], monkeypatch)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_too_few_triplets_end_with_the_yield_of_each_gate(generate, tmp_path):
    """A gate that nothing passes; then the same folder with one that is open, and nothing is drawn again."""
    strict = tmp_path / "strict.toml"
    strict.write_text("[pose_differs]\nreject = 2.0\nwarn = 3.0\n", encoding="utf-8")
    code, _, error = generate("--tries", "1", "--thresholds", strict)
    assert code == 1
    assert "only 0 of 1 triplets after 1 attempts" in error
    assert '1 failed "pose_differs"' in error and "review.html" in error
    code, said, _ = generate("--tries", "1", "--no-filters", "--thresholds", strict)
    assert code == 0 and "drew" not in said and "1 triplets of 'high-fiving'" in said
    facts = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["generation"]
    assert facts["accepted"] == facts["attempts"] == 1 and facts["pictures_drawn"] == 0 and facts["licence"] == "MIT"


def test_every_fault_comes_in_one_message_and_nothing_is_written(generate, tmp_path):
    code, _, error = generate("--relation", " ", "--subjects", "a, a", "--wording", "no.toml", "--kind", "fox=fish")
    assert code == 2 and not (tmp_path / "out").exists()
    for part in ("--relation", 'two subjects are named "a"', "--wording no.toml", "--kind fox=fish"):
        assert part in error
    code, _, error = generate("--relation", "knitting")
    assert code == 2 and "the miniworld draws" in error and not (tmp_path / "out").exists()
    editor, titles = tmp_path / "editor.json", tmp_path / "titles.json"
    editor.write_text('{"nodes": [], "links": []}', encoding="utf-8")
    titles.write_text('{"1": {"class_type": "SaveImage", "inputs": {}}}', encoding="utf-8")
    comfyui = ("--engine", "comfyui", "--backend", "miniworld", "--server", "127.0.0.1:9")
    code, _, error = generate(*comfyui, "--target-template", editor, "--edit-template", titles)
    assert code == 2 and "a workflow for the editor (nodes, links), expected the API format" in error
    assert 'no node titled "relate:prompt", "relate:seed", "relate:image1"' in error
    assert "--server: ComfyUI at http://127.0.0.1:9 does not answer" in error
    assert not (tmp_path / "out").exists()
