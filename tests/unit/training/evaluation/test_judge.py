"""Questions, verdicts, grades and the judge's own accuracy, with a judge whose every answer is fixed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from training.common import agreement, stats
from training.common.errors import UserErrors
from training.evaluation.judge import accuracy
from training.evaluation.judge.answers import Answers, CannotAnswer
from training.evaluation.judge.graded import AGAIN, grade_picture, grading_text, parse_grades
from training.evaluation.judge.page import labelling_page
from training.evaluation.judge.questions import gerund, questions_of
from training.evaluation.judge.verdicts import judge_picture
from training.evaluation.prompts import Entry, Question
from training.evaluation.relationbench import relationbench

GOLDEN = Path(__file__).parents[3] / "golden" / "relationbench_questions.json"
GRADES = '{"relation": 8, "identity_1": 7, "identity_2": 6.5, "quality": 10}'


class FixedJudge:
    """Answers yes with the probability of the first words that a question contains; .1 otherwise."""

    def __init__(self, chances=None, texts=(), mirrored=None, **facts):
        self.chances, self.texts, self.mirrored = chances or {}, list(texts), mirrored
        self.facts = {"judge": "fixed", "revision": "1", **facts}
        self.questions = []

    def yes_no(self, images, question):
        self.questions.append(question)
        p = next((p for words, p in self.chances.items() if words in question), 0.1)
        if p is None:
            raise CannotAnswer(question)
        if self.mirrored is not None and images[0].getpixel((0, 0)) == (0, 0, 255):
            p = self.mirrored
        return math.log(0.8 * p), math.log(0.8 * (1 - p))

    def answer(self, images, text, longest=256):
        self.questions.append(text)
        return self.texts.pop(0)


@pytest.fixture
def entry(tmp_path):
    """A picture, red on the left and blue on the right, of a cat carrying a bear."""
    picture = Image.new("RGB", (4, 4), (255, 0, 0))
    picture.paste((0, 0, 255), (2, 0, 4, 4))
    picture.save(tmp_path / "1.png")
    return Entry(1, tmp_path / "1.png", "a cat is carrying a bear", "carrying", (), ("cat", "bear"))


def verdict(entry, chances, predicate="carrying", **options):
    return judge_picture(entry, predicate, Answers(FixedJudge(chances, **options)))


def test_the_questions_of_relationbench_are_those_of_the_golden_file():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    templates = relationbench()["templates"]
    assert list(golden) == [template["relation"] for template in templates] and len(golden) == 25
    for template in templates:
        names = ("cat", "plushie bear")[: template["prompt"].count("{ }")]
        questions = questions_of(Entry(1, Path("x"), "", names=names), template["relation"])
        assert [f"{one.kind}: {one.text}" for one in questions] == golden[template["relation"]]


@pytest.mark.parametrize(
    "third_person, ing",
    [
        ("hugs", "hugging"),
        ("kisses", "kissing"),
        ("carries", "carrying"),
        ("lies on", "lying on"),
        ("feeds", "feeding"),
        ("runs after", "running after"),
        ("shakes hands with", "shaking hands with"),
        ("visits", "visiting"),
        ("partner dancing with", "partner dancing with"),
        ("sees", "seeing"),
        ("fixes", "fixing"),
        ("ride", "riding"),
        ("sings", "singing"),
        ("brings", "bringing"),
        ("is hugging", "hugging"),
        ("are hugged by", "hugged by"),
        ("is on top of", "on top of"),
        ("has tea with", "having tea with"),
        ("does yoga with", "doing yoga with"),
        ("goes to", "going to"),
        ("", ""),
    ],
)
def test_gerunds(third_person, ing):
    assert gerund(third_person) == ing


def test_two_subjects_of_one_name_are_one_and_another(entry):
    same = Entry(1, entry.picture, "", names=("owl", "owl"))
    texts = [one.text for one in questions_of(same, "hugs")]
    assert texts == [
        "Is an owl hugging another owl in this picture?",
        "Do the two owls touch each other in this picture?",
        "Is there an owl in this picture?",
    ]
    assert questions_of(same, None) == [] == questions_of(Entry(1, entry.picture, ""), "hugs")


def test_a_proper_name_is_asked_about_without_an_article(entry):
    people = Entry(1, entry.picture, "", names=("Anna", "the old man"), symmetric=False)
    assert [one.text for one in questions_of(people, "hugs")] == [
        "Is Anna hugging the old man in this picture?",
        "Is the old man hugging Anna in this picture?",
        "Do Anna and the old man touch each other in this picture?",
        "Is Anna in this picture?",
        "Is the old man in this picture?",
    ]


def test_the_prompts_file_decides_whether_a_relation_is_directed(entry):
    kinds = {
        symmetric: [
            one.kind
            for one in questions_of(Entry(1, entry.picture, "", names=("cat", "bear"), symmetric=symmetric), "chasing")
        ]
        for symmetric in (None, True, False)
    }
    assert "reversed" in kinds[False] and "reversed" not in kinds[True] + kinds[None]


def test_what_happened_happened(entry):
    seen = verdict(entry, {"cat carrying": 0.9, "bear carrying": 0.2, "there": 0.9, "touch": 0.7})
    assert (seen.happened, seen.reversed, seen.contact, seen.present) == (1, 0, 1, 1)
    assert seen.probability == pytest.approx(0.9) and seen.mass == pytest.approx(0.8)


def test_without_a_subject_the_relation_did_not_happen(entry):
    seen = verdict(entry, {"cat carrying": 0.9, "there a cat": 0.9})
    assert (seen.happened, seen.present) == (0, 0.5) and seen.probability == pytest.approx(0.9)


def test_the_other_way_round_is_a_reversal_only_if_it_is_surer(entry):
    assert verdict(entry, {"cat carrying": 0.6, "bear carrying": 0.8, "there": 0.9}).reversed == 1
    assert verdict(entry, {"cat carrying": 0.8, "bear carrying": 0.6, "there": 0.9}).reversed == 0
    assert verdict(entry, {"cat carrying": 0.1, "bear carrying": 0.4, "there": 0.9}).reversed == 0
    assert verdict(entry, {"there": 0.9}, predicate="hugging").reversed is None


def test_the_mirrored_picture_must_get_the_same_answer(entry):
    assert verdict(entry, {"cat carrying": 0.9, "there": 0.9}).mirror_differs == 0
    assert verdict(entry, {"cat carrying": 0.9, "there": 0.9}, mirrored=0.2).mirror_differs == 1


def test_a_childs_answer_counts_only_with_its_parents(entry):
    asked = Entry(
        1,
        entry.picture,
        "",
        questions=(
            Question("Is it day?"),
            Question("Is the day bright?", True, (0,)),
            Question("Is it raining?", wanted=False),
        ),
    )
    assert judge_picture(asked, None, Answers(FixedJudge({"it day": 0.9, "bright": 0.9}))).questions == 1
    assert judge_picture(asked, None, Answers(FixedJudge({"bright": 0.9}))).questions == pytest.approx(1 / 3)


def test_a_question_that_cannot_be_answered_is_no_no(entry):
    seen = verdict(entry, {"cat carrying": None, "there": 0.9})
    assert (seen.happened, seen.probability, seen.mirror_differs, seen.reversed) == (None,) * 4 and seen.present == 1


def test_answers_are_remembered_by_the_contents_of_picture_question_and_judge(entry, tmp_path):
    memory = tmp_path / "memory.jsonl"
    first = Answers(FixedJudge({"cat": 0.9}), memory)
    p = first.yes(entry.picture, "Is there a cat?")
    copy = tmp_path / "copy.png"
    copy.write_bytes(entry.picture.read_bytes())
    again = Answers(FixedJudge(), memory)
    assert again.yes(copy, "Is there a cat?") == p and again.asked == 0
    assert again.yes(copy, "Is there a dog?") != p and again.asked == 1
    assert again.yes(copy, "Is there a cat?", mirrored=True) != p
    assert Answers(FixedJudge(revision="2"), memory).yes(copy, "Is there a cat?") != p
    copy.write_bytes(b"x")  # another picture
    with pytest.raises(UserErrors):
        Answers(FixedJudge(), memory).yes(copy, "Is there a cat?")


def test_a_memory_cut_off_by_a_kill_is_read_up_to_there(entry, tmp_path):
    memory = tmp_path / "memory.jsonl"
    Answers(FixedJudge({"cat": 0.9}), memory).yes(entry.picture, "Is there a cat?")
    memory.write_text(memory.read_text() + '{"key": "12', encoding="utf-8")
    again = Answers(FixedJudge(), memory)
    assert again.yes(entry.picture, "Is there a cat?")[0] == pytest.approx(0.9) and again.asked == 0
    again.yes(entry.picture, "Is there a dog?")
    third = Answers(FixedJudge(), memory)
    assert third.yes(entry.picture, "Is there a dog?") and third.asked == 0


@pytest.mark.parametrize("answer", [GRADES, f"Here you are:\n```json\n{GRADES}\n```"])
def test_grades_are_read(answer):
    assert parse_grades(answer, 2) == {"relation": 8, "identity_1": 7, "identity_2": 6.5, "quality": 10}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "8, 7, 6, 10",
        GRADES + GRADES,
        '{"relation": 8}',
        GRADES.replace("8", "11"),
        GRADES.replace("8", "true"),
        GRADES.replace("8", '"8"'),
        GRADES.replace("quality", "beauty"),
        GRADES[:-1],
    ],
)
def test_what_is_not_exactly_the_grades_is_unparsable(answer):
    assert parse_grades(answer, 2) is None


def test_an_unparsable_grade_is_asked_once_more_and_then_left_out(entry, tmp_path):
    pair = Entry(1, entry.picture, entry.prompt, references=(entry.picture, entry.picture))
    judge = FixedJudge(texts=["I would say nine.", GRADES])
    assert grade_picture(pair, Answers(judge)).grades["relation"] == 8
    assert judge.questions[1] == f"{grading_text(pair)}\n{AGAIN}"
    stubborn = FixedJudge(texts=["nine", "ten", GRADES])
    assert grade_picture(pair, Answers(stubborn)).grades is None
    assert len(stubborn.questions) == 2 and grading_text(pair).count("\n") == 4


def labels(tmp_path, lines):
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return accuracy.read_labels(tmp_path / "labels.jsonl", tmp_path)


def pictures(tmp_path, count):
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / name)
    return names


class ByColour(FixedJudge):
    """Says yes with the probability that a picture's red names."""

    def yes_no(self, images, question):
        p = self.chances[images[0].getpixel((0, 0))[0]]
        return math.log(p), math.log(1 - p)


def test_a_judges_accuracy(tmp_path):
    names = pictures(tmp_path, 6)
    truth = ["yes", "yes", "yes", "no", "no", "unclear"]
    read = labels(
        tmp_path,
        [{"picture": name, "question": "q", "answer": answer, "by": "ann"} for name, answer in zip(names, truth)],
    )
    judge = ByColour({0: 0.9, 1: 0.8, 2: 0.3, 3: 0.1, 4: 0.6, 5: 0.5})
    result, said = accuracy.measure_judge(read, Answers(judge))
    assert result.sensitivity == stats.wilson(2, 3) and result.specificity == stats.wilson(1, 2)
    assert result.auc == pytest.approx(5 / 6)  # .3 of a yes is below .6 of a no
    assert (result.unclear, result.disputed, result.kappa_people, len(said)) == (1, 0, None, 5)
    assert result.kappa == pytest.approx(agreement.kappa([1, 1, 0, 0, 1], [1, 1, 1, 0, 0]))
    assert not result.informative and "does not tell" in accuracy.accuracy_text(result)


def test_two_people_and_what_they_dispute(tmp_path):
    names = pictures(tmp_path, 4)
    lines = [
        {"picture": name, "question": "q", "answer": answer, "by": by}
        for by, answers in {"ann": ["yes", "yes", "no", "no"], "bob": ["yes", "no", "no", "no"]}.items()
        for name, answer in zip(names, answers)
    ]
    result, _ = accuracy.measure_judge(labels(tmp_path, lines), Answers(ByColour({0: 0.9, 1: 0.9, 2: 0.1, 3: 0.1})))
    assert result.kappa_people == pytest.approx(0.5) and result.disputed == 1
    assert (result.sensitivity.samples, result.specificity.samples) == (1, 2)


def test_labels_of_one_kind_measure_nothing(tmp_path):
    (name,) = pictures(tmp_path, 1)
    read = labels(tmp_path, [{"picture": name, "question": "q", "answer": "yes"}])
    with pytest.raises(UserErrors, match="none is labelled no"):
        accuracy.measure_judge(read, Answers(ByColour({0: 0.9})))


def test_every_fault_of_labels_is_in_one_report(tmp_path):
    with pytest.raises(UserErrors) as report:
        labels(
            tmp_path,
            [
                {"picture": "gone.png", "question": "q", "answer": "yes"},
                {"picture": "1.png"},
                {"picture": "1.png", "question": "q", "answer": "perhaps"},
                {"picture": "1.png", "question": ["q"], "answer": "yes"},
            ],
        )
    assert len(report.value.messages) == 4 and "gone.png is missing" in str(report.value)
    assert "question: ['q']" in str(report.value)


def judged(sensitivity, specificity, count=200):
    rates = [stats.wilson(round(rate * count), count) for rate in (sensitivity, specificity)]
    return accuracy.JudgeAccuracy(*rates, None, None, None, 0, 0, 0, {})


def test_the_corrected_share_and_its_interval():
    verdicts = [1.0] * 60 + [0.0] * 40
    estimate = accuracy.corrected(verdicts, range(100), judged(0.9, 0.85))
    assert estimate.value == pytest.approx(0.6)
    raw = stats.bootstrap_mean(verdicts)
    assert estimate.low < raw.low and estimate.high > raw.high  # the judge's errors are uncertain too
    few = accuracy.corrected(verdicts, range(100), judged(0.9, 0.85, count=20))
    assert few.high - few.low > estimate.high - estimate.low
    assert accuracy.corrected([1.0] * 10 + [0.0] * 90, range(100), judged(0.9, 0.85)).value == 0
    assert accuracy.corrected(verdicts, range(100), judged(0.6, 0.6)) is None


def test_the_accuracy_is_read_back(tmp_path):
    (tmp_path / "accuracy.json").write_text(json.dumps({"accuracy": judged(0.9, 0.8).table()}))
    assert accuracy.JudgeAccuracy.read(tmp_path / "accuracy.json") == judged(0.9, 0.8)
    with pytest.raises(UserErrors, match="expected the accuracy.json"):
        accuracy.JudgeAccuracy.read(tmp_path / "none.json")


def test_the_labelling_page_holds_every_question_and_no_script_of_a_prompt(entry, tmp_path):
    evil = Entry(2, entry.picture, "", names=("</script><b>",))
    page = labelling_page([entry, evil], ["carrying", "running"], tmp_path / "labels")
    assert "Is the cat carrying the bear in this picture?" in page and '"file": "../1.png"' in page
    assert "2 pictures to label" in page and page.count("</script>") == 1 and "@" not in page.split("<script>")[0]


def test_labels_name_pictures_as_their_folder_has_them(entry, tmp_path):
    inner = replace(entry, picture=tmp_path / "single" / "1.png")
    page = labelling_page([inner], ["carrying"], tmp_path, pictures=tmp_path)
    assert '"picture": "single/1.png"' in page and '"file": "single/1.png"' in page
