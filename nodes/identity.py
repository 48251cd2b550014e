"""Load Identity Model, Encode Identity, Apply Identity, Preview Local Features: the subjects' identity."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from . import widgets
from .pipelines.encode_identity import EncodedIdentity
from .sockets import RelateIdentity, RelateIdentityModel, RelateScene, schema

log = logging.getLogger(__name__)

GROUND_NAME_AND_BOX, GROUND_LEARNED = "name and box", "learned"


class RelateIdentityModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from .host_comfy import folders

        folders.register()
        return schema(
            node_id="RelateIdentityModelLoader",
            display_name="Load Identity Model",
            category="relate/identity",
            description="Loads the model that turns photographs into identities: MS-Diffusion's ms_adapter (.bin or "
            ".safetensors) from models/relate.",
            search_aliases=["ms-diffusion", "ms_adapter", "relationbooth", "dreamrelation"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folders.choices(folders.identity_files()),
                    tooltip="A file in models/relate. It must belong to the checkpoint you sample with; "
                    "MS-Diffusion's ms_adapter.bin belongs to SDXL.",
                )
            ],
            outputs=[RelateIdentityModel.Output(display_name="identity_model", tooltip="Connect to Encode Identity.")],
        )

    @classmethod
    def execute(cls, model_name) -> io.NodeOutput:
        from .host_comfy import folders
        from .host_comfy.sdxl import models

        if model_name == folders.NO_FILE:
            raise ValueError(
                "model_name: models/relate has no file. Put MS-Diffusion's ms_adapter.bin there, from "
                "https://huggingface.co/doge1516/MS-Diffusion (Apache-2.0); then press R to read the "
                "folders again."
            )
        return io.NodeOutput(models.load_identity_model(folders.identity_path(model_name)))


class RelateEncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateEncodeIdentity",
            display_name="Encode Identity",
            category="relate/identity",
            description="Reads each subject's photographs into identity tokens. Runs once; other seeds, prompts, "
            "steps and weights reuse it, and a photograph is not encoded again when only its box or name "
            "changes.",
            search_aliases=["id extractor", "encode subjects", "clip vision encode"],
            inputs=[
                RelateScene.Input("scene", tooltip="The subjects, from Subject or Layout."),
                RelateIdentityModel.Input("identity_model", tooltip="From Load Identity Model."),
                io.Clip.Input("clip", tooltip="The CLIP of the checkpoint; its CLIP-L reads the subjects' names."),
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="The encoder the identity model was trained with: CLIP ViT-bigG/14 for MS-Diffusion.",
                ),
                io.ClipVision.Input(
                    "local_clip_vision",
                    optional=True,
                    tooltip="The same encoder distilled with CLIPSelf, for local tokens that keep fine "
                    "detail. Optional: without it only image-level tokens are used.",
                ),
                io.Int.Input(
                    "local_grid",
                    default=4,
                    min=1,
                    max=16,
                    tooltip="Local tokens a side: 4 makes 16 a photograph, as published. Needs local_clip_vision.",
                ),
                io.Combo.Input(
                    "ground_with",
                    options=[GROUND_NAME_AND_BOX, GROUND_LEARNED],
                    default=GROUND_NAME_AND_BOX,
                    tooltip="What asks the photograph: the subject's name and box, or the learned queries "
                    "(MS-Diffusion's way for scenes without boxes).",
                ),
            ],
            outputs=[RelateIdentity.Output(display_name="identity", tooltip="Connect to Apply Identity.")],
        )

    @classmethod
    def execute(
        cls, scene, identity_model, clip, clip_vision, local_grid, ground_with, local_clip_vision=None
    ) -> io.NodeOutput:
        from .pipelines.encode_identity import encode
        from .scene import scene_notices

        scene.check_subjects()
        for notice in scene_notices(scene):
            log.warning("Relate: %s", notice)
        return io.NodeOutput(
            encode(
                scene,
                identity_model,
                clip,
                clip_vision,
                local_clip_vision,
                local_grid,
                grounded=ground_with == GROUND_NAME_AND_BOX,
            )
        )


class RelateApplyIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateApplyIdentity",
            display_name="Apply Identity",
            category="relate/identity",
            description="Lets the subjects into the picture: beside every text cross-attention the model also attends "
            "to each subject's identity tokens, inside that subject's box. Works with any sampler, LoRA, "
            "ControlNet and IP-Adapter.",
            search_aliases=["ip adapter", "apply subjects", "two subjects", "ms-diffusion"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL model. It is not changed; a clone is."),
                RelateIdentity.Input("identity", tooltip="From Encode Identity."),
                io.Float.Input(
                    "weight",
                    default=0.6,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Strength of all identities. 0.6 is as published; 0.4 when a subject is a scene "
                    "or background; 0 is the untouched model.",
                ),
                *widgets.window("the identities begin to act.", "they stop. Not after start_at means never."),
                io.Combo.Input(
                    "layout",
                    options=["boxes", "attention", "none"],
                    default="boxes",
                    tooltip="boxes: each subject acts inside its box. attention: boxes for the first four "
                    "steps, then wherever the prompt's attention puts its name. none: every subject "
                    "may act everywhere.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the subjects.")],
        )

    @classmethod
    def execute(cls, model, identity: EncodedIdentity, weight, start_at, end_at, layout) -> io.NodeOutput:
        from .host_comfy.sdxl import attach, models

        models.check_fits(
            identity.projected.widths, identity.context_width, models.unet_layout(model), models.base_of(model)
        )
        if start_at >= end_at:
            log.warning(
                "Relate: Apply Identity has an empty window (start_at %g, end_at %g); the identities do not act.",
                start_at,
                end_at,
            )
        return io.NodeOutput(
            attach.attach_identity(
                model, identity.projected, identity.names, identity.tokens, weight, (start_at, end_at), layout
            )
        )


class RelateFeaturePreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateFeaturePreview",
            display_name="Preview Local Features",
            category="relate/identity",
            description="Shows what the local encoder sees: each photograph beside its dense features, their three "
            "main directions as colours. Parts that look alike to the encoder have one colour.",
            search_aliases=["pca", "dense features", "clipself"],
            inputs=[
                RelateScene.Input("scene", tooltip="The subjects."),
                io.ClipVision.Input(
                    "local_clip_vision",
                    tooltip="The encoder to look through: a CLIP vision model, best one distilled with CLIPSelf.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="One picture a photograph: left as encoded, right its features."
                )
            ],
        )

    @classmethod
    def execute(cls, scene, local_clip_vision) -> io.NodeOutput:
        from .pipelines.encode_identity import preview_features

        scene.check_subjects()
        return io.NodeOutput(preview_features(scene, local_clip_vision))
