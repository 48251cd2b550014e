"""Learn a held-out relation as a text embedding alone, as textual inversion does; every other weight is frozen.

The rows of the relation's words in both text encoders are trained on the targets that a relation LoRA learns from, with
blank references: the image branch is off. What it can do is a bound for what the words of a relation can carry.
Source: DreamRelation (arXiv:2410.23280), figure 4; textual inversion (arXiv:2208.01618).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.checkpoint import save

from ...diffusion.noise_schedule import TIMESTEPS, denoising_loss
from ...host_diffusers.miniworld.bundle import Miniworld, encode_prompts
from ..recipes.denoiser import SCHEDULE, time_ids
from ..world.captions import plain_prompt
from ..world.triplets import write_triplets
from .measure import renders

STEPS, BATCH_SIZE, LEARNING_RATE, CLIP_NORM = 500, 8, 3e-3, 1.0
ENCODERS = {"text_encoder": "text_l", "text_encoder_2": "text_g"}  # of the miniworld's folder, of `Miniworld`


def train_text_embedding(
    world: Miniworld, relation: str, triplets: int, folder: Path, seed: int, steps: int = STEPS
) -> Path:
    """Learn the relation's words from its triplets' targets, or take the file that an earlier call made.

    Args:
        world: the base; its weights stay as they are.
        relation: held out of the base's training.
        triplets: their number.
        folder: receives `triplets/` and `embedding.safetensors`.
        seed: of the triplets, the noise and the order.
        steps: of BATCH_SIZE pictures.

    Returns:
        The file: (N, 64) and (N, 128) rows of N tokens by ENCODERS, and their ids.
    """
    file = folder / "embedding.safetensors"
    if file.exists():
        return file
    plans = write_triplets(folder / "triplets", relation, triplets, seed)
    latents = world.to_latents(renders(plans))
    prompts = [
        plain_prompt(relation, tuple(traits.species for traits in plan.cast), plan.backdrop.place) for plan in plans
    ]
    ids = _word_ids(world, relation)
    tables = _tables(world)
    parameters = [nn.Parameter(table.weight[ids].detach().clone()) for table in tables.values()]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(prompts), (BATCH_SIZE,), generator=generator)
        time = torch.randint(TIMESTEPS, (BATCH_SIZE,), generator=generator)
        noise = torch.randn((BATCH_SIZE, *latents.shape[1:]), generator=generator)
        with _rows_in_place(tables, ids, parameters):
            text, pooled = encode_prompts(world.text_l, world.text_g, world.words, [prompts[row] for row in rows])
        predicted = world.unet(
            SCHEDULE.add_noise(latents[rows], noise, time),
            time,
            text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids(BATCH_SIZE, latents.device)},
        ).sample
        loss = denoising_loss(predicted, noise).mean()
        optimiser.zero_grad()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimiser.step()
    learnt = {name: parameter.detach() for name, parameter in zip(tables, parameters, strict=True)}
    save(file, {**learnt, "ids": ids}, {"kind": "text embedding of the miniworld", "relation": relation})
    return file


@contextmanager
def with_text_embedding(world: Miniworld, file: Path) -> Iterator[None]:
    """Put a learnt embedding in the place of its words while the block runs."""
    stored = load_file(file)
    tables = _tables(world)
    with _rows_in_place(tables, stored["ids"], [stored[name] for name in tables]):
        yield


@contextmanager
def _rows_in_place(tables: dict[str, nn.Module], ids: Tensor, rows: list[Tensor]) -> Iterator[None]:
    """Let embedding tables answer with these rows for these ids; gradients flow into the rows."""

    def answering(own: Tensor):
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for number, row in zip(ids.tolist(), own, strict=True):
                output = torch.where((inputs[0] == number)[..., None], row, output)
            return output

        return hook

    hooks = [table.register_forward_hook(answering(own)) for table, own in zip(tables.values(), rows, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tables(world: Miniworld) -> dict[str, nn.Module]:
    return {name: getattr(world, part).get_input_embeddings() for name, part in ENCODERS.items()}


def _word_ids(world: Miniworld, relation: str) -> Tensor:
    """Return the ids of a relation's words, each once."""
    return torch.tensor(world.words.tokenizer(relation, add_special_tokens=False)["input_ids"]).unique()
