"""Training data of the diffusion models: latents, texts and references, encoded once by frozen models.

`latents` needs the autoencoder alone, `texts` CLIP, `references` CLIP and the local encoder; each is a stage of its
own, so that each runs as soon as its models are trained. Latents are stored at unit variance, the measured scale and
shift beside them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...common.atomic_io import write_text
from ...engine.timed_loop import load_ema_weights
from ...host_diffusers.miniworld.architectures import TEXT_G, TEXT_L, TEXT_LENGTH, VISION
from ...host_diffusers.miniworld.bundle import encode_phrases, encode_prompts, encode_subjects
from ..world.traits import SPECIES
from . import autoencoder, contrastive, local_encoder
from .corpus import PIXELS, Corpus
from .pictures import to_tensor

LOCAL_GRID = 4  # 16 local tokens, best in DreamRelation's table 7
FOLDER = "encoded"
_BATCH = 64


@dataclass(frozen=True)
class Extent:
    """Part of a corpus that is encoded, where time is short.

    Attributes:
        identities: only the first of them, and scenes of these alone; None: all.
        views: portraits of each identity; None: all.
    """

    identities: int | None = None
    views: int | None = None

    @classmethod
    def of(cls, out: Path) -> "Extent":
        """Read the extent that was encoded in `<out>/encoded`."""
        file = out / FOLDER / "extent.json"
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else cls()

    def portraits(self, corpus: Corpus) -> np.ndarray:
        """List the rows of the portraits, identity by identity."""
        who = np.arange(min(self.identities or corpus.size.identities, corpus.size.identities))
        views = np.arange(min(self.views or corpus.size.portraits, corpus.size.portraits))
        return (who[:, None] * corpus.size.portraits + views).ravel()

    def scenes(self, corpus: Corpus) -> np.ndarray:
        """List the rows of the scenes."""
        return np.flatnonzero(corpus.who.max(1) < (self.identities or corpus.size.identities))


@torch.no_grad()
def encode_texts(out: Path, device: torch.device, extent: Extent) -> Iterator[str]:
    """Encode every scene's prompt, then the empty one, to contexts and summaries; also the species' phrases."""
    folder = _folder(out)
    corpus = Corpus.open(out / "corpus")
    model, words = contrastive.load_trained(out / "clip")
    model.to(device)
    prompts = [corpus.scene_facts[row]["prompt"] for row in extent.scenes(corpus)] + [""]
    # two scenes in three share their prompt with another: each is encoded and stored once
    unique = sorted(set(prompts))
    row_of = {prompt: row for row, prompt in enumerate(unique)}
    width = TEXT_L["hidden_size"] + TEXT_G["hidden_size"]
    text = np.zeros((len(unique), TEXT_LENGTH, width), np.float16)
    pooled = np.zeros((len(unique), TEXT_G["projection_dim"]), np.float16)
    for start in range(0, len(unique), 128):
        encodings = encode_prompts(model.text_l, model.text_g, words, unique[start : start + 128])
        text[start : start + 128], pooled[start : start + 128] = (part.half().cpu().numpy() for part in encodings)
    np.save(folder / "text.npy", text)
    np.save(folder / "pooled.npy", pooled)
    np.save(folder / "prompt_rows.npy", np.array([row_of[prompt] for prompt in prompts]))
    np.save(folder / "phrases.npy", encode_phrases(model.text_l, words, list(SPECIES)).cpu().numpy())
    yield from _done(folder, "texts", f"{len(unique)} different prompts")


@torch.no_grad()
def encode_references(out: Path, device: torch.device, extent: Extent) -> Iterator[str]:
    """Encode every portrait to image tokens and local tokens."""
    folder = _folder(out)
    corpus = Corpus.open(out / "corpus")
    vision, encoder = contrastive.load_trained(out / "clip")[0].vision.to(device), local_encoder.load_trained(out)
    encoder.module.to(device)
    portraits = extent.portraits(corpus)
    tokens = (VISION["image_size"] // VISION["patch_size"]) ** 2 + 1 + LOCAL_GRID**2
    shape = (len(portraits), tokens, VISION["hidden_size"])
    references = np.lib.format.open_memmap(folder / "references.npy", "w+", np.float16, shape)
    for start in range(0, len(references), _BATCH):
        pictures = to_tensor(corpus.portraits[portraits[start : start + _BATCH]])
        features = encode_subjects(vision, encoder, pictures, None, LOCAL_GRID)
        references[start : start + _BATCH] = features.half().cpu().numpy()
    references.flush()
    yield from _done(folder, "references", f"{len(references)} portraits")


@torch.no_grad()
def encode_latents(out: Path, device: torch.device, extent: Extent) -> Iterator[str]:
    """Encode every scene and portrait to latents at unit variance; store the scale and shift."""
    folder = _folder(out)
    corpus = Corpus.open(out / "corpus")
    model = autoencoder.load_trained(out / autoencoder.SETTINGS.name).to(device)
    jobs = {"scenes": (corpus.scenes, extent.scenes(corpus)), "portraits": (corpus.portraits, extent.portraits(corpus))}
    for name, (pictures, rows) in jobs.items():
        latents = []
        for start in range(0, len(rows), _BATCH):
            batch = to_tensor(pictures[rows[start : start + _BATCH]], device)
            small = nn.functional.interpolate(batch, size=(PIXELS, PIXELS), mode="area")
            latents.append(autoencoder.encode(model, small).cpu().numpy())
        whole = np.concatenate(latents)
        if name == "scenes":
            scale = {"shift": float(whole.mean()), "scale": float(1 / whole.std())}
            write_text(folder / "latent_scale.json", json.dumps(scale))
        np.save(folder / f"{name}.npy", ((whole - scale["shift"]) * scale["scale"]).astype(np.float16))
    yield from _done(folder, "latents", f"{len(jobs['scenes'][1])} scenes, {len(jobs['portraits'][1])} portraits")


ENCODERS = {"texts": encode_texts, "references": encode_references, "latents": encode_latents}
PARTS = tuple(ENCODERS)
CPU, WHOLE = torch.device("cpu"), Extent()


def encode(
    out: Path, parts: tuple[str, ...] = PARTS, device: torch.device = CPU, extent: Extent = WHOLE
) -> Iterator[str]:
    """Encode `<out>/corpus` into `<out>/encoded`; yields lines of progress.

    Args:
        out: holds corpus, clip and distill (for texts and references) and autoencoder (for latents).
        parts: of PARTS.
        device: where to compute.
        extent: how much; the same for all parts.
    """
    write_text(_folder(out) / "extent.json", json.dumps(vars(extent)))
    for part in parts:
        yield from ENCODERS[part](out, device, extent)


def encoded(out: Path, part: str) -> bool:
    """Whether a part of ENCODERS is complete."""
    return (out / FOLDER / f"{part}.json").exists()


def _folder(out: Path) -> Path:
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _done(folder: Path, part: str, words: str) -> Iterator[str]:
    write_text(folder / f"{part}.json", json.dumps(words))
    yield f"{part}: {words}"


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """The encoded corpus.

    Attributes:
        latents: (N, C, 16, 16) float16 of unit variance; portraits: (P, C, 16, 16) alike.
        text, pooled: (U, 77, 192) and (U, 128) float16 of the different prompts.
        prompt_rows: (N + 1,) row of each scene's prompt; the last is the empty prompt's.
        phrases: (8, 64) of the species, in the order of SPECIES.
        references: (P, 81, 128) float16; identity i has rows i * views to (i + 1) * views.
        views: references of each identity.
        who: (N, 3) identities of each scene, -1 for none; boxes: (N, 3, 4).
        species: (identities,) index into SPECIES.
    """

    latents: np.ndarray
    text: np.ndarray
    pooled: np.ndarray
    prompt_rows: np.ndarray
    phrases: np.ndarray
    references: np.ndarray
    views: int
    who: np.ndarray
    boxes: np.ndarray
    species: np.ndarray

    @classmethod
    def open(cls, out: Path) -> "EncodedCorpus":
        """Open `<out>/encoded`.

        Raises:
            FileNotFoundError: names the parts that are not encoded yet.
        """
        missing = [part for part in ENCODERS if not encoded(out, part)]
        if missing:
            raise FileNotFoundError(
                f"{out / FOLDER}: expected an encoded corpus, {', '.join(missing)} missing; "
                "run python -m training.miniworld encode"
            )
        folder, corpus, extent = out / FOLDER, Corpus.open(out / "corpus"), Extent.of(out)
        scenes = extent.scenes(corpus)
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("text", "pooled", "prompt_rows", "phrases")}
        return cls(
            np.load(folder / "scenes.npy"),
            **arrays,
            references=np.load(folder / "references.npy", mmap_mode="r"),
            views=min(extent.views or corpus.size.portraits, corpus.size.portraits),
            who=corpus.who[scenes],
            boxes=corpus.boxes[scenes],
            species=np.array([SPECIES.index(traits.species) for traits in corpus.bank]),
        )


def latent_scale(out: Path) -> tuple[float, float]:
    """Read (shift, scale): a latent of unit variance is (latent - shift) * scale."""
    facts = json.loads((out / FOLDER / "latent_scale.json").read_text(encoding="utf-8"))
    return facts["shift"], facts["scale"]


def frozen_autoencoder(out: Path, refined: bool = True) -> nn.Module:
    """Load the autoencoder of the latents, its decoder refined if `refined` and if that stage ran."""
    model = autoencoder.load_trained(out / autoencoder.SETTINGS.name)
    if refined and (out / "decoder" / "latest.json").exists():
        model.load_state_dict(load_ema_weights(out / "decoder")[0])
    return model
