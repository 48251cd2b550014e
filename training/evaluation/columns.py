"""Columns of a report: title, kind of average, and which direction is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..common.stats import Estimate, bootstrap_mean, share
from .prompts import Entry
from .scores import GROUPS

Row = Mapping[str, float | None]


@dataclass(frozen=True)
class Column:
    """One measure.

    Attributes:
        key: in scores.json.
        title: in tables.
        kind: `score` (cosine times 100), `share` (0 to 1, shown in percent) or `number`.
        higher_is_better: None where neither is.
    """

    key: str
    title: str
    kind: str
    higher_is_better: bool | None = True

    def estimate(self, values: Sequence[float], cases: Sequence) -> Estimate:
        return share(values, cases) if self.kind == "share" else bootstrap_mean(values, cases)

    def text(self, estimate: Estimate) -> str:
        """Write an estimate with its interval."""
        return estimate.text(100, 1) if self.kind == "share" else estimate.text(1, 1 if self.kind == "score" else 3)


SCORE_COLUMNS = (
    Column("CLIP-T", "CLIP-T", "score"),
    Column("CLIP-R", "CLIP-R", "score"),
    Column("CLIP-I", "CLIP-I", "score"),
    Column("DINO", "DINO", "score"),
)
SUBJECT_COLUMNS = (
    Column("found", "found %", "share"),
    Column("identity", "identity, missing 0", "number"),
    Column("identity_found", "identity of the found", "number"),
    Column("count_exact", "count exact %", "share"),
    Column("extra", "extra things", "number", False),
    Column("fewer", "fewer than asked %", "share", False),
    Column("duplicate", "duplicate %", "share", False),
    Column("swap", "swap %", "share", False),
    Column("misplaced", "misplaced %", "share", False),
    Column("name_swap", "name swap %", "share", False),
    Column("confusion", "confusion %", "share", False),
    Column("margin", "margin", "number"),
    Column("in_place", "IoU with the box", "number"),
    Column("centre_inside", "centre in the box %", "share"),
)
FACE_COLUMNS = (
    Column("face_multi_id", "Multi-ID (MultiHuman)", "number"),
    Column("face_id_sim", "ID-Sim (UMO's formula)", "score"),
    Column("face_id_conf", "ID-Conf (UMO's formula)", "score"),
    Column("face_count_exact", "faces exact %", "share"),
)
JUDGE_COLUMNS = (
    Column("happened", "happened %", "share"),
    Column("reversed", "reversed %", "share", False),
    Column("contact", "touch %", "share"),
    Column("present", "present %", "share"),
    Column("questions", "own questions %", "share"),
    Column("probability", "p of happened", "number"),
    Column("mirror_differs", "mirror differs %", "share", None),
)
GRADE_COLUMNS = (
    Column("grade_relation", "relation 0-10", "number"),
    Column("grade_identity", "identity 0-10", "number"),
    Column("grade_quality", "quality 0-10", "number"),
)
_ALL = (*SCORE_COLUMNS, *SUBJECT_COLUMNS, *FACE_COLUMNS, *JUDGE_COLUMNS, *GRADE_COLUMNS)
COLUMNS = {column.key: column for column in _ALL}


def estimates(
    entries: Sequence[Entry], rows: Sequence[Row], columns: Sequence[Column]
) -> dict[str, dict[str, Estimate]]:
    """Estimate columns by group; a column that no picture of a group has is left out.

    Args:
        entries, rows: N each.
        columns: which measures.
    """
    table: dict[str, dict[str, Estimate]] = {}
    for group in GROUPS:
        inside = [index for index, entry in enumerate(entries) if group in ("overall", entry.group)]
        for column in columns:
            indices = [index for index in inside if rows[index].get(column.key) is not None]
            if indices:
                values = [rows[index][column.key] for index in indices]
                cases = [entries[index].case for index in indices]
                table.setdefault(group, {})[column.key] = column.estimate(values, cases)
    return table


def markdown(table: Mapping[str, Mapping[str, Estimate]], columns: Sequence[Column]) -> str:
    """Write a table with groups as rows; a cell of fewer pictures than its row has says how many."""
    filled_columns = [column for column in columns if any(column.key in row for row in table.values())]
    lines = [
        "| " + " | ".join(["", "pictures", "cases", *(column.title for column in filled_columns)]) + " |",
        "|---" * (len(filled_columns) + 3) + "|",
    ]
    for group, row in table.items():
        most = max(row.values(), key=lambda estimate: estimate.samples)
        cells = [
            "-"
            if column.key not in row
            else column.text(row[column.key])
            + (f" ({row[column.key].samples} pictures)" if row[column.key].samples < most.samples else "")
            for column in filled_columns
        ]
        lines.append("| " + " | ".join([group, str(most.samples), str(most.cases), *cells]) + " |")
    return "\n".join(lines) + "\n"
