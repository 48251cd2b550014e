"""A scene of two subjects, and each engine's wiring by ComfyUI's own nodes, as a user would connect them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from tests.host.studio import LEFT, RIGHT, Pack

PROMPT = "A cat is hugging a plushie bear."
NAMES = ("cat", "plushie bear")
FAMILIES = ("kontext", "longcat", "flux2", "qwen_edit", "qwen_edit_2511", "krea2", "mage", "joyimage", "boogu",
            "omnigen2", "z_image_omni")  # fmt: skip


def photograph(width: int, height: int, seed: int = 0) -> Tensor:
    """(1, H, W, 3): smooth colours, different for each seed, so that order and scaling show."""
    small = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1).movedim(1, -1)


@dataclass(frozen=True)
class SceneStudio:
    """The pack's nodes and ComfyUI's, with the tiny native models of `test_pack/native.py`."""

    pack: Pack
    comfy: ModuleType  # ComfyUI's `nodes`
    native: ModuleType
    made: dict

    def parts(self, name: str) -> SimpleNamespace:
        """MODEL, CLIP and VAE of a family, made once."""
        if name not in self.made:
            with torch.inference_mode():
                self.made[name] = SimpleNamespace(
                    model=self.native.model(name), clip=self.native.clip(name), vae=self.native.vae(name)
                )
        return self.made[name]

    def scene(self, *images: Tensor, names=NAMES, boxes=(LEFT, RIGHT), weights=(1.0, 1.0, 1.0), **subject):
        scene = None
        for image, name, box, weight in zip(images, names, boxes, weights, strict=False):
            edges = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
            scene = self.pack.run(
                "RelateSubject",
                image=image,
                name=name,
                weight=weight,
                **edges,
                **subject,
                **({} if scene is None else {"scene": scene}),
            )
        return scene

    def apply(self, name: str, scene, **inputs) -> SimpleNamespace:
        """Outputs of Apply Scene on a family, as written and not steered unless told otherwise."""
        settings = {"prompt": PROMPT, "wording": "as written", "strength": 0.0, **vars(self.parts(name)), **inputs}
        outputs = self.pack.run("RelateApplyScene", scene=scene, **settings)
        return SimpleNamespace(
            **dict(zip(("model", "positive", "negative", "latent", "prompt", "references"), outputs))
        )

    def core(self, path: str, *args, **inputs) -> tuple:
        """Outputs of one of ComfyUI's own nodes."""
        module, name = path.split(".")
        with torch.inference_mode():
            return getattr(importlib.import_module(f"comfy_extras.{module}"), name).execute(*args, **inputs).args

    def text(self, clip, prompt: str) -> list:
        with torch.inference_mode():
            return self.comfy.CLIPTextEncode().encode(clip, prompt)[0]

    def chain(self, conditioning: list, vae, pictures: list[Tensor]) -> list:
        """VAE Encode and Reference Latent for each picture."""
        for picture in pictures:
            with torch.inference_mode():
                (latent,) = self.comfy.VAEEncode().encode(vae, picture)
            (conditioning,) = self.core("nodes_edit_model.ReferenceLatent", conditioning, latent)
        return conditioning


def wired_by_hand(studio: SceneStudio, name: str, pictures: list[Tensor], prompt: str, negative: str) -> tuple:
    """Positive and negative as a user of that family connects ComfyUI's nodes.

    Args:
        pictures: the photographs, or for families that users scale by hand the scaled ones.
    """
    parts, core, text = studio.parts(name), studio.core, studio.text
    clip, vae = parts.clip, parts.vae
    if name == "flux2":
        return tuple(studio.chain(text(clip, words), vae, pictures) for words in (prompt, negative))
    if name == "kontext":
        (positive,) = core("nodes_flux.FluxGuidance", studio.chain(text(clip, prompt), vae, pictures), 2.5)
        (zero,) = studio.comfy.ConditioningZeroOut().zero_out(text(clip, prompt))
        return positive, studio.chain(zero, vae, pictures)
    if name in ("qwen_edit", "qwen_edit_2511"):
        sides = [
            core("nodes_qwen.TextEncodeQwenImageEditPlus", clip, words, vae, *pictures)[0]
            for words in (prompt, negative)
        ]
        if name == "qwen_edit_2511":
            sides = [
                core("nodes_flux.FluxKontextMultiReferenceLatentMethod", side, "index_timestep_zero")[0]
                for side in sides
            ]
        return tuple(sides)
    if name == "longcat":
        sides = [
            core("nodes_qwen.TextEncodeQwenImageEdit", clip, words, vae, *pictures)[0] for words in (prompt, negative)
        ]
        return tuple(
            core(
                "nodes_flux.FluxKontextMultiReferenceLatentMethod",
                core("nodes_flux.FluxGuidance", side, 4.5)[0],
                "index",
            )[0]
            for side in sides
        )
    if name == "krea2":
        return tuple(
            core(
                "nodes_flux.FluxKontextMultiReferenceLatentMethod",
                studio.chain(text(clip, words), vae, pictures),
                "index",
            )[0]
            for words in (prompt, negative)
        )
    if name == "omnigen2":
        return tuple(studio.chain(text(clip, words), vae, pictures) for words in (prompt, negative))
    numbered = {f"image_{number}": picture for number, picture in enumerate(pictures, start=1)}
    if name == "mage":
        return core("nodes_mage.TextEncodeMageFlowEdit", clip, prompt, negative, vae, numbered, 1024, 1024)[:2]
    if name == "boogu":
        return core("nodes_boogu.TextEncodeBooguEdit", clip, prompt, negative, vae, numbered)
    if name == "joyimage":
        from_zero = {f"image{number}": picture for number, picture in enumerate(pictures)}
        return tuple(
            core("nodes_joyimage.TextEncodeJoyImageEdit", clip, words, vae, from_zero)[0]
            for words in (prompt, negative)
        )
    if name == "z_image_omni":
        images = {f"image{number}": picture for number, picture in enumerate(pictures, start=1)}
        return tuple(
            core(
                "nodes_zimage.TextEncodeZImageOmni",
                clip=clip,
                image_encoder=None,
                prompt=words,
                auto_resize_images=False,
                vae=vae,
                **images,
            )[0]
            for words in (prompt, negative)
        )
    raise KeyError(name)


def same(ours, theirs) -> bool:
    """Byte for byte: lists, dicts, tensors and plain values."""
    if isinstance(theirs, torch.Tensor):
        return isinstance(ours, torch.Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs
