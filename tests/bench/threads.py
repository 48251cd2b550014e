"""One thread or two for small models, alone and beside busy processes: python -m tests.bench.threads

A training step of a relation LoRA's kind (the UNet with its identity branch, forward and backward, batch 8) in
processes of one and of two threads, each with OpenMP's threads that wait actively, as torch leaves them, and passively
(OMP_WAIT_POLICY), with 0, 1 and 2 processes beside it that never rest. Wall and processor seconds of a step; a second
process of one thread at the same time shows what two processes do instead of two threads. Results go to
tests/bench/results/threads.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "threads.json"
STEPS = 6


def step(threads: int) -> dict[str, float]:
    """Seconds of a step in this process, the first left out."""
    import torch

    from training.miniworld.recipes.denoiser import Denoiser

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, batch = Denoiser(16), 8
    noisy, times = torch.randn(batch, 16, 16, 16), torch.randint(0, 1000, (batch,))
    conditions = {
        "text": torch.randn(batch, 77, 192),
        "pooled": torch.randn(batch, 128),
        "references": torch.randn(batch, 2, 81, 128),
        "phrases": torch.randn(batch, 2, 64),
        "boxes": torch.tensor([[0.05, 0.2, 0.55, 0.95], [0.45, 0.2, 0.95, 0.95]]).expand(batch, 2, 4).contiguous(),
        "weights": torch.ones(batch, 2),
        "grounded": torch.ones(batch, 2, dtype=torch.bool),
    }

    def once() -> None:
        (model(noisy, times, **conditions) - noisy).square().mean().backward()

    once()
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(STEPS):
        once()
    return {
        "wall": round((time.monotonic() - wall) / STEPS, 3),
        "processor": round((time.process_time() - cpu) / STEPS, 3),
    }


def measured(threads: int, policy: str, beside: int, processes: int = 1) -> dict[str, float]:
    """One row: the mean over `processes` processes that take steps at once."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    command = [sys.executable, "-m", "tests.bench.threads", str(threads)]
    try:
        ours = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in ours]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    row = {"threads": threads, "processes": processes, "waiting": policy or "as torch has it", "busy beside": beside}
    mean = {name: round(sum(each[name] for each in found) / processes, 3) for name in found[0]}
    return row | mean | {"steps a second": round(processes / mean["wall"], 2)}


def main() -> int:
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(step(int(sys.argv[1]))) + "\n")
        return 0
    rows = []
    for beside in (0, 1, 2):
        for threads, policy, processes in ((1, "", 1), (2, "", 1), (2, "PASSIVE", 1), (1, "", 2)):
            rows.append(measured(threads, policy, beside, processes))
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()
            facts = {"cores": os.cpu_count(), "load before": os.getloadavg()[0], "rows": rows}
            RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
