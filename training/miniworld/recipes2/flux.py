"""The small Flux's recipes: from words, then with references, DreamO's way and the way of Flux's own later models.

Sources: DreamO (arXiv:2504.16915), equations 2 to 5, for `dreamo`: references down the diagonal, embedding tables,
placeholders, the routing and the placeholder loss. `index` has none of these: each reference has its own number on the
first position axis (ComfyUI's reference method "index"), prompts are plain, the loss is the velocity's alone. Both
begin from the same base and see the same scenes.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from core.checkpoint import save
from core.routing.files import TABLES

from ...common.atomic_io import write_text
from ...engine.timed_loop import State, TrainerConfig, fit, load_ema_weights
from ...host_diffusers.miniworld.flux import TEXT_TOKENS, RoutedFlux
from ...host_diffusers.miniworld.flux_text import PlaceholderWords, with_placeholders
from ...host_diffusers.miniworld2 import IndexedFlux, flux_config
from ..recipes import flux as first
from ..recipes.flux_data import SUBJECTS, FluxBatch, FluxData, slots
from . import contrastive
from .corpus import Corpus
from .encoded_corpus import FOLDER, encoded

BASE = replace(first.BASE, name="flux_base", cooldown=0.0)
DREAMO = replace(first.SETTINGS, name="flux_dreamo", cooldown=0.3)
INDEX = replace(first.SETTINGS, name="flux_index", cooldown=0.3)
KINDS: dict[str, type[RoutedFlux]] = {DREAMO.name: RoutedFlux, INDEX.name: IndexedFlux}


def open_data(out: Path) -> FluxData:
    """Scenes of one and two creatures of an encoded corpus.

    Raises:
        FileNotFoundError: the latents are not encoded yet.
    """
    if not encoded(out, "latents"):
        raise FileNotFoundError(f"{out / FOLDER}: expected encoded latents, got none; encode them first")
    corpus = Corpus.open(out / "corpus")
    kept = np.flatnonzero((corpus.who >= 0).sum(1) <= SUBJECTS)
    facts = [corpus.scene_facts[row] for row in kept]
    words = PlaceholderWords(contrastive.words())
    plain = [fact["prompt"] for fact in facts]
    ordered, turned = (
        [with_placeholders(fact["prompt"], fact["names"], slots(len(fact["who"]), turn)) for fact in facts]
        for turn in (False, True)
    )
    cover = reduce(corpus.cover[kept, :SUBJECTS].astype(np.float32), "n s (h p) (w q) -> n s h w", "mean", p=2, q=2)
    return FluxData(
        np.load(out / FOLDER / "scenes.npy")[kept],
        np.load(out / FOLDER / "portraits.npy"),
        np.round(cover).astype(np.uint8),
        corpus.who[kept, :SUBJECTS],
        words.ids(plain),
        words.ids(ordered),
        words.ids(turned),
        corpus.size.portraits,
        words,
    )


def train_base(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = BASE, until: int | None = None
) -> State:
    """Train what both variants begin from into `<out>/flux_base`: pictures from words, no references."""
    return _fit(out, device, minutes, settings, until, RoutedFlux, FluxData.draw_plain)


def train_dreamo(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = DREAMO, until: int | None = None
) -> State:
    """Train the base on references the way of DreamO, with its routing losses, into `<out>/flux_dreamo`."""
    return _fit(out, device, minutes, settings, until, RoutedFlux, FluxData.draw, begin=True, routing=True)


def train_index(
    out: Path, device: torch.device, minutes: float, settings: TrainerConfig = INDEX, until: int | None = None
) -> State:
    """Train the base on references numbered on the first position axis into `<out>/flux_index`."""
    return _fit(out, device, minutes, settings, until, IndexedFlux, _draw_without_placeholders, begin=True)


def _draw_without_placeholders(data: FluxData, batch: int, generator: torch.Generator) -> FluxBatch:
    """A step's scenes with plain prompts: `index` knows a reference by its order alone."""
    drawn = data.draw(batch, generator)
    ids = drawn.ids.clone()
    # a placeholder is a token of its own: take it out and close the gap
    rows = []
    for row in ids:
        kept = row[row < data.words.first]
        rows.append(torch.cat((kept, torch.zeros(len(row) - len(kept), dtype=row.dtype))))
    return replace(drawn, ids=torch.stack(rows), worded=torch.zeros_like(drawn.worded))


def _fit(
    out: Path,
    device: torch.device,
    minutes: float,
    settings: TrainerConfig,
    until: int | None,
    kind: type[RoutedFlux],
    draw: Callable[[FluxData, int, torch.Generator], FluxBatch],
    begin: bool = False,
    routing: bool = False,
) -> State:
    data = open_data(out)
    torch.manual_seed(settings.seed)
    model = kind(flux_config(data.latents.shape[1]))
    if begin:
        model.load_state_dict(load_ema_weights(out / BASE.name)[0])
    model.to(device)
    text_g = contrastive.load_trained(out / "clip")[0].text_g.to(device)

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = draw(data, settings.batch_size, generator).to(device)
        time = torch.randn(settings.batch_size, generator=generator).sigmoid().to(device)
        noise = torch.randn(batch.latents.shape, generator=generator).to(device)
        if routing:
            return first.losses(model, text_g, batch, time, noise, True)
        return _velocity_loss(model, text_g, batch, time, noise)

    return fit(settings, model, loss, out / settings.name, device, minutes, until)


def _velocity_loss(
    model: RoutedFlux, text_g: torch.nn.Module, batch: FluxBatch, time: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Squared error of the velocity; nothing recorded in the attention, so it runs fused."""
    text, pooled = first.encode_ids(text_g, batch.ids, model.tables["words"])
    share = time.view(-1, 1, 1, 1)
    noisy = (1 - share) * batch.latents + share * noise
    predicted = model(noisy, time, text, pooled, batch.references)
    return {"loss": (predicted.float() - (noise - batch.latents)).square().mean()}


def load_trained(out: Path, name: str = DREAMO.name) -> RoutedFlux:
    """The averaged model of a variant, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: not trained yet.
    """
    weights, _ = load_ema_weights(out / name)
    model = KINDS[name](flux_config(weights["transformer.x_embedder.weight"].shape[1] // 4))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def export(out: Path, name: str, folder: Path) -> int:
    """Write a variant in half precision: a diffusers transformer and, for DreamO's, its tables; return the bytes."""
    model = load_trained(out, name)
    config = {"_class_name": "FluxTransformer2DModel", "patch_size": 1, **dict(model.transformer.config)}
    kept = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    write_text(folder / "transformer" / "config.json", json.dumps(kept, indent=1) + "\n")
    weights = {key: value.half() for key, value in model.transformer.state_dict().items()}
    target = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save(target, weights, {"format": "pt"})
    written = target.stat().st_size
    if name == DREAMO.name:
        rows = model.rows()
        tables = dict(zip(TABLES, (table.half() for table in (rows.task, rows.index, rows.words))))
        save(folder / "embedding.safetensors", tables, {"base": "miniworld", "text_tokens": str(TEXT_TOKENS)})
        written += (folder / "embedding.safetensors").stat().st_size
    return written
