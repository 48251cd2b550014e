"""Every gate on both sides of its thresholds: a triplet that passes all, with one number moved."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.annotation.annotated import Annotated, SeenPicture, SeenSubject
from training.annotation.choose import Candidate, choose
from training.annotation.gates import judge
from training.annotation.raw import RawTriplet
from training.annotation.thresholds import Thresholds
from training.data.skeletons import AP10K

BOX = (0.1, 0.1, 0.6, 0.6)
LIMITS = Thresholds(relation_margin={"reject": 0.0, "warn": 0.2})  # the default never rejects
FIRST, OTHER, *_ = np.eye(4)


def unit(rng):
    """A pose as 17 complex numbers, centred, of norm 1."""
    pose = rng.normal(size=17) + 1j * rng.normal(size=17)
    pose -= pose.mean()
    return pose / np.linalg.norm(pose)


def joints(pose):
    return np.column_stack((0.5 + pose.real / 4, 0.5 + pose.imag / 4, np.full(17, 2.0)))


def posed(distance, rng):
    """Two poses at a distance."""
    first, other = unit(rng), unit(rng)
    other -= np.vdot(first, other) * first
    other /= np.linalg.norm(other)
    return joints(first), joints(np.sqrt(1 - distance**2) * first + distance * other)


def texture(seed):
    return gaussian_filter(np.random.default_rng(seed).normal(size=(64, 64)), 4) * 500


def save(path, texture):
    Image.fromarray((128 + texture).clip(0, 255).astype(np.uint8)).convert("RGB").save(path)


@pytest.fixture
def one(tmp_path):
    """A triplet that passes every gate; pictures say they are of 1000 pixels."""
    paths = [tmp_path / f"{name}.png" for name in ("target", "wolf", "leopard")]
    for seed, path in enumerate(paths):
        save(path, texture(seed))
    raw = RawTriplet("01", paths[0], tuple(paths[1:]), ("wolf", "leopard"))
    rng = np.random.default_rng(5)
    poses = [posed(0.5, rng) for _ in raw.names]

    def subject(pose, vector):
        return SeenSubject(
            BOX, Candidate(BOX, 0.8), quality=0.9, scored={AP10K: pose}, joints=pose, vector=vector, best=0.8
        )

    seen = [[subject(poses[0][0], FIRST), subject(poses[1][0], OTHER)], [subject(poses[0][1], FIRST)]]
    seen.append([subject(poses[1][1], OTHER)])
    pictures = [SeenPicture(path, path.name, (1000, 1000), subjects) for path, subjects in zip(paths, seen)]
    scores = {"relation": 0.9, "decoy": 0.1}
    return Annotated(raw, pictures, ["animal"] * 2, [AP10K] * 2, predicate="hugging", reader_scores=scores)


def box(one, value):
    subject = one.target.subjects[0]
    subject.mask = np.ones((64, 64), bool)
    subject.detection = Candidate((*BOX[:3], 0.1 + 0.5 * value), 0.8)


def mask(one, value):
    one.pictures[1].subjects[0].quality = value


def area(one, value):
    subject = one.target.subjects[1]
    subject.box = (0.0, 0.0, 1.0, value)


def identity(one, value):
    one.pictures[1].subjects[0].vector = np.array([value, 0, np.sqrt(1 - value**2), 0])


def identity_margin(one, value):
    identity(one, 0.8)
    near = 0.8 - value
    one.target.subjects[1].vector = one.pictures[2].subjects[0].vector = np.array([near, np.sqrt(1 - near**2), 0, 0])


def pose_differs(one, value):
    one.target.subjects[0].joints, one.pictures[1].subjects[0].joints = posed(value, np.random.default_rng(6))


def joints_counted(one, value):
    one.pictures[2].subjects[0].joints[int(value) :, 2] = 1


def picture_px(one, value):
    one.pictures[2].size = (1000, int(value))
    one.pictures[2].subjects[0].joints = one.pictures[2].subjects[0].joints.copy() * [1, 1000 / int(value), 1]


def subject_px(one, value):
    side = 16 if value < 16 else 1000
    one.target.size = (side, side)
    for subject in one.target.subjects:
        subject.box = (0.0, 0.0, value / side, value / side / 2)


def relation(one, value):
    one.reader_scores = {"relation": value, "decoy": 0.0}


def relation_margin(one, value):
    one.reader_scores = {"relation": 0.9, "decoy": 0.9 - value}


CASES = {
    "box": (box, "mask and box of wolf differ"),
    "mask": (mask, "01/wolf.png: the segmenter trusts its mask of wolf"),
    "area": (area, "01/target.png: leopard fills"),
    "identity": (identity, "wolf does not look like its photograph"),
    "identity_margin": (identity_margin, 'wolf is hardly nearer to its photograph than to "leopard"'),
    "pose_differs": (pose_differs, '"wolf" stands as in the target'),
    "joints": (joints_counted, "few joints of leopard count"),
    "picture_px": (picture_px, "01/leopard.png: "),
    "subject_px": (subject_px, "pixels long"),
    "relation": (relation, '"hugging" is not to be seen'),
    "relation_margin": (relation_margin, "a decoy is as likely as hugging"),
}
WHOLE = {"joints", "picture_px"}  # numbers that are counts


def test_a_triplet_that_is_right_passes_every_gate(one):
    statuses = {name: gate.status for name, gate in judge(one, [one], LIMITS).items() if name != "box"}
    assert set(statuses.values()) == {"pass"} and len(statuses) == 14


@pytest.mark.parametrize("gate", CASES)
def test_a_gate_rejects_below_one_number_and_warns_below_the_other(one, gate):
    change, said = CASES[gate]
    limits = getattr(LIMITS, gate)
    step = 1 if gate in WHOLE else 0.001
    places = [(limits.reject - step, "reject"), (limits.warn - step, "warn"), (limits.warn + step, "pass")]
    places.append((limits.reject + (0 if gate in WHOLE else step), "warn"))  # the number itself is on the better side
    for value, status in places:
        change(one, value)
        results = judge(one, [one], LIMITS)
        assert results[gate].status == status, (value, results[gate])
        assert results[gate].value == pytest.approx(value, abs=2e-4)
        assert {name for name, result in results.items() if result.status == "reject"} <= {gate}
        assert said in results[gate].sentence or status == "pass"
        if gate == "joints":  # more joints than before
            one.pictures[2].subjects[0].joints[:, 2] = 2


@pytest.mark.parametrize("gate", ["copy_paste", "unchanged"])
def test_copies_are_rejected_at_one_likeness_and_warned_of_at_another(one, gate):
    """The photograph is the target's texture mixed with another one; the mixture is searched for each number."""
    limits = getattr(LIMITS, gate)
    source, noise = texture(0), texture(1)
    one.target.subjects[0].box = one.pictures[1].subjects[0].box = BOX if gate == "copy_paste" else (0.3, 0.0, 1.0, 0.7)

    def result(share):
        one.pictures[1].digest = str(share)
        save(one.pictures[1].path, share * source + (1 - share) * noise)
        return judge(one, [one], LIMITS)[gate]

    for limit, under, over in ((limits.reject, "warn", "reject"), (limits.warn, "pass", "warn")):
        low, high = 0.0, 1.0
        for _ in range(8):
            middle = (low + high) / 2
            low, high = (middle, high) if result(middle).value < limit else (low, middle)
        below, above = result(low), result(high)
        assert limit - 0.02 < below.value < limit <= above.value < limit + 0.02
        assert (below.status, above.status) == (under, over)


def test_a_name_is_found_from_its_least_score_and_warned_of_a_rival(one):
    least, share = LIMITS.detection.score, LIMITS.detection.rival
    assert choose([[Candidate(BOX, least)]], least)[0] and choose([[Candidate(BOX, least - 0.001)]], least) == [None]
    elsewhere = (0.7, 0.7, 0.9, 0.9)
    for score, status in ((0.8 * share + 0.001, "warn"), (0.8 * share - 0.001, "pass")):
        one.target.candidates["wolf"] = [Candidate(BOX, 0.8), Candidate(elsewhere, score)]
        assert judge(one, [one], LIMITS)["found"].status == status
    one.target.candidates["wolf"] = [Candidate(BOX, 0.8), Candidate((0.1, 0.1, 0.6, 0.55), 0.79)]
    assert judge(one, [one], LIMITS)["found"].status == "pass"  # the same animal
    lost = one.pictures[1].subjects[0]
    lost.box = lost.detection = None
    lost.best = least - 0.001
    results = judge(one, [one], LIMITS)
    assert results["found"].status == "reject" and set(results) == {"found"}
    assert '01/wolf.png: no "wolf" found (best 0.30, needed 0.30)' in results["found"].sentence


@pytest.mark.parametrize("name, said", [("wolf", "two of wolf"), ("leopard", '"leopard" is in it too')])
def test_a_photograph_is_of_one_alone_up_to_a_size_and_a_score(one, name, said):
    least = max(LIMITS.detection.score, LIMITS.detection.second_score * 0.8)
    side, share = 0.5, LIMITS.detection.second

    def alone(area, score, x=0.65):
        width = side * area / 0.9 * side  # of a box that is 0.9 high
        one.pictures[1].candidates[name] = [Candidate(BOX, 0.8)] * (name == "wolf")
        one.pictures[1].candidates[name].append(Candidate((x, 0.05, x + width, 0.95), score))
        return judge(one, [one], LIMITS)["alone"]

    assert alone(share + 0.01, least + 0.01).status == "reject" and said in alone(share + 0.01, least + 0.01).sentence
    assert alone(share - 0.01, least + 0.01).status == alone(share + 0.01, least - 0.01).status == "pass"
    one.pictures[1].subjects[0].detection = Candidate(BOX, 1.0)  # a person has said whom it is of
    assert alone(share + 0.01, least + 0.01).status == "pass"


def test_a_head_on_its_body_is_no_second_animal(one):
    one.pictures[1].candidates["wolf"] = [Candidate(BOX, 0.8), Candidate((0.35, 0.1, 0.65, 0.45), 0.7)]
    assert judge(one, [one], LIMITS)["alone"].status == "pass"


def test_a_subject_must_be_nearer_to_its_photograph_than_to_its_namesakes_elsewhere(one, tmp_path):
    names = replace(one.raw, name="02")
    twin = SeenSubject(BOX, Candidate(BOX, 0.8), vector=np.array([1.0, 0, 0, 0]))
    other = Annotated(names, [one.target, SeenPicture(one.target.path, "x", (9, 9), [twin]), one.pictures[2]])
    identity(one, 0.9)
    result = judge(one, [one, other], LIMITS)["identity_margin"]
    assert result.status == "reject" and result.value == pytest.approx(-0.1) and "the wolf of 02" in result.sentence
    assert judge(one, [one], LIMITS)["identity_margin"].status == "pass"


def test_of_three_names_the_two_that_share_an_animal_are_said(one):
    third = (0.7, 0.1, 0.95, 0.6)
    one.raw = RawTriplet("01", one.raw.target, (*one.raw.concepts, one.raw.concepts[0]), ("wolf", "leopard", "cub"))
    one.target.subjects[1].box = third
    one.target.subjects[1].detection = Candidate(third, 0.8)
    one.target.subjects.append(SeenSubject(best=0.7))
    one.pictures.append(one.pictures[1])
    one.target.candidates["cub"] = [Candidate(BOX, 0.7)]
    assert '"wolf" and "cub" both lie on one animal' in judge(one, [one], LIMITS)["found"].sentence


def test_pixels_count_not_fractions_where_pictures_differ_in_shape(one):
    pose = one.target.subjects[0].joints
    one.pictures[1].size = (2000, 500)
    one.pictures[1].subjects[0].joints = pose * [0.5, 2, 1]
    results = judge(one, [one], LIMITS)
    assert results["pose_differs"].value == pytest.approx(0, abs=1e-4) and results["pose_differs"].status == "reject"
    one.pictures[1].size = (400, 100)
    one.pictures[1].subjects[0].box = (0.0, 0.0, 0.3, 0.8)
    assert judge(one, [one], LIMITS)["subject_px"].value == 120
