"""Draw two subjects on your own models, with and without their places kept: python -m tests.check_native COMFYUI_URL

Needs a running ComfyUI with this pack and at least one of Flux.2 Klein, Qwen-Image-Edit 2511, Flux Kontext and
OmniGen2. For each of them that is there it draws the same seeds in three ways (tests/native_graphs.py) and writes

    sheet_<model>.png   a row for each seed, a column for each way
    pictures/           every picture
    table.csv           a line for each picture: seconds, and columns for what you see
    table.md            for each model and way: pictures, median seconds, and its ratio to the plain way

Whether a face is kept or two subjects are swapped is for eyes to say: write 1 or 0 into the last columns of table.csv.
Drawing again keeps what is there. Exit code 0 when every picture was drawn, 1 when some failed, 2 when none could be.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from tests.native_graphs import ENGINES, WAYS, in_a_way, read_graph, with_files, with_request
from training.common.comfyui_client import ComfyUIClient, ComfyUIError
from training.common.sheets import FAINT, INK, PAPER, font

ROOT = Path(__file__).resolve().parents[1]
CREATURES = ROOT / "models" / "miniworld" / "creatures"
PROMPT = "{0} is hugging {1} in a sunny garden."
EYES = ("first_is_itself", "second_is_itself", "swapped", "blended", "relation_happens")
TILE = 256  # pixels a side of a picture on the sheet


@dataclass(frozen=True)
class Request:
    """What is drawn.

    Attributes:
        photographs: two files.
        names: of the two subjects.
        prompt: with both names.
        seeds: of the pictures.
        size: side of a picture in pixels.
        strength: of the steering, in nats.
    """

    photographs: tuple[Path, Path]
    names: tuple[str, str]
    prompt: str
    seeds: range
    size: int
    strength: float


@dataclass(frozen=True)
class Drawn:
    """One picture; ``seconds`` is None where it was there already or failed."""

    engine: str
    way: str
    seed: int
    picture: Image.Image | None
    seconds: float | None
    fault: str = ""


def graphs_of(client: ComfyUIClient) -> tuple[dict[str, dict], list[str]]:
    """The graphs that this ComfyUI can run, by engine, and for each of the others a line that says why not."""
    graphs, lines = {}, []
    for engine in ENGINES:
        graph, missing = with_files(read_graph(engine), client.choices)
        nodes = client.missing_nodes(graph)
        if nodes or missing:
            lines.append(f"{engine}: not drawn; this ComfyUI lacks {', '.join([*nodes, *missing])}.")
        else:
            graphs[engine] = graph
    return graphs, lines


def draw(
    client: ComfyUIClient,
    engine: str,
    graph: dict,
    request: Request,
    out: Path,
    say: Callable[[str], None],
    prepare: Callable[[dict], dict] = lambda graph: graph,
) -> list[Drawn]:
    """Draw one engine's pictures, those that are there already left alone.

    Args:
        prepare: applied to every graph before it is sent.
    """
    images = [client.upload(path) for path in request.photographs]
    drawn = []
    for seed in request.seeds:
        plain = with_request(graph, images, request.names, request.prompt, seed, request.size)
        for way in WAYS:
            path = out / "pictures" / f"{slug(engine)}_{slug(way)}_{seed}.png"
            if path.exists():
                drawn.append(Drawn(engine, way, seed, Image.open(path).convert("RGB"), None))
                continue
            drawn.append(one := draw_one(client, engine, way, seed, prepare(in_a_way(plain, way, request.strength))))
            if one.picture is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                one.picture.save(path)
            say(f"{engine}, {way}, seed {seed}: " + (one.fault or f"{one.seconds:.1f} s"))
    return drawn


def draw_one(client: ComfyUIClient, engine: str, way: str, seed: int, graph: dict) -> Drawn:
    """Run one graph."""
    (save,) = (key for key, node in graph.items() if node["class_type"] == "SaveImage")
    begin = time.monotonic()
    try:
        finished = client.run(graph, [save])
    except ComfyUIError as error:
        return Drawn(engine, way, seed, None, None, str(error))
    picture = Image.open(io.BytesIO(finished.pictures[0])).convert("RGB")
    return Drawn(engine, way, seed, picture, time.monotonic() - begin if finished.attempts else None)


def sheet(drawn: Sequence[Drawn], request: Request) -> Image.Image:
    """The photographs, then a row for each seed and a column for each way."""
    gap, head, foot = 8, 26, 20
    columns, seeds = len(WAYS), sorted({each.seed for each in drawn})
    size = (gap + columns * (TILE + gap), head + (1 + len(seeds)) * (TILE + foot + gap) + head)
    canvas = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, (path, name) in enumerate(zip(request.photographs, request.names)):
        paste(canvas, Image.open(path), gap + column * (TILE + gap), head)
        pen.text((gap + column * (TILE + gap), head + TILE + 2), name, INK, font(14))
    for column, way in enumerate(WAYS):
        left = gap + column * (TILE + gap)
        pen.text((left, head + TILE + foot + gap), way, INK, font(16))
        for row, seed in enumerate(seeds):
            top = 2 * head + (row + 1) * (TILE + foot + gap)
            one = next((each for each in drawn if (each.way, each.seed) == (way, seed)), None)
            if one is None or one.picture is None:
                pen.rectangle((left, top, left + TILE, top + TILE), outline=FAINT)
            else:
                paste(canvas, one.picture, left, top)
            pen.text((left, top + TILE + 2), f"seed {seed}", (110, 110, 118), font(12))
    return canvas


def paste(canvas: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    """A picture fitted into its tile."""
    fitted = picture.convert("RGB")
    fitted.thumbnail((TILE, TILE))
    canvas.paste(fitted, (left + (TILE - fitted.width) // 2, top + (TILE - fitted.height) // 2))


def table(drawn: Sequence[Drawn]) -> str:
    """Markdown: pictures, median seconds without each way's first (it loads models), ratio to the plain way."""
    lines = ["| model | way | pictures | failed | median seconds | over plain |", "|---|---|---|---|---|---|"]
    for engine in dict.fromkeys(each.engine for each in drawn):
        medians: dict[str, float | None] = {}
        for way in WAYS:
            own = [each for each in drawn if (each.engine, each.way) == (engine, way)]
            seconds = [each.seconds for each in own if each.seconds is not None]
            medians[way] = statistics.median(seconds[1:] or seconds) if seconds else None
            ratio = f"{medians[way] / medians['plain']:.2f}" if medians[way] and medians["plain"] else ""
            pictures = sum(each.picture is not None for each in own)
            median = "" if medians[way] is None else f"{medians[way]:.1f}"
            lines.append(f"| {engine} | {way} | {pictures} | {len(own) - pictures} | {median} | {ratio} |")
    return "\n".join(lines) + "\n"


def write_table(drawn: Sequence[Drawn], path: Path) -> None:
    """A line for each picture, with empty columns for what eyes see; what was written there before is kept."""
    seen: dict[tuple[str, ...], dict] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            seen = {(row["model"], row["way"], row["seed"]): row for row in csv.DictReader(file)}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["model", "way", "seed", "seconds", "fault", *EYES])
        writer.writeheader()
        for each in drawn:
            before = seen.get((each.engine, each.way, str(each.seed)), {})
            seconds = before.get("seconds", "") if each.seconds is None else f"{each.seconds:.2f}"
            writer.writerow(
                {
                    "model": each.engine,
                    "way": each.way,
                    "seed": each.seed,
                    "seconds": seconds,
                    "fault": each.fault,
                    **{name: before.get(name, "") for name in EYES},
                }
            )


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def report(drawn: list[Drawn], request: Request, out: Path) -> None:
    """Write the sheets and both tables."""
    out.mkdir(parents=True, exist_ok=True)
    for engine in dict.fromkeys(each.engine for each in drawn):
        sheet([each for each in drawn if each.engine == engine], request).save(out / f"sheet_{slug(engine)}.png")
    (out / "table.md").write_text(table(drawn), encoding="utf-8")
    write_table(drawn, out / "table.csv")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.check_native", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="of a running ComfyUI with this pack, e.g. http://127.0.0.1:8188")
    parser.add_argument("--out", type=Path, default=Path("out/check_native"), help="folder for sheets and tables")
    parser.add_argument(
        "--photographs",
        type=Path,
        nargs=2,
        metavar=("FIRST", "SECOND"),
        default=[CREATURES / "cat-red-scarf.png", CREATURES / "bear-teal-crown.png"],
    )
    parser.add_argument("--names", nargs=2, default=["a red cat", "a teal bear"])
    parser.add_argument("--prompt", help=f"with both names; else '{PROMPT}'")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--size", type=int, default=1024, help="side of a picture in pixels, a multiple of 16")
    parser.add_argument("--strength", type=float, default=3.0, help="of the steering, in nats")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    prompt = args.prompt or PROMPT.format(args.names[0].capitalize(), args.names[1])
    request = Request(
        tuple(args.photographs), tuple(args.names), prompt, range(1, args.seeds + 1), args.size, args.strength
    )
    client = ComfyUIClient(args.url, say=print)
    try:
        client.check()
        graphs, lines = graphs_of(client)
    except ComfyUIError as error:
        print(error)
        return 2
    for line in lines:
        print(line)
    if not graphs:
        print(
            "None of the models is there. Open workflows/flux2_klein_two_subjects.json in ComfyUI: it names the "
            "files and where to get them."
        )
        return 2
    drawn: list[Drawn] = []
    for engine, graph in graphs.items():
        drawn += draw(client, engine, graph, request, args.out, print)
        report(drawn, request, args.out)
    print(f"\n{table(drawn)}\n{args.out}: sheets and tables")
    return 1 if any(each.fault for each in drawn) else 0


if __name__ == "__main__":
    sys.exit(main())
