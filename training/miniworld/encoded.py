"""What the UNet trains on: latents, texts and references of the corpus, encoded once by the frozen models."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training.host_diffusers.miniworld import TEXT_G, TEXT_L, TEXT_LENGTH, VAE, VISION, build_vae
from training.host_diffusers.miniworld_parts import encode_phrases, encode_prompts, encode_subjects

from . import clip, local, vae
from .corpus import Corpus
from .identity import SPECIES
from .loop import averaged

LOCAL_GRID = 4  # 16 local tokens, best in DreamRelation's table 7
SUBJECTS = 3


def encode(out: Path, device: torch.device, parts: tuple[str, ...], views: int | None = None) -> Iterator[str]:
    """Encodes `<out>/corpus` into `<out>/encoded`; yields lines of progress.

    Args:
        out: holds corpus, clip and distill (for texts and references) and vae (for latents, which freeze it).
        device: where to compute.
        views: reference views of an identity that are encoded; all that were drawn by default.
        parts: of PARTS; latents come last, since the autoencoder may train while the rest is encoded.
    """
    corpus = Corpus.open(out / "corpus")
    (out / "encoded").mkdir(exist_ok=True)
    for part in parts:
        yield from _ENCODERS[part](out, corpus, device, views or corpus.size.portraits)


@torch.no_grad()
def _encode_texts(out: Path, corpus: Corpus, device: torch.device, views: int) -> Iterator[str]:
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
def _encode_references(out: Path, corpus: Corpus, device: torch.device, views: int) -> Iterator[str]:
    model, _ = clip.load_trained(out / "clip")
    vision, encoder = model.vision.to(device), local.load_trained(out / "distill", model.vision)
    encoder.module.to(device)
    rows = [who * corpus.size.portraits + view for who in range(corpus.size.identities) for view in range(views)]
    tokens = (VISION["image_size"] // VISION["patch_size"]) ** 2 + 1 + LOCAL_GRID**2
    shape = (len(rows), tokens, VISION["hidden_size"])
    references = np.lib.format.open_memmap(out / "encoded" / "references.npy", "w+", np.float16, shape)
    for start in range(0, len(rows), 64):
        pictures = torch.from_numpy(corpus.portraits[rows[start : start + 64]]).permute(0, 3, 1, 2).float() / 255
        references[start : start + 64] = (
            encode_subjects(vision, encoder, pictures, None, LOCAL_GRID).half().cpu().numpy()
        )
        if start % 640 == 0:
            yield f"references {start}/{len(rows)}"
    references.flush()


@torch.no_grad()
def _encode_latents(out: Path, corpus: Corpus, device: torch.device, views: int) -> Iterator[str]:
    folder = out / "encoded"
    autoencoder = vae.load_trained(out / "vae").to(device)
    yield f"latent spread before scaling {vae.absorb_scale(autoencoder, corpus):.3f}"
    save_file(
        {name: value.cpu().contiguous() for name, value in autoencoder.state_dict().items()}, folder / "vae.safetensors"
    )
    batches = np.array_split(np.arange(len(corpus.scenes)), max(1, len(corpus.scenes) // 64))
    latents = torch.cat(
        [
            autoencoder.encode(vae.fold(vae.pictures(corpus.scenes, rows, device))).latent_dist.mean.float().cpu()
            for rows in batches
        ]
    )
    np.save(folder / "latents.npy", (latents * VAE["scaling_factor"]).half().numpy())
    yield f"latents {len(corpus.scenes)}"


_ENCODERS = {"texts": _encode_texts, "references": _encode_references, "latents": _encode_latents}
PARTS = tuple(_ENCODERS)


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoded corpus.

    Attributes:
        latents: (N, 4, 16, 16) float16 of unit variance.
        text, pooled: (N + 1, 77, 192) and (N + 1, 128) float16; the last row is the empty prompt.
        phrases: (8, 64) of the species, in the order of SPECIES.
        references: (identities * views, 81, 128) float16.
        views: references an identity.
        who: (N, 3) identities of each scene, -1 for none.
        boxes: (N, 3, 4); zeros for none.
        species: (identities,) index into SPECIES.
    """

    latents: np.ndarray
    text: np.ndarray
    pooled: np.ndarray
    phrases: np.ndarray
    references: np.ndarray
    views: int
    who: np.ndarray
    boxes: np.ndarray
    species: np.ndarray

    @classmethod
    def open(cls, out: Path) -> "Encoded":
        """Opens `<out>/encoded`.

        Raises:
            FileNotFoundError: not encoded yet.
        """
        folder = out / "encoded"
        if not all(
            (folder / f"{name}.npy").exists() for name in ("latents", "text", "pooled", "phrases", "references")
        ):
            raise FileNotFoundError(
                f"{folder}: expected an encoded corpus, found none; run python -m training.miniworld encode"
            )
        corpus = Corpus.open(out / "corpus")
        who = np.full((len(corpus.scene_facts), SUBJECTS), -1)
        boxes = np.zeros((len(who), SUBJECTS, 4), np.float32)
        for row, facts in enumerate(corpus.scene_facts):
            who[row, : len(facts["who"])] = facts["who"]
            boxes[row, : len(facts["who"])] = facts["boxes"]
        bank = json.loads((out / "corpus" / "corpus.json").read_text(encoding="utf-8"))["bank"]
        species = np.array([SPECIES.index(code.split("-")[0]) for code in bank])
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if name in ("text", "references") else None)
            for name in ("latents", "text", "pooled", "phrases", "references")
        }
        return cls(**arrays, views=len(arrays["references"]) // len(bank), who=who, boxes=boxes, species=species)


def frozen_vae(out: Path, refined: bool = True) -> torch.nn.Module:
    """The autoencoder the latents were made with, its decoder refined if asked and if `refine` ran."""
    model = build_vae()
    model.load_state_dict(load_file(out / "encoded" / "vae.safetensors"))
    if refined and (out / "refine" / "latest.json").exists():
        model.load_state_dict(averaged(out / "refine")[0])
    return model.eval().requires_grad_(False)
