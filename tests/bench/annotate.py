"""How well `training.annotate` does on renders of the miniworld, where the truth is known.

    python -m tests.bench.annotate --count 20           each of three relations, honest and copy-pasted, in minutes

For honest triplets: IoU of boxes and masks, PCK@0.1 (of the box's longer side) of visible joints, the share of hidden
joints that count all the same, the share accepted, and of each gate the
share it rejects. For copy-pasted ones (concepts cut out of the target): the share rejected, and by which gate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from training.annotate import annotate
from training.annotation.joints import COUNTS
from training.annotation.measures import crop_likeness, grey_crop, likeness, pose_distance
from training.annotation.options import AnnotateOptions
from training.annotation.report import REJECT, WARN
from training.annotation.thresholds import Thresholds
from training.common.boxes import iou
from training.common.cli import say
from training.data.skeletons import AP10K, SKELETONS
from training.miniworld.world.renderer import render
from training.miniworld.world.scene import draw_plan, portrait
from training.miniworld.world.triplets import cropped, write_triplets

RESULTS = Path(__file__).parent / "results" / "annotate.json"
RELATIONS = ("hugging", "shaking hands with", "riding")


def write_raw(folder: Path, relation: str, count: int, seed: int, copy_paste: bool = False) -> list[dict]:
    """Write raw triplets and return the lines of their exact annotation."""
    truth = folder.with_name(folder.name + "_truth")
    write_triplets(truth, relation, count, seed, copy_paste=copy_paste, held_out=None)
    lines = [json.loads(line) for line in (truth / "triplets.jsonl").read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        home = folder / f"{number:03d}"
        home.mkdir(parents=True)
        names = ["target", *(f"{place} {name}" for place, name in enumerate(line["names"], 1))]
        for name, file in zip(names, (line["target"], *line["concepts"])):
            (home / f"{name}.png").write_bytes((truth / file).read_bytes())
        line["masks"] = [np.asarray(Image.open(truth / file).convert("1")) for file in line["masks"]]
    return lines


def measure(out: Path, truth: list[dict]) -> dict[str, float]:
    """Compare lines of OUT (accepted or not) with the truth."""
    lines = [
        (json.loads(line), folder)
        for folder in (out, out / "rejected")
        if (folder / "triplets.jsonl").is_file()
        for line in (folder / "triplets.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    boxes, masks, near, visible, hidden = [], [], [], [], []
    for line, folder in lines:
        exact = truth[int(line["target"][:3])]
        for subject in range(len(line["names"])):
            own = np.array(exact["boxes"][subject])
            boxes.append(float(iou(np.array([line["boxes"][subject]]), own[None])[0, 0]))
            mask = np.asarray(Image.open(folder / line["masks"][subject]).convert("1"))
            both = exact["masks"][subject]
            masks.append(float((mask & both).sum() / (mask | both).sum()))
            seen, known = (np.array(one["keypoints_target"][subject]) for one in (line, exact))
            shown = known[:, 2] > 0
            off = np.linalg.norm(seen[:, :2] - known[:, :2], axis=1) / (own[2:] - own[:2]).max()
            near += (off[shown & (seen[:, 2] > 0)] < 0.1).tolist()
            visible += (seen[shown, 2] > 0).tolist()
            hidden += (seen[~shown, 2] > 0).tolist()
    return {
        "triplets": len(lines),
        "box_iou": mean(boxes),
        "mask_iou": mean(masks),
        "pck_of_counted_visible_joints": mean(near),
        "visible_joints_counted": mean(visible),
        "hidden_joints_counted": mean(hidden),
    }


def mean(values: list) -> float:
    return round(float(np.mean(values)), 4) if values else float("nan")


def rows(count: int, seed: int, folder: Path, hide_others: bool) -> dict[str, dict]:
    found = {}
    for relation in RELATIONS:
        options = AnnotateOptions(relation, backend="miniworld", keep_rejected=True, hide_others=hide_others)
        home = folder / f"{relation} {hide_others}"
        truth = write_raw(home / "raw", relation, count, seed)
        report = annotate(home / "raw", home / "out", options)
        gates = Counter(
            (name, gate.status) for one in report.triplets for name, gate in one.gates.items() if gate.status != "pass"
        )
        row = {"accepted": len(report.accepted) / count, **measure(home / "out", truth)}
        row["rejected_by"] = {name: n / count for (name, status), n in sorted(gates.items()) if status == REJECT}
        row["warned_by"] = {name: n / count for (name, status), n in sorted(gates.items()) if status == WARN}
        found[relation] = row
    return found


def pasted(count: int, seed: int, folder: Path) -> dict[str, dict]:
    found = {}
    for relation in RELATIONS:
        home = folder / f"{relation} pasted"
        write_raw(home / "raw", relation, count, seed, copy_paste=True)
        report = annotate(home / "raw", home / "out", AnnotateOptions(relation, backend="miniworld"))
        gates = Counter(name for one in report.triplets for name, g in one.gates.items() if g.status == REJECT)
        judged = sum(one.complete for one in report.triplets)
        found[relation] = {
            "rejected": len(report.rejected) / count,
            "rejected_by_copy_paste_of_those_judged": gates["copy_paste"] / max(1, judged),
            "rejected_by": {name: n / count for name, n in sorted(gates.items())},
        }
    return found


def on_exact_annotation(count: int, seed: int) -> dict[str, dict]:
    """The two gates against copies on exact boxes, masks and joints: honest subjects, and the same ones pasted.

    A pasted subject is cut out of the target with its box off by 3 %, recoloured, with noise, half of them mirrored. A
    crop is the target's box with what surrounds the subject, looked for as honest pictures are, the box off by 10 %.
    """
    found = {}
    limits = Thresholds()
    for relation in RELATIONS:
        rates: dict[str, list[bool]] = {}
        for index in range(count):
            rng = np.random.default_rng((seed, index))
            plan = draw_plan(rng, relation=relation, held_out=None)
            target = render(plan, 128)
            for subject, who in enumerate(plan.cast):
                own = grey_crop(Image.fromarray(target.image), tuple(target.boxes[subject]), target.masks[subject])
                alone = render(portrait(rng, who, plan.backdrop.place), 128)
                honest = grey_crop(Image.fromarray(alone.image), tuple(alone.boxes[0]), alone.masks[0])
                off = np.clip(target.boxes[subject] + rng.uniform(-0.03, 0.03, 4), 0, 1)
                noisy = target.image * rng.uniform(0.7, 1.3, 3) + rng.normal(0, 8, target.image.shape)
                image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                pasted = grey_crop(image, tuple(off), target.masks[subject])[:, :: 1 if index % 2 else -1]
                first, second = (
                    np.column_stack((one[:, :2] * 128, one[:, 2] * COUNTS))
                    for one in (target.keypoints[subject], alone.keypoints[0])
                )
                jittered = first + np.append(rng.normal(0, 0.02, (17, 2)) * 128, np.zeros((17, 1)), axis=1)
                poses = [pose_distance(first, other, SKELETONS[AP10K]) for other in (second, jittered)]
                rough = tuple(np.clip(target.boxes[subject] + rng.uniform(-0.1, 0.1, 4), 0, 1))
                cut = cropped(target, subject, 128)
                whole, cut, single = (Image.fromarray(one.image) for one in (target, cut, alone))
                row = {
                    "honest rejected by copy_paste": likeness(own, honest) >= limits.copy_paste.reject,
                    "pasted rejected by copy_paste": likeness(own, pasted) >= limits.copy_paste.reject,
                    "crops rejected by copy_paste": crop_likeness(whole, rough, cut) >= limits.copy_paste.reject,
                    "honest rejected as crops": crop_likeness(whole, rough, single) >= limits.copy_paste.reject,
                    "honest rejected by pose_differs": (poses[0] or 1) < limits.pose_differs.reject,
                    "same pose warned or rejected": (poses[1] or 1) < limits.pose_differs.warn,
                }
                for name, value in row.items():
                    rates.setdefault(name, []).append(bool(value))
        found[relation] = {name: mean(values) for name, values in rates.items()} | {"subjects": 2 * count}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="triplets of each relation")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--hide-others", action="store_true", help="once more with the other subjects painted over")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = {
            "count": options.count,
            "seed": options.seed,
            "honest": rows(options.count, options.seed, folder, False),
            "copy-pasted": pasted(options.count, options.seed, folder),
            "gates on exact annotation": on_exact_annotation(3 * options.count, options.seed),
        }
        if options.hide_others:
            result["honest, others painted over"] = rows(options.count, options.seed, folder, True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
