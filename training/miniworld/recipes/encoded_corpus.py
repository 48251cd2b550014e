"""What the UNet trains on: latents, texts and references of the corpus, encoded once by the frozen models."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ...engine.timed_loop import load_ema_weights
from ...host_diffusers.miniworld.architectures import TEXT_G, TEXT_L, TEXT_LENGTH, VAE, VISION, build_vae
from ...host_diffusers.miniworld.bundle import encode_phrases, encode_prompts, encode_subjects
from ..world.traits import SPECIES
from . import clip, vae
from . import clipself as local
from .corpus import Corpus
from .pictures import to_tensor

LOCAL_GRID = 4  # 16 local tokens, best in DreamRelation's table 7
SUBJECTS = 3


@dataclass(frozen=True)
class Extent:
    """How much of a corpus is encoded: its first `identities` with `views` portraits each, and their scenes."""

    identities: int
    views: int


def encode(
    out: Path, device: torch.device, parts: tuple[str, ...], identities: int | None = None, views: int | None = None
) -> Iterator[str]:
    """Encodes `<out>/corpus` into `<out>/encoded`; yields lines of progress.

    Args:
        out: holds corpus, clip and distill (for texts and references) and vae (for latents, which freeze it).
        device: where to compute.
        parts: of PARTS; latents come last, since the autoencoder may train while the rest is encoded.
        identities, views: less than was drawn, where time is short; see Extent.
    """
    corpus = Corpus.open(out / "corpus")
    extent = Extent(identities or corpus.size.identities, views or corpus.size.portraits)
    (out / "encoded").mkdir(exist_ok=True)
    for part in parts:
        yield from _ENCODERS[part](out, corpus, device, extent)
    (out / "encoded" / "extent.json").write_text(json.dumps(vars(extent)), encoding="utf-8")


@torch.no_grad()
def _encode_texts(out: Path, corpus: Corpus, device: torch.device, extent: Extent) -> Iterator[str]:
    folder = out / "encoded"
    model, words = clip.load_trained(out / "clip")
    model.to(device)
    prompts = [facts["prompt"] for facts in corpus.scene_facts] + [""]
    width = TEXT_L["hidden_size"] + TEXT_G["hidden_size"]
    text = np.lib.format.open_memmap(folder / "text.npy", "w+", np.float16, (len(prompts), TEXT_LENGTH, width))
    pooled = np.zeros((len(prompts), TEXT_G["projection_dim"]), np.float16)
    for start in range(0, len(prompts), 128):
        context, summary = encode_prompts(model.text_l, model.text_g, words, prompts[start : start + 128])
        text[start : start + 128], pooled[start : start + 128] = (
            context.half().cpu().numpy(),
            summary.half().cpu().numpy(),
        )
    np.save(folder / "pooled.npy", pooled)
    np.save(folder / "phrases.npy", encode_phrases(model.text_l, words, list(SPECIES)).cpu().numpy())
    yield f"texts {len(prompts)}"


@torch.no_grad()
def _encode_references(out: Path, corpus: Corpus, device: torch.device, extent: Extent) -> Iterator[str]:
    model, _ = clip.load_trained(out / "clip")
    vision, encoder = model.vision.to(device), local.load_trained(out / "distill", model.vision)
    encoder.module.to(device)
    rows = [who * corpus.size.portraits + view for who in range(extent.identities) for view in range(extent.views)]
    tokens = (VISION["image_size"] // VISION["patch_size"]) ** 2 + 1 + LOCAL_GRID**2
    shape = (len(rows), tokens, VISION["hidden_size"])
    references = np.lib.format.open_memmap(out / "encoded" / "references.npy", "w+", np.float16, shape)
    for start in range(0, len(rows), 64):
        pictures = to_tensor(corpus.portraits[rows[start : start + 64]])
        references[start : start + 64] = (
            encode_subjects(vision, encoder, pictures, None, LOCAL_GRID).half().cpu().numpy()
        )
        if start % 640 == 0:
            yield f"references {start}/{len(rows)}"
    references.flush()


@torch.no_grad()
def _encode_latents(out: Path, corpus: Corpus, device: torch.device, extent: Extent) -> Iterator[str]:
    folder = out / "encoded"
    autoencoder = vae.load_trained(out / "vae").to(device)
    yield f"latent spread before scaling {vae.absorb_scale(autoencoder, corpus):.3f}"
    save_file(
        {name: value.cpu().contiguous() for name, value in autoencoder.state_dict().items()}, folder / "vae.safetensors"
    )
    scenes = np.array([row for row, facts in enumerate(corpus.scene_facts) if max(facts["who"]) < extent.identities])
    latents = [
        autoencoder.encode(vae.fold(vae.pictures(corpus.scenes, rows, device))).latent_dist.mean.float().cpu()
        for rows in np.array_split(scenes, max(1, len(scenes) // 64))
    ]
    np.save(folder / "latents.npy", (torch.cat(latents) * VAE["scaling_factor"]).half().numpy())
    np.save(folder / "scenes.npy", scenes)
    yield f"latents of {len(scenes)} scenes"


_ENCODERS = {"texts": _encode_texts, "references": _encode_references, "latents": _encode_latents}
PARTS = tuple(_ENCODERS)


@dataclass(frozen=True, eq=False)
class EncodedCorpus:
    """The encoded corpus.

    Attributes:
        latents: (N, 4, 16, 16) float16 of unit variance.
        scenes: (N,) which scene of the corpus each is, the row of its text.
        text, pooled: (M + 1, 77, 192) and (M + 1, 128) float16 of all M scenes; the last row is the empty prompt.
        phrases: (8, 64) of the species, in the order of SPECIES.
        references: (identities * views, 81, 128) float16.
        views: references an identity.
        who: (N, 3) identities of each scene, -1 for none.
        boxes: (N, 3, 4); zeros for none.
        species: (identities,) index into SPECIES.
    """

    latents: np.ndarray
    scenes: np.ndarray
    text: np.ndarray
    pooled: np.ndarray
    phrases: np.ndarray
    references: np.ndarray
    views: int
    who: np.ndarray
    boxes: np.ndarray
    species: np.ndarray

    @classmethod
    def open(cls, out: Path) -> "EncodedCorpus":
        """Opens `<out>/encoded`.

        Raises:
            FileNotFoundError: not encoded yet.
        """
        folder = out / "encoded"
        names = ("latents", "scenes", "text", "pooled", "phrases", "references")
        if not all((folder / f"{name}.npy").exists() for name in names):
            raise FileNotFoundError(f"{folder}: expected an encoded corpus; run python -m training.miniworld encode")
        mapped = ("text", "references")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r" if name in mapped else None) for name in names}
        told = json.loads((out / "corpus" / "corpus.json").read_text(encoding="utf-8"))
        facts = Corpus.open(out / "corpus").scene_facts
        who = np.full((len(arrays["scenes"]), SUBJECTS), -1)
        boxes = np.zeros((len(who), SUBJECTS, 4), np.float32)
        for row, scene in enumerate(arrays["scenes"]):
            count = len(facts[scene]["who"])
            who[row, :count], boxes[row, :count] = facts[scene]["who"], facts[scene]["boxes"]
        species = np.array([SPECIES.index(code.split("-")[0]) for code in told["bank"]])
        views = json.loads((folder / "extent.json").read_text(encoding="utf-8"))["views"]
        return cls(**arrays, views=views, who=who, boxes=boxes, species=species)


def frozen_vae(out: Path, refined: bool = True) -> torch.nn.Module:
    """The autoencoder the latents were made with, its decoder refined if asked and if `refine` ran."""
    model = build_vae()
    model.load_state_dict(load_file(out / "encoded" / "vae.safetensors"))
    if refined and (out / "refine" / "latest.json").exists():
        model.load_state_dict(load_ema_weights(out / "refine")[0])
    return model.eval().requires_grad_(False)
