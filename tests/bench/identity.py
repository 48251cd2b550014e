"""What the identity branch costs: python -m tests.bench.identity [--size small|full] [--host comfyui|diffusers]

One random-weight UNet of SDXL's layout (70 cross-attentions), the same inputs, a batch of [negative, positive]. Three
ways take turns: plain; ours (keys and values projected once, masks built once, positive rows only, fused attention);
published (all of it in every layer and step, all rows, explicit softmax). Ratios are medians over the rounds of the
ratio within a round, so a machine whose speed drifts does not matter. `--size full` is SDXL itself (2.6 B parameters,
for a GPU); `small` has 1/5 of its widths at 512 x 512. Results are printed as a table and, with `--write`, kept in
tests/bench/results/identity.json under this machine's name for itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from core.identity.branch import IdentityBranch
from core.identity.tokens import IdentityTokens
from core.scene import Box, Layout
from tests.bench.hosts import HOSTS, SIZES

RESULTS = Path(__file__).parent / "results" / "identity.json"
BOXES = (Box(0, 0.2, 0.55, 0.85), Box(0.55, 0.26, 0.95, 0.9), Box(0.3, 0, 0.7, 0.4), Box(0.1, 0.5, 0.5, 1))
TOKENS, BACKGROUND, GAMMA = 16, 4, 0.6


def timed(action: Callable[[], object]) -> float:
    """Seconds: of the clock with the GPU waited for, or of the processor, so that other programs do not count."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    _wait()
    start = clock()
    action()
    _wait()
    return clock() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turn(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Each way once a round, after a round that does not count."""
    seconds = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, action in ways.items():
            spent = timed(action)
            if number:
                seconds[name].append(spent)
        sys.stderr.write(f"\r  round {number} of {rounds}   ")
    sys.stderr.write("\r" + " " * 30 + "\r")
    return seconds


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> dict[str, float]:
    """Median, least and most of the ratio within a round; and of the fastest of all rounds, which others slow least."""
    values = [a / b for a, b in zip(seconds[over], seconds[under])]
    return {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "fastest": min(seconds[over]) / min(seconds[under]),
    }


def peak_bytes(action: Callable[[], object]) -> int | None:
    """Most device memory the action held beyond what was there; None without a GPU, where torch does not count."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    _wait()
    return torch.cuda.max_memory_allocated() - before


def identity_of(count: int, branch: IdentityBranch, device: torch.device, dtype: torch.dtype) -> IdentityTokens:
    """Random tokens of so many subjects."""
    draw = torch.Generator().manual_seed(count)
    subjects = torch.randn(count, TOKENS, branch.context_width, generator=draw)
    background = torch.randn(BACKGROUND, branch.context_width, generator=draw)
    return IdentityTokens(
        subjects.to(device, dtype),
        background.to(device, dtype),
        Layout(BOXES[:count]),
        torch.ones(count, device=device, dtype=dtype),
    )


@torch.inference_mode()
def measure(
    host_name: str, size_name: str, dtype: torch.dtype, rounds: int, subjects: tuple[int, ...], steps: int
) -> list[dict]:
    """One row a number of subjects."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    host = HOSTS[host_name](SIZES[size_name], device, dtype)
    widths = tuple(site.width for site in host.layout.sites())
    torch.manual_seed(0)
    branch = IdentityBranch(widths, host.layout.context_width, device=device, dtype=dtype).requires_grad_(False)
    rows = []
    for count in subjects:
        tokens = identity_of(count, branch, device, dtype)
        branch.project(tokens)  # what is loaded once does not count
        project = timed(lambda tokens=tokens: branch.project(tokens))
        projected = branch.project(tokens)
        ways = {
            "plain": host.plain(),
            "ours": host.ours(projected, GAMMA),
            "published": host.published(branch, tokens, GAMMA),
        }
        agreement = (ways["ours"]() - ways["published"]()).abs().max().item()
        seconds = in_turn(ways, rounds)
        row = {
            "subjects": count,
            "plain_step_s": statistics.median(seconds["plain"]),
            "ours_over_plain": ratio(seconds, "ours", "plain"),
            "published_over_plain": ratio(seconds, "published", "plain"),
            "ours_over_published": ratio(seconds, "ours", "published"),
            "largest_difference_ours_published": agreement,
            "project_s": project,
            "held_bytes_ours": sum(t.nbytes for pair in projected.sites for t in pair),
            "held_bytes_published": sum(p.nbytes for p in branch.parameters()),
            "peak_bytes": {name: peak_bytes(way) for name, way in ways.items()},
        }
        if steps and count == 2:
            row |= picture(ways, branch, tokens, steps)
        rows.append(row)
    return rows


def picture(ways: dict[str, Callable[[], object]], branch: IdentityBranch, tokens: IdentityTokens, steps: int) -> dict:
    """A whole picture of so many steps, the projection of keys and values included in ours."""

    def whole(name: str) -> None:
        if name == "ours":
            branch.project(tokens)
        for _ in range(steps):
            ways[name]()

    seconds = in_turn({name: lambda name=name: whole(name) for name in ("plain", "ours", "published")}, 2)
    return {
        "picture_steps": steps,
        "picture_ours_over_plain": ratio(seconds, "ours", "plain"),
        "picture_ours_over_published": ratio(seconds, "ours", "published"),
    }


def table(rows: list[dict]) -> str:
    """For people."""

    def cell(value: dict[str, float]) -> str:
        return f"{value['median']:.3f} ({value['least']:.3f} to {value['most']:.3f})"

    lines = ["subjects  plain step  ours/plain               published/plain          ours/published"]
    for row in rows:
        lines.append(
            f"{row['subjects']:8}  {row['plain_step_s'] * 1000:8.1f} ms"
            f"  {cell(row['ours_over_plain']):23}  {cell(row['published_over_plain']):23}"
            f"  {cell(row['ours_over_published'])}"
        )
        if "picture_steps" in row:
            lines.append(
                f"          a picture of {row['picture_steps']} steps: ours/plain "
                f"{cell(row['picture_ours_over_plain'])}, ours/published "
                f"{cell(row['picture_ours_over_published'])}"
            )
    held = rows[-1]
    lines.append(
        f"held beside the UNet: ours {held['held_bytes_ours'] / 1e6:.1f} MB, published "
        f"{held['held_bytes_published'] / 1e6:.1f} MB; largest difference of the two results "
        f"{max(row['largest_difference_ours_published'] for row in rows):.1e}"
    )
    return "\n".join(lines)


def chip() -> str:
    """What the numbers were measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def writing(options: argparse.ArgumentParser, results: Path) -> None:
    """Add --write [FILE] to a benchmark's options."""
    options.add_argument(
        "--write",
        nargs="?",
        const=results,
        type=Path,
        metavar="FILE",
        help=f"keep the numbers in {results.name}, or FILE",
    )


def keep(file: Path | None, title: str, found: object) -> None:
    """Put what was found into a file of results, under its title; None: nowhere."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(kept | {title: found}, indent=1) + "\n")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="full" if torch.cuda.is_available() else "small")
    options.add_argument("--host", choices=HOSTS, default="comfyui")
    options.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        nargs="+",
        default=["float16"] if torch.cuda.is_available() else ["float32"],
    )
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--subjects", type=int, nargs="+", default=[1, 2, 3, 4])
    options.add_argument("--steps", type=int, default=30, help="of the whole picture with two subjects; 0 for none")
    writing(options, RESULTS)
    chosen = options.parse_args()
    for dtype in chosen.dtype:
        rows = measure(
            chosen.host, chosen.size, getattr(torch, dtype), chosen.rounds, tuple(chosen.subjects), chosen.steps
        )
        title = f"{chip()}, torch {torch.__version__}, {chosen.host}, {chosen.size}, {dtype}"
        sys.stdout.write(f"{title}\n{table(rows)}\n")
        sys.stdout.flush()
        keep(chosen.write, title, rows)


if __name__ == "__main__":
    main()
