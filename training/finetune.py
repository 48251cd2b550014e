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
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from core.relation.lora import RelationCard

from .common import arguments as of_type
from .common.cli import Progress, command, leave, say, shell_command
from .common.sheets import save_picture
from .common.toml_config import ConfigFaults
from .config import Config, load_config
from .data.dataset import load_triplets, prepare
from .data.encoded_triplets import EncodedTriplets
from .data.encoding_cache import encode, encode_negative
from .data.preview import triplet_sheet
from .engine import objective as relation
from .engine.batch import sample_batch
from .engine.loss_log import LossLog
from .engine.optim import build_optimizer, learning_rate_at
from .engine.resume import checkpoint_of, restore
from .engine.run_spec import RunSpec, describe_run, load_run_spec, look_further, precision_of
from .engine.stops import going_on_named
from .engine.validation import SamplePictures, sample_pictures
from .host_diffusers import IdentityBatch, identity_batch, relation_parameters


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
    parser.add_argument("config", metavar="CONFIG.toml")
    parser.add_argument("--set", action="append", default=[], metavar="table.key=value", dest="overrides")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    parser.add_argument("--dry-run", action="store_true", help="validate, print the plan and the memory, train nothing")
    parser.add_argument(
        "--preview-data", type=of_type.path, metavar="SHEET.png", help="draw what was understood of the triplets; stop"
    )
    options = parser.parse_args(arguments)
    resume = arguments if options.resume else [*arguments, "--resume"]
    return command(
        lambda: run(options, lambda processes: again or shell_command("training.finetune", resume, processes))
    )


def run(options: argparse.Namespace, again: Callable[[int], str]) -> None:
    """Validate everything, then do what was asked.

    Args:
        options: of the command line.
        again: the command that goes on with a run of some processes.
    """
    try:
        config = load_config(options.config, options.overrides)
    except ConfigFaults as error:
        raise look_further(error) from error
    if options.preview_data:
        triplets = load_triplets(config.data, config.relation, config.train.seed)
        save_picture(triplet_sheet([prepare(triplet, config.data) for triplet in triplets]), options.preview_data)
        return say(f"wrote {options.preview_data}")
    # accelerate scales float16's gradients; the other precisions are ours
    half = precision_of(config) == torch.float16 and torch.cuda.is_available()
    accelerator = Accelerator(cpu=config.train.device == "cpu", mixed_precision="fp16" if half else "no")
    speak = say if accelerator.is_main_process else (lambda text: None)
    logging.getLogger().setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    recipe = load_run_spec(config, accelerator.device, accelerator.num_processes, options.resume)
    speak(describe_run(recipe, accelerator.num_processes))
    if options.dry_run:
        return None
    accelerator.wait_for_everyone()  # all have looked at the folder before one of them holds it
    journal = LossLog(recipe, again(accelerator.num_processes))
    with going_on_named(journal, accelerator, recipe.folder.path):
        train(recipe, accelerator, journal, speak)


def train(recipe: RunSpec, accelerator: Accelerator, journal: LossLog, speak) -> None:
    """Encode, attach, loop, export."""
    config, device, settings = recipe.config, accelerator.device, recipe.config.train
    with accelerator.main_process_first():
        crops = encode(recipe.triplets, config, recipe.frozen, device, recipe.dtype, speak)
        negative = encode_negative(config, recipe.frozen, device, recipe.dtype) if config.samples.every else None
    speak(f"loading the UNet in {str(recipe.dtype).removeprefix('torch.')}")
    unet = recipe.frozen.base.unet(recipe.dtype).to(device)
    objective = relation.attach(unet, recipe.schedule, config, recipe.frozen.identity_config is not None)
    identity = project_identity(recipe, crops, unet, device)
    parameters = relation_parameters(unet)
    optimizer = build_optimizer(parameters.values(), settings)
    start = restore(journal.folder.read_checkpoint(), parameters, optimizer, accelerator, journal)
    model, optimizer = accelerator.prepare(objective, optimizer)
    crops = crops.to(device)
    samples = None
    if accelerator.is_main_process:
        journal.folder.begin()
        samples = sample_pictures(recipe, objective, crops, identity, negative)
    progress = Progress(start, settings.steps)
    for step in range(start, settings.steps):
        rate = learning_rate_at(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = one_step(model, optimizer, parameters, crops, identity, step, recipe, accelerator)
        journal.log(losses)
        done = step + 1
        if accelerator.is_main_process and progress.due(done):
            progress.tell(done, journal.last(), rate)
        if samples and (done % config.samples.every == 0 or done == settings.steps):
            samples.draw(done)  # before the checkpoint: a run resumed from it has all pictures up to it
        if done % config.output.checkpoint_every == 0 or done == settings.steps:
            journal.sync_losses(accelerator)
            if accelerator.is_main_process:
                journal.check()
                journal.write(checkpoint_of(done, parameters, optimizer, accelerator, journal))
    if accelerator.is_main_process:
        finish(recipe, objective, samples, speak)
    accelerator.wait_for_everyone()


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    crops: EncodedTriplets,
    identity: IdentityBatch | None,
    step: int,
    recipe: RunSpec,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One update from one global batch; this process does its share in micro-batches. Returns its mean losses."""
    settings, device = recipe.config.train, accelerator.device
    share = settings.batch_size // accelerator.num_processes
    mine = share * accelerator.process_index
    drawn = sample_batch(settings.seed, step, settings.batch_size, len(crops), tuple(crops.latents.shape[1:]))
    pieces = [drawn.part(at, at + recipe.micro_batch) for at in range(mine, mine + share, recipe.micro_batch)]
    totals: dict[str, Tensor] = {}
    for piece in pieces:
        rows = piece.rows.to(device)
        with nullcontext() if piece is pieces[-1] else accelerator.no_sync(model):
            losses = model(
                crops.take(rows),
                identity.take(rows) if identity else None,
                piece.timesteps.to(device),
                piece.noise.to(device),
            )
            accelerator.backward(losses["loss"] / len(pieces))
        for name, loss in losses.items():
            totals[name] = totals.get(name, 0) + loss.detach() / len(pieces)
    if settings.max_grad_norm:
        accelerator.clip_grad_norm_(list(parameters.values()), settings.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return totals


def project_identity(
    recipe: RunSpec, crops: EncodedTriplets, unet: nn.Module, device: torch.device
) -> IdentityBatch | None:
    """Identity tokens of every crop as keys and values at every site, once; the projections are not kept."""
    if recipe.frozen.identity_config is None:
        return None
    model = recipe.frozen.identity()
    with torch.no_grad():
        batch = identity_batch(
            model.ms_adapter,
            crops.identity,
            model.dummy_image_tokens[0],
            crops.boxes,
            crops.present,
            tuple(crops.latents.shape[-2:]),
            unet,
        )
    return batch.to(device, recipe.dtype)


def finish(recipe: RunSpec, objective: relation.RelationObjective, samples: SamplePictures | None, speak) -> None:
    """Write the promised file, and read it back before anyone is told of it."""
    config: Config = recipe.config
    card = RelationCard(
        base=recipe.frozen.base.name,
        relation=config.relation,
        example_prompt=recipe.triplets[0].prompt,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        steps=config.train.steps,
        losses=objective.weights,
        dataset_sha256=recipe.dataset,
        created_with="Relate, python -m training.finetune",
        thumbnail=samples.thumbnail(config.train.steps) if samples else "",
    )
    found = relation.export(objective, config.lora_file, card)
    speak(f"wrote {config.lora_file}; {found}")


if __name__ == "__main__":
    leave(main())
