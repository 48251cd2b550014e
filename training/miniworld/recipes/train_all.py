"""Train every model of the miniworld with one command, within a budget of minutes.

    python -m training.miniworld train-all --minutes 165 --out out/miniworld

Stages run as processes of one thread each, as many at once as there are cores: two single threads do more work than
two threads on one small model. A stage that is stopped (also by kill -9) goes on from its last checkpoint when the
command is called again, exactly as if it had not been stopped. Logs are in `<out>/logs`, the models in `<out>/models`.
"""

import argparse
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from ...common import arguments as of_type
from .stages import SIZES, STAGES, is_done, run_stage, stage_minutes

REPORT_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[3]


def say(line: str) -> None:
    """Print one line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def ready(out: Path, running: set[str]) -> list[str]:
    """List the stages that could start now, the most urgent first."""
    return [
        name
        for name, stage in STAGES.items()
        if name not in running and not is_done(out, name) and all(is_done(out, need) for need in stage.needs)
    ]


def train_all(out: Path, minutes: float, size: str, workers: int) -> int:
    """Run every stage that is not done yet.

    Args:
        out: receives everything.
        minutes: of the whole run.
        size: key of SIZES.
        workers: stages at once, each on one thread.

    Returns:
        0 when every stage is done, 1 when one failed.
    """
    for folder in ("plans", "logs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    started = reported = time.monotonic()
    running: dict[str, subprocess.Popen] = {}
    try:
        while not is_done(out, "export"):
            for name in ready(out, set(running))[: workers - len(running)]:
                running[name] = _start(out, name, size, stage_minutes(name, minutes, workers))
                say(f"{name}: started, {stage_minutes(name, minutes, workers):.1f} minutes")
            if not running:
                say("nothing can run: a stage that others need has failed; see logs")
                return 1
            time.sleep(0.2)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code = running.pop(name).returncode
                passed = (time.monotonic() - started) / 60
                if code:
                    say(f"{name}: failed with {code} after {passed:.1f} minutes; see {out / 'logs' / name}.log")
                    return 1
                say(f"{name}: done after {passed:.1f} of {minutes:.0f} minutes; {_last_line(out, name)}")
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                for name in running:
                    say(f"  {name}: {_last_line(out, name)}")
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    say(f"all stages done; the models are in {out / 'models'}")
    return 0


def _start(out: Path, name: str, size: str, minutes: float) -> subprocess.Popen:
    command = [sys.executable, "-m", "training.miniworld.recipes.train_all", "--out", str(out.resolve())]
    command += ["--stage", name, "--size", size]
    if minutes:  # a stage of fixed work has none
        command += ["--minutes", repr(minutes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with open(out / "logs" / f"{name}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _last_line(out: Path, name: str) -> str:
    lines = (out / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _end_with_parent() -> None:
    """End this stage when the command that started it is gone, so that no two ever write one run."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.miniworld train-all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=of_type.path, default=Path("out/miniworld"), help="of everything")
    parser.add_argument(
        "--minutes", type=of_type.positive, default=165.0, help="of the whole run; of the stage with --stage"
    )
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument(
        "--workers", type=of_type.whole(), default=os.cpu_count() or 1, help="stages at once, one thread each"
    )
    parser.add_argument("--stage", choices=STAGES, help="run this one alone, in this process")
    args = parser.parse_args(arguments)
    if args.stage is None:
        return train_all(args.out, args.minutes, args.size, args.workers)
    _end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    torch.set_num_threads(1)
    for line in run_stage(args.out, args.stage, SIZES[args.size], args.minutes):
        say(line)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the last checkpoints are whole, and the same command goes on from them\n")
        sys.exit(130)
