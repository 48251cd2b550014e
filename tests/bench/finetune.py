"""How fast a relation LoRA trains and how much memory it takes, against the published loop's work.

    python -m tests.bench.finetune                       full-size SDXL, random weights: a GPU of 80 GB or more
    python -m tests.bench.finetune --size small --device cpu    the same code on small networks, in a minute
    python -m tests.bench.finetune --base klein4b               FLUX.2 Klein 4B (klein9b, flux1-dev): see finetune_flux

Needs no checkpoint: weights are random, shapes are SDXL's, CLIP bigG's and MS-Diffusion's. One row a setting: updates
of the global batch a second, peak memory, the estimate of --dry-run beside it, and what 500 updates of batch 8 take.
Settings run in the order of their worth; with ``--seconds`` those that would begin later are left out.

"published" does per step what the released loop does: the frozen encoders run for every picture (VAE in float32 on the
target and both concepts, both text encoders, phrases, CLIP bigG on both photographs, resampler), identity keys and
values are projected again, the predicate's attention is spelled out at all 70 sites, one picture at a time.
"""

from __future__ import annotations

import argparse
import functools
import gc
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel

from tests.bench import finetune_flux
from tests.bench.finetune_networks import CROPS, FULL, Encoders, Sizes, built, random_crops, small_sizes
from tests.bench.identity import keep, writing
from training.common.cli import clock, say
from training.config import Config, DataConfig, LossConfig, ModelsConfig, OutputConfig, TrainConfig
from training.diffusion.noise_schedule import NoiseSchedule
from training.engine import objective as relation
from training.engine.memory import estimate
from training.host_diffusers import relation_parameters

RESULTS = Path(__file__).parent / "results" / "finetune.json"


@dataclass(frozen=True)
class Setting:
    """One row: pictures at once, of a global batch; what is cached and what is computed twice."""

    name: str
    micro_batch: int
    batch: int
    cached: bool = True
    checkpointing: bool = False
    attention: float = 0.0


def settings(batches: list[int]) -> list[Setting]:
    """Every setting of the table, those first that say most."""
    rows = [Setting("ours", size, size) for size in batches]
    rows += [Setting("published", 1, max(batches), cached=False, attention=0.001)]
    rows += [Setting("ours, checkpointing", size, size, checkpointing=True) for size in batches]
    return rows + [Setting("ours, encoders in every step", size, size, cached=False) for size in batches]


def measure(setting: Setting, sizes: Sizes, device: torch.device, dtype: torch.dtype, steps: int) -> dict:
    """Updates a second and peak memory of one setting."""
    torch.manual_seed(0)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    config = Config(
        relation="bench",
        data=DataConfig(folder="-", image_px=sizes.pixels),
        models=ModelsConfig(base="-"),
        output=OutputConfig(folder="-"),
        loss=LossConfig(attention_weight=setting.attention, attention_max_cells=10**6),
        train=TrainConfig(gradient_checkpointing=setting.checkpointing),
    )
    unet = built(lambda: UNet2DConditionModel.from_config(sizes.configs["unet"]), device, dtype)
    objective = relation.attach(unet, NoiseSchedule.of_betas("epsilon"), config, with_identity=True)
    crops = random_crops(sizes, device)
    encoders = Encoders(sizes, device, dtype)
    identity = encoders.project(crops.identity.to(dtype), crops, unet)
    if setting.cached:
        encoders = None  # what the cache is for: nothing but the UNet stays
        gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    parameters = list(relation_parameters(unet).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def update() -> None:
        for start in range(0, setting.batch, setting.micro_batch):
            rows = torch.arange(start, start + setting.micro_batch, device=device) % CROPS
            batch, tokens = crops.take(rows), identity.take(rows)
            if encoders is not None:
                batch, tokens = encoders.encode(batch, unet)
            noise = torch.randn_like(batch.latents)
            timesteps = torch.randint(1000, (setting.micro_batch,), device=device)
            losses = objective(batch, tokens, timesteps, noise)
            (losses["loss"] * setting.micro_batch / setting.batch).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2 if setting.batch == setting.micro_batch else 1):
        update()
    started = _now(device)
    for _ in range(steps):
        update()
    seconds = (_now(device) - started) / steps
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {
        "setting": setting.name,
        "batch": setting.batch,
        "at_once": setting.micro_batch,
        "seconds_an_update": seconds,
        "pictures_a_second": setting.batch / seconds,
        "peak_gib": peak / 2**30 if peak else None,
        "estimated_gib": _estimated(sizes, setting.micro_batch, dtype, setting.checkpointing) / 2**30,
    }


@functools.cache
def _estimated(sizes: Sizes, batch: int, dtype: torch.dtype, checkpointing: bool) -> int:
    with torch.device("meta"):
        empty = UNet2DConditionModel.from_config(sizes.configs["unet"])
    return estimate(empty, sizes.pixels // 8, batch, dtype, 4, checkpointing, False, True).total


def _now(device: torch.device) -> float:
    """The clock with the GPU waited for, or the processor's own time, so that other programs do not count."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def table(rows: list[dict]) -> str:
    """One line a setting; "x baseline" is over the published loop, or the loop without a cache, at the same batch."""
    loops = [row for row in rows if row["setting"] in ("published", "encoders in every step")]
    lines = [
        f"{'setting':32}{'batch':>6}{'at once':>9}{'s/update':>10}{'pictures/s':>12}{'x baseline':>13}"
        f"{'500 updates':>13}{'peak GiB':>10}{'estimate':>10}"
    ]
    for row in rows:
        peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.2f}"
        # the published loop has one row, of the largest batch; a loop that ran out of memory has none
        loop = next((loop for loop in loops if loop["batch"] == row["batch"]), loops[-1] if loops else None)
        faster = "-" if loop is None else f"{row['pictures_a_second'] / loop['pictures_a_second']:.2f}"
        lines.append(
            f"{row['setting']:32}{row['batch']:>6}{row['at_once']:>9}{row['seconds_an_update']:>10.3f}"
            f"{row['pictures_a_second']:>12.2f}{faster:>13}"
            f"{clock(500 * row['seconds_an_update']):>13}{peak:>10}{row['estimated_gib']:>10.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", choices=("sdxl", *finetune_flux.BASES), default="sdxl")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--steps", type=int, default=5, help="updates that are timed, after two that are not")
    parser.add_argument("--seconds", type=float, help="begin no further setting after so long")
    writing(parser, RESULTS)
    options = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    bench, sizes, settings_of = measure, FULL if options.size == "full" else small_sizes(), settings
    if options.base != "sdxl":
        bench, settings_of = finetune_flux.measure, finetune_flux.settings
        sizes = finetune_flux.Sizes(options.base, options.size == "small")
    chip = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    machine = f"{chip}, torch {torch.__version__}, diffusers {diffusers.__version__}, {options.size}"
    machine += "" if options.base == "sdxl" else f", {options.base}"
    machine += f", {dtype}".replace("torch.", "")
    say(machine)
    rows, began = [], time.perf_counter()
    for setting in settings_of(options.batches):
        name, spent = f"{setting.name}, batch {setting.batch}", time.perf_counter() - began
        if options.seconds is not None and spent > options.seconds:
            say(f"{name}: left out after {spent:.0f} s")
            continue
        try:
            rows.append(bench(setting, sizes, device, dtype, options.steps))
        except torch.cuda.OutOfMemoryError:
            say(f"{name}: out of memory")
            continue
        say(f"{name}: {rows[-1]['seconds_an_update']:.3f} s an update; {time.perf_counter() - began:.0f} s so far")
        keep(options.write, machine, rows)
    say(table(rows))


if __name__ == "__main__":
    main()
