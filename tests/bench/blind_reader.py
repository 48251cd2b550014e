"""Can somebody who sees only the pictures say who is in them and what they do? Sheets for that, and the count.

    python -m tests.bench.blind_reader --out out/blind                     numbered sheets to read, in random order
    python -m tests.bench.blind_reader --out out/blind --answers FILE      count the answers: `N; left; right; relation`

The 36 scenes are those of the model card's picture; `--of renders` takes the renderer's pictures, which bound what a
reader can do. A reader is given the sheets and the words printed beside them, and nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.common import arguments as of_type
from training.common.cli import say
from training.common.sheets import INK, PAPER, font, save_picture
from training.host_diffusers.miniworld.bundle import load_miniworld
from training.miniworld.experiments.generate import PLAIN, generate_images
from training.miniworld.experiments.measure import renders
from training.miniworld.experiments.report import SIDE_BY_SIDE
from training.miniworld.recipes.pictures import to_uint8
from training.miniworld.world.relations import SEEN
from training.miniworld.world.renderer import render
from training.miniworld.world.scene import ScenePlan
from training.miniworld.world.traits import SPECIES
from training.miniworld.world.triplets import plans_in_turn

COLUMNS, ROWS, SIDE, TITLE = 6, 3, 252, 30
SEED = 11  # of the order


def shuffled(plans: list[ScenePlan]) -> list[int]:
    """Return the scenes' indices in the order of the sheets."""
    return [int(index) for index in np.random.default_rng(SEED).permutation(len(plans))]


def numbered_sheet(images: list[np.ndarray], first: int) -> Image.Image:
    """Lay out pictures with their numbers above them.

    Args:
        images: uint8 (H, W, 3).
        first: number of the first one.
    """
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 8), ROWS * (SIDE + TITLE + 8)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        x, y = index % COLUMNS * (SIDE + 8), index // COLUMNS * (SIDE + TITLE + 8)
        pen.text((x + 8, y + 4), str(first + index), INK, font(20))
        sheet.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x + 4, y + TITLE))
    return sheet


def answer_of(plan: ScenePlan) -> tuple[str, str, str]:
    """Return the species on the left, the species on the right and the relation."""
    boxes = render(plan).boxes
    left, right = np.argsort(boxes[:, 0] + boxes[:, 2])
    return plan.cast[left].species, plan.cast[right].species, plan.relation


def count(plans: list[ScenePlan], text: str) -> str:
    """Compare the lines of an answer with the scenes.

    Args:
        plans: in the order of the sheets.
        text: `N; left species; right species; relation` a line, N from 1.
    """
    answers = {}
    for line in filter(str.strip, text.splitlines()):
        number, *words = (part.strip().lower() for part in line.split(";"))
        answers[int(number)] = tuple(words)
    wrong = [
        (n, answers.get(n), answer_of(plan)) for n, plan in enumerate(plans, 1) if answers.get(n) != answer_of(plan)
    ]
    lines = [f"{n}: {' '.join(answer or ('no answer',))}; asked for {' '.join(truth)}" for n, answer, truth in wrong]
    return "\n".join([*lines, f"{len(plans) - len(wrong)} of {len(plans)} right in both species and the relation"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=of_type.path, default=Path("out/blind"))
    parser.add_argument("--of", choices=("samples", "renders"), default="samples")
    parser.add_argument("--answers", type=of_type.path, help="count these instead of drawing")
    args = parser.parse_args()
    plans = plans_in_turn(SEEN, SIDE_BY_SIDE, 0)
    order = shuffled(plans)
    if args.answers:
        say(count([plans[index] for index in order], args.answers.read_text(encoding="utf-8")))
        return
    images = renders(plans) if args.of == "renders" else generate_images(load_miniworld(), plans, 0, PLAIN)
    pixels = to_uint8(images[order])
    for start in range(0, len(plans), COLUMNS * ROWS):
        path = args.out / f"{args.of}_{start // (COLUMNS * ROWS) + 1}.png"
        save_picture(numbered_sheet(list(pixels[start : start + COLUMNS * ROWS]), start + 1), path)
        say(f"wrote {path}")
    say(f"species: {', '.join(sorted(SPECIES))}\nrelations: {', '.join(sorted(SEEN))}")


if __name__ == "__main__":
    main()
