"""Write what the ablation counted: `ablation.json` beside the model card, and tables between the card's marks."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...common.atomic_io import write_text
from ...common.stats import mcnemar, sign_flip
from .ablation_rows import BASE, FULL, JOINTS, ROWS, SEEDS, Row, cell_file, read_cell
from .keypoint_probe import table as joint_table
from .measure import Measurement, Predictions, Share
from .report import write_section
from .train_relation import base_digest

SHARES = ("relation", "identity", "confusion", "emblem", "fused")
TESTED = ("relation", "identity", "keypoints")


def results(out: Path, seeds: tuple[int, ...] = SEEDS, rows: Sequence[Row] = ROWS) -> dict[str, dict]:
    """Pool the scores of rows with at least one finished seed; also the relation's share in every seed.

    A row is tested on the same scenes and noise against the one it changes: FULL, BASE where nothing was learnt, or
    the one that it names.
    """
    cells = {
        row.name: {seed: read_cell(cell_file(out, row, seed)) for seed in seeds if cell_file(out, row, seed).exists()}
        for row in rows
    }
    scores = {}
    for row in rows:
        parts = cells[row.name]
        if not parts:
            continue
        scores[row.name] = {
            "table": row.table,
            **Measurement.of(Predictions.joined(list(parts.values()))).table(),
            "seeds": [round(float(part.relation.mean()), 3) for part in parts.values()],
        }
        other = row.other or (BASE if row.name == FULL or not row.recipe else FULL)
        both = [seed for seed in parts if seed in cells.get(other, {})]
        if both and row.name != other and row.how:
            pair = (Predictions.joined([cells[name][seed] for seed in both]) for name in (row.name, other))
            scores[row.name]["against"] = {"row": other, **exact_tests(*pair)}
    return scores


def exact_tests(first: Predictions, second: Predictions) -> dict[str, float]:
    """Two-sided p that two rows of the same scenes differ: McNemar's for the relation, sign flips for the others."""
    return {
        "relation": mcnemar(
            int((first.relation & ~second.relation).sum()), int((second.relation & ~first.relation).sum())
        ),
        "identity": sign_flip(first.right.mean((1, 2)) - second.right.mean((1, 2))),
        "keypoints": sign_flip(first.distance - second.distance),
    }


def tables(rows: dict[str, dict]) -> str:
    """Write the results as Markdown, in percent with 95 % intervals; keypoints in box sides; p in TESTED's order."""
    lines: list[str] = []
    heading = ""
    shares = [key for key in SHARES if any(key in row for row in rows.values())]
    for name, row in rows.items():
        if row["table"] != heading:
            heading = row["table"]
            lines += [
                "",
                f"| {heading} | {' | '.join(shares)} | keypoint distance | p | pictures |",
                "| --- " * (len(shares) + 4) + "|",
            ]
        cells = [str(Share(**row[key])) if key in row else "-" for key in shares]
        distance = row["keypoints"]
        tests = row.get("against")
        chances = " / ".join(_p(tests[key]) for key in TESTED) if tests else "-"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {distance['value']:.3f} ({distance['low']:.3f} to "
            f"{distance['high']:.3f}) | {chances} | {row['relation']['trials']} |"
        )
    return "\n".join(lines).strip()


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def recorded(card: Path) -> dict[str, dict]:
    """Read the rows of `ablation.json` beside the model card, and JOINTS; nothing if they are of other weights."""
    path = card.with_name("ablation.json")
    if not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["base"] != base_digest():
        return {}
    return record["rows"] | ({JOINTS: record["joints"]} if record["joints"] else {})


def complete_rows(card: Path) -> list[str]:
    """List the names in `recorded` that need no more counting: rows of every seed, and JOINTS."""
    return [name for name, row in recorded(card).items() if name == JOINTS or len(row["seeds"]) >= len(SEEDS)]


def write_results(out: Path, card: Path) -> dict[str, dict]:
    """Write `ablation.json` beside the model card, and the tables between its marks; return the rows.

    Of a row that is recorded and counted anew, the one with more pictures stays, the new one if they have as many.
    """
    rows = recorded(card)
    joints = rows.pop(JOINTS, {})
    if (out / JOINTS).exists():
        joints = json.loads((out / JOINTS).read_text(encoding="utf-8"))
    for name, row in results(out).items():
        if name not in rows or row["relation"]["trials"] >= rows[name]["relation"]["trials"]:
            rows[name] = row
    ordered_rows = {row.name: rows[row.name] for row in ROWS if row.name in rows}
    record = {"base": base_digest(), "rows": ordered_rows, "joints": joints}
    write_text(card.with_name("ablation.json"), json.dumps(record, indent=1) + "\n")
    parts = [tables(ordered_rows), joint_table(joints)] if joints else [tables(ordered_rows)]
    write_section(card, "ablation", "\n\n".join(parts))
    return ordered_rows
