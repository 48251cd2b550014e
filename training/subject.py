"""Train a Subject-Diffusion adapter (arXiv:2307.11410): photographs of named subjects into pictures, on SD 2 or SDXL.

    python -m training.subject training/configs/subject_sd2.toml
    python -m training.subject CONFIG.toml --dry-run                  look at everything, train nothing
    python -m training.subject CONFIG.toml --preview-data sheet.png   boxes, segmentations and references, drawn
    python -m training.subject CONFIG.toml --resume                   go on after an interruption
    python -m training.subject CONFIG.toml --set train.steps=200      one key, differently
    accelerate launch -m training.subject CONFIG.toml                 many GPUs, many machines

The authors published no weights, so there is none to begin from. Exit codes as those of training.finetune.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from .common.arguments import add_training_options
from .common.cli import command, leave, say, shell_command
from .common.sheets import save_picture
from .common.toml_config import ConfigFaults
from .config.subject import SubjectConfig, load_subject_config
from .data.subject_cache import EncodedSubjects, encode_subjects, rows_of
from .data.subject_samples import prepare_sample, subject_sheet
from .data.subject_sources import load_scenes
from .engine.batch import chances_of, sample_batch
from .engine.loss_log import LossLog
from .engine.optim import build_optimizer
from .engine.processes import open_accelerator
from .engine.resume import restore
from .engine.run_spec import precision_of
from .engine.stops import going_on_named
from .engine.subject_adapter import attach_subjects, export_adapter
from .engine.subject_pictures import SubjectPictures
from .engine.subject_spec import SubjectRun, describe_subject_run, load_subject_run, look_further_at_subjects
from .engine.training_loop import run_steps, share_of, update
from .host_diffusers.fused_text import FusedText

_SHEET_ROWS = 12


def main(arguments: list[str] | None = None, again: str = "") -> int:
    """Run the command; return its exit code.

    Args:
        arguments: of the command line; None: this process's.
        again: what to type after a stop to go on, where this is not the command that was typed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m training.subject", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_options(parser, "pictures")
    options = parser.parse_args(arguments)
    resume = arguments if options.resume else [*arguments, "--resume"]
    return command(
        lambda: run(options, lambda processes: again or shell_command("training.subject", resume, processes))
    )


def run(options: argparse.Namespace, again: Callable[[int], str]) -> None:
    """Validate everything, then run what the options say.

    Args:
        options: of the command line.
        again: number of processes to the command that resumes the run.
    """
    try:
        config = load_subject_config(options.config, options.overrides)
    except ConfigFaults as error:
        raise look_further_at_subjects(error) from error
    if options.preview_data:
        return preview(config, options.preview_data)
    half = precision_of(config) == torch.float16 and torch.cuda.is_available()
    # words of dropped prompts and the last layers of SDXL's encoders have no gradient
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = open_accelerator(config.train, half, unused)
    speak = say if accelerator.is_main_process else (lambda text: None)
    logging.getLogger().setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    spec = load_subject_run(config, accelerator.device, accelerator.num_processes, options.resume)
    speak(describe_subject_run(spec, accelerator.num_processes))
    if options.dry_run:
        return
    accelerator.wait_for_everyone()  # all have looked at the folder before one of them holds it
    loss_log = LossLog(spec, again(accelerator.num_processes))
    with going_on_named(loss_log, accelerator, spec.folder.path):
        train(spec, accelerator, loss_log, speak)


def preview(config: SubjectConfig, path) -> None:
    """Draw the first rows as they will be trained on."""
    rows = rows_of(load_scenes(config.data, config.adapter, config.train.seed), config)[:_SHEET_ROWS]
    samples = [prepare_sample(scene, place, config.data, config.train.seed) for scene, place in rows]
    save_picture(subject_sheet(samples), path)
    say(f"wrote {path}")


def train(spec: SubjectRun, accelerator: Accelerator, loss_log: LossLog, speak) -> None:
    """Encode, attach, loop, export."""
    # 1. everything frozen is encoded once; the UNet gets its adapter
    config, device, settings = spec.config, accelerator.device, spec.config.train
    text = FusedText(spec.models.base.text(spec.dtype), spec.tokens).to(device)
    with accelerator.main_process_first():
        data = encode_subjects(spec.rows, spec.prompts, config, spec.models, device, spec.dtype, speak)
    speak(f"loading the UNet in {str(spec.dtype).removeprefix('torch.')}")
    unet = spec.models.base.unet(spec.dtype).to(device)
    objective = attach_subjects(unet, text, spec.models, config, spec.dtype)
    pictures = None
    if accelerator.is_main_process:
        loss_log.folder.begin()
        if config.samples.every:
            pictures = pictures_of(spec, objective, data, device)
            pictures.draw_without()
    # 2. the optimiser, and the checkpoint if there is one
    parameters = objective.trained()
    optimizer = build_optimizer(parameters.values(), settings)
    start = restore(loss_log.folder.read_checkpoint(), parameters, optimizer, accelerator, loss_log)
    model, optimizer = accelerator.prepare(objective, optimizer)
    # 3. the steps that are left, with sample pictures and checkpoints
    run_steps(
        spec,
        start,
        lambda step: one_step(model, optimizer, parameters, data, step, spec, accelerator),
        optimizer,
        parameters,
        accelerator,
        loss_log,
        pictures,
    )
    # 4. the promised file
    if accelerator.is_main_process:
        report = export_adapter(objective, config.result_file, settings.steps, spec.dataset)
        speak(f"wrote {config.result_file}; {report}")
    accelerator.wait_for_everyone()


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    data: EncodedSubjects,
    step: int,
    spec: SubjectRun,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """Update once from one global batch, of which this process takes its share; return its mean losses."""
    settings, device = spec.config.train, accelerator.device
    global_batch = sample_batch(settings.seed, step, settings.batch_size, len(data), data.latent)
    chances, views = chances_of(settings.seed, step, settings.batch_size)
    micro_batches = share_of(settings.batch_size, spec.micro_batch, accelerator)

    def inputs():
        for rows in micro_batches:
            piece = global_batch.part(rows.start, rows.stop)
            batch = data.take(piece.rows, views[rows]).to(device)
            yield batch, piece.timesteps.to(device), piece.noise.to(device), chances[rows].to(device)

    return update(
        model, optimizer, parameters, inputs(), len(micro_batches), accelerator, max_grad_norm=settings.max_grad_norm
    )


def pictures_of(spec: SubjectRun, objective, data: EncodedSubjects, device: torch.device) -> SubjectPictures:
    """Make the sample pictures of a run: its first rows, each with its first view."""
    count = min(spec.config.samples.count, len(data))
    rows = torch.arange(count)
    batch = data.take(rows, torch.zeros(count, dtype=torch.long)).to(device)
    prompts = [data.prompts[row].prompt for row in rows.tolist()]
    return SubjectPictures(objective, batch, prompts, spec.models.base.vae, spec.folder)


if __name__ == "__main__":
    leave(main())
