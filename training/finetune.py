"""Fine-tune a relation LoRA from a handful of triplets (DreamRelation arXiv:2410.23280).

    python -m training.finetune training/configs/relation_sdxl.toml
    python -m training.finetune CONFIG.toml --dry-run                  look at everything, train nothing
    python -m training.finetune CONFIG.toml --preview-data sheet.png   boxes, masks and keypoints, drawn
    python -m training.finetune CONFIG.toml --resume                   go on after an interruption
    python -m training.finetune CONFIG.toml --set train.steps=200      one key, differently
    accelerate launch -m training.finetune CONFIG.toml                 many GPUs, many machines

Exit codes: 0 the promised file exists and loads; 1 stopped on the way; 2 something to mend first; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .common.arguments import add_training_options
from .common.cli import command, leave, say, shell_command
from .common.errors import UserErrors
from .common.sheets import save_picture
from .common.toml_config import ConfigFaults
from .config import FluxConfig, load_config
from .data.dataset import load_triplets, prepare
from .data.preview import triplet_sheet
from .engine import setup as sdxl_setup
from .engine.flux import setup as flux_setup
from .engine.flux.spec import describe_flux_run, load_flux_spec
from .engine.flux.spec import look_further as look_further_flux
from .engine.loss_log import LossLog
from .engine.optim import build_optimizer
from .engine.processes import open_accelerator
from .engine.resume import restore
from .engine.run_spec import AnySpec, describe_run, load_run_spec, look_further, precision_of
from .engine.stops import going_on_named
from .engine.training_loop import run_steps, share_of, update
from .host_diffusers import IdentityBatch


def main(arguments: list[str] | None = None, again: str = "") -> int:
    """Run the command and return its exit code.

    Args:
        arguments: of the command line; None: this process's.
        again: what to type after a stop to go on, where this is not the command that was typed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m training.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_options(parser, "triplets")
    parser.add_argument(
        "--also", choices=("kohya",), help="write a second file, fused as kohya's tools have it (architecture flux)"
    )
    options = parser.parse_args(arguments)
    resume = arguments if options.resume else [*arguments, "--resume"]
    return command(
        lambda: run(options, lambda processes: again or shell_command("training.finetune", resume, processes))
    )


def run(options: argparse.Namespace, again: Callable[[int], str]) -> None:
    """Validate everything, then run what the options say.

    Args:
        options: of the command line.
        again: number of processes to the command that resumes the run.
    """
    try:
        config = load_config(options.config, options.overrides)
    except ConfigFaults as error:
        further = look_further_flux if error.settings.get("architecture") == "flux" else look_further
        raise further(error) from error
    if options.preview_data:
        triplets = load_triplets(config.data, config.relation, config.train.seed)
        save_picture(triplet_sheet([prepare(triplet, config.data) for triplet in triplets]), options.preview_data)
        return say(f"wrote {options.preview_data}")
    of_flux = isinstance(config, FluxConfig)
    if options.also and not of_flux:
        raise UserErrors("--also kohya: the file of an SDXL relation is spelled as kohya's tools have it already.")
    half = not of_flux and precision_of(config) == torch.float16 and torch.cuda.is_available()
    accelerator = open_accelerator(config.train, half)
    speak = say if accelerator.is_main_process else (lambda text: None)
    logging.getLogger().setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    load, describe = (load_flux_spec, describe_flux_run) if of_flux else (load_run_spec, describe_run)
    spec = load(config, accelerator.device, accelerator.num_processes, options.resume)
    speak(describe(spec, accelerator.num_processes))
    if options.dry_run:
        return None
    accelerator.wait_for_everyone()  # all have looked at the folder before one of them holds it
    loss_log = LossLog(spec, again(accelerator.num_processes))
    with going_on_named(loss_log, accelerator, spec.folder.path):
        setup = (flux_setup if of_flux else sdxl_setup).set_up(spec, accelerator, speak)
        train(spec, setup, accelerator, loss_log, speak, options.also == "kohya")


def train(
    spec: AnySpec, setup: sdxl_setup.Setup, accelerator: Accelerator, loss_log: LossLog, speak, kohya: bool
) -> None:
    """Loop and export."""
    # 1. the optimiser, and the checkpoint if there is one
    config, settings = spec.config, spec.config.train
    parameters, identity = setup.parameters, setup.identity
    optimizer = build_optimizer(parameters.values(), settings)
    start = restore(loss_log.folder.read_checkpoint(), parameters, optimizer, accelerator, loss_log)
    places = [False, True] if setup.placed else None
    model, optimizer = accelerator.prepare(setup.objective, optimizer, device_placement=places)
    samples = None
    if accelerator.is_main_process:
        loss_log.folder.begin()
        samples = setup.samples()
    # 2. the steps that are left, with sample pictures and checkpoints
    run_steps(
        spec,
        start,
        lambda step: one_step(model, optimizer, parameters, setup.crops, identity, step, spec, accelerator),
        optimizer,
        parameters,
        accelerator,
        loss_log,
        samples,
    )
    # 3. the promised file
    if accelerator.is_main_process:
        report = setup.write(kohya, samples)
        speak(f"wrote {config.lora_file}; {report}")
    accelerator.wait_for_everyone()


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    crops: Any,
    identity: IdentityBatch | None,
    step: int,
    spec: AnySpec,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """Update once from one global batch, of which this process takes its share; return its mean losses."""
    settings, device = spec.config.train, accelerator.device
    global_batch = spec.draw(step, crops)
    micro_batches = share_of(settings.batch_size, spec.micro_batch, accelerator)

    def inputs():
        for micro_batch in micro_batches:
            piece = global_batch.part(micro_batch.start, micro_batch.stop)
            # crops stay in the computer's memory: a prompt of Flux is 4 to 16 MB
            subjects = identity.take(piece.rows).to(device) if identity else None
            yield crops.take(piece.rows).to(device), subjects, *piece.inputs(device)

    return update(
        model, optimizer, parameters, inputs(), len(micro_batches), accelerator, max_grad_norm=settings.max_grad_norm
    )


if __name__ == "__main__":
    leave(main())
