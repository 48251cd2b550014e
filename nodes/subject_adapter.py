"""Load Subject Adapter, Encode Fused Prompt, Apply Subject Adapter: Subject-Diffusion (arXiv:2307.11410)."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from . import widgets
from .sockets import RelateScene, RelateSubjectAdapter, schema

log = logging.getLogger(__name__)


class RelateSubjectAdapterLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from .host_comfy import folders

        folders.register()
        return schema(
            node_id="RelateSubjectAdapterLoader",
            display_name="Load Subject Adapter",
            category="relate/subject",
            description="Loads a Subject-Diffusion adapter from models/relate. The authors published no weights: "
            "the miniworld's comes with the pack, others must be trained first.",
            search_aliases=["subject-diffusion", "gligen", "two subjects", "identity adapter"],
            inputs=[
                io.Combo.Input(
                    "adapter_name",
                    options=folders.choices(folders.identity_files()),
                    tooltip="A file in models/relate, made for the base you sample with.",
                )
            ],
            outputs=[
                RelateSubjectAdapter.Output(
                    display_name="adapter", tooltip="Connect to Encode Fused Prompt and Apply Subject Adapter."
                )
            ],
        )

    @classmethod
    def execute(cls, adapter_name) -> io.NodeOutput:
        from .host_comfy import folders
        from .host_comfy.subject import loader

        if adapter_name == folders.NO_FILE:
            raise ValueError(
                "adapter_name: models/relate has no file. The authors of Subject-Diffusion published no "
                "weights; train an adapter and put it there."
            )
        return io.NodeOutput(loader.load(folders.identity_path(adapter_name)))


class RelateEncodeFusedPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateEncodeFusedPrompt",
            display_name="Encode Fused Prompt",
            category="relate/subject",
            description="Encodes a prompt into which each subject's photograph is fused as a word: 'a dog on the "
            "beach, the dog is sks', where sks is the subject's own vector.",
            search_aliases=["subject-diffusion", "text image fusion", "textual inversion", "clip text encode"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the base. It is not changed; a clone is."),
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="The image encoder that the adapter was trained with, CLIP ViT-H/14 as published.",
                ),
                RelateScene.Input("scene", tooltip="The subjects; each name should be in the prompt."),
                RelateSubjectAdapter.Input("adapter", tooltip="From Load Subject Adapter."),
                io.String.Input(
                    "prompt",
                    default="a dog and a cat on the beach",
                    multiline=True,
                    tooltip="The picture in words, with the subjects' names. The clauses that tie names "
                    "to subjects are added.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The positive conditioning, for any sampler."
                ),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="The text encoder as the adapter was trained with it, for the empty or negative text.",
                ),
            ],
        )

    @classmethod
    def execute(cls, clip, clip_vision, scene, adapter, prompt) -> io.NodeOutput:
        from ..core.prompt.name_tokens import mentions
        from .host_comfy.subject import encoders

        for subject in scene.subjects:
            if not mentions(prompt, subject.name):
                log.warning(
                    "Relate: subject '%s' is not in the prompt %r; name it there, or it may be drawn beside "
                    "what you describe.",
                    subject.name,
                    prompt[:200],
                )
        return io.NodeOutput(*encoders.encode_fused_prompt(clip, clip_vision, scene, adapter, prompt))


class RelateApplySubjectAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateApplySubjectAdapter",
            display_name="Apply Subject Adapter",
            category="relate/subject",
            description="Lets the subjects into the picture: gated adapters between self- and cross-attention read "
            "their patch features, and a mask beside the latent says where they stand.",
            search_aliases=["subject-diffusion", "gligen", "two subjects", "location control"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The base that the adapter was trained on. It is not changed; a clone is."
                ),
                RelateScene.Input("scene", tooltip="The subjects and their boxes."),
                io.ClipVision.Input("clip_vision", tooltip="The image encoder that the adapter was trained with."),
                RelateSubjectAdapter.Input("adapter", tooltip="From Load Subject Adapter."),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of the adapters, of the mask and of the trained weights. 1 is as "
                    "trained; 0 is the untouched model.",
                ),
                io.Boolean.Input(
                    "location",
                    default=True,
                    tooltip="Whether the boxes are given beside the latent, where the file has learnt it.",
                ),
                *widgets.window(
                    "the adapters begin to act.", "they stop. Trained weights of the base act all the time."
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler, or for DualCFGGuider with the fused prompt, an empty text "
                    "and an empty text, which is the paper's guidance.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, scene, clip_vision, adapter, weight, location, start_at, end_at) -> io.NodeOutput:
        import torch

        from .host_comfy.subject import attach, encoders

        objects = encoders.object_tokens(scene, clip_vision, adapter)
        boxes = torch.stack([subject.box.tensor() for subject in scene.subjects])
        return io.NodeOutput(attach.attach(model, adapter, objects, boxes, weight, (start_at, end_at), location))
