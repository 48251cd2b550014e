"""Lay out the shipped workflows anew from the sizes that ComfyUI's page draws: python scripts/lay_out_workflows.py URL.

Needs a running ComfyUI with this pack, Chromium and playwright. Both renderers are asked (classic, and Nodes 2.0 where
the page has it) and the larger size counts, so that nothing overlaps in either. Order and grouping stay as drawn:
nodes of a group stand in their columns, groups in theirs, the note first. ``--only STEM`` takes single graphs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.host.page import open_page, open_workflow, rendered_sizes, use_renderer  # noqa: E402

TITLE = 30  # height of a node's title bar, which stands above its position
GAP = 22  # between two nodes
PADDING = 16  # between a group's border and its nodes
GROUP_TITLE = 40  # height of a group's title
COLUMN_GAP = 28  # between two groups
NOTES = ("MarkdownNote", "Note")
VIEW = {"scale": 0.8, "offset": [110, 120]}  # the note beside the sidebar and below the menu, at 1440 x 900


def columns(items: list[dict], left: callable) -> list[list[dict]]:
    """Items in columns: those whose left edges lie within 60 pixels of a column's first."""
    found: list[list[dict]] = []
    for item in sorted(items, key=left):
        if found and left(item) - left(found[-1][0]) < 60:
            found[-1].append(item)
        else:
            found.append([item])
    return found


def place_group(group: dict, nodes: list[dict], sizes: dict, left: float, top: float) -> None:
    """Place a group's nodes in their columns from the group's top left corner, and fit the group around them.

    A node wider than the first of its column stands below all columns.
    """
    x, bottom = left + PADDING, top + GROUP_TITLE
    wide: list[dict] = []
    for column in columns(nodes, lambda node: node["pos"][0]):
        y = top + GROUP_TITLE
        column.sort(key=lambda node: node["pos"][1])
        wide += [node for node in column if node["size"][0] > column[0]["size"][0]]
        for node in (node for node in column if node not in wide):
            y = place(node, sizes, x, y)
        x += column[0]["size"][0] + GAP
        bottom = max(bottom, y)
    for node in wide:
        bottom = place(node, sizes, left + PADDING, bottom)
        x = max(x, left + PADDING + node["size"][0] + GAP)
    group["bounding"] = [left, top, x - GAP + PADDING - left, bottom - GAP + PADDING - top]


def place(node: dict, sizes: dict, x: float, y: float) -> float:
    """Place a node's title bar at (x, y), give the node its measured height, and return where the next one begins."""
    height = sizes[str(node["id"])][1]
    node["pos"], node["size"] = [x, y + TITLE], [node["size"][0], height]
    return y + TITLE + height + GAP


def inside(node: dict, group: dict) -> bool:
    x, y, width, height = group["bounding"]
    return x <= node["pos"][0] < x + width and y <= node["pos"][1] < y + height


def lay_out(workflow: dict, sizes: dict) -> dict:
    """Give every node its measured size and every group and node a place of its own."""
    nodes = [node for node in workflow["nodes"] if node["type"] not in NOTES]
    members = {group["title"]: [node for node in nodes if inside(node, group)] for group in workflow["groups"]}
    left = 0
    for note in (node for node in workflow["nodes"] if node["type"] in NOTES):
        note["pos"], note["size"] = [0, TITLE], [note["size"][0], sizes[str(note["id"])][1]]
        left = note["size"][0] + COLUMN_GAP
    for column in columns(workflow["groups"], lambda group: group["bounding"][0]):
        top, width = 0, 0
        for group in sorted(column, key=lambda group: group["bounding"][1]):
            place_group(group, members[group["title"]], sizes, left, top)
            top += group["bounding"][3] + COLUMN_GAP
            width = max(width, group["bounding"][2])
        for group in column:
            group["bounding"][2] = width
        left += width + COLUMN_GAP
    workflow["extra"] = {**workflow["extra"], "ds": VIEW, "relate_template": True}  # see web/relate_view.js
    return workflow


def as_text(value: object, indent: int = 0) -> str:
    """JSON with everything on one line that fits into 120 columns."""
    line = json.dumps(value, ensure_ascii=False)
    if indent and len(line) + indent <= 118 or not isinstance(value, dict | list) or not value:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [f"{pad}{json.dumps(key)}: {as_text(item, indent + 2)}" for key, item in value.items()]
    else:
        parts = [pad + as_text(item, indent + 2) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of a running ComfyUI that has this pack")
    parser.add_argument("--only", nargs="*", default=[], help="stems of single workflows")
    args = parser.parse_args()
    files = [path for path in sorted((ROOT / "workflows").glob("*.json")) if not args.only or path.stem in args.only]
    sizes: dict[str, dict] = {}
    for nodes2 in (False, True):
        use_renderer(args.url, nodes2=nodes2)
        with open_page(args.url) as page:
            for path in files:
                open_workflow(page, json.loads(path.read_text(encoding="utf-8")))
                for node, (width, height) in rendered_sizes(page).items():
                    known = sizes.setdefault(path.stem, {}).get(node, (0, 0))
                    sizes[path.stem][node] = (max(width, known[0]), max(height, known[1]))
    for path in files:
        workflow = lay_out(json.loads(path.read_text(encoding="utf-8")), sizes[path.stem])
        path.write_text(as_text(workflow) + "\n", encoding="utf-8")
        print(path.stem)


if __name__ == "__main__":
    main()
