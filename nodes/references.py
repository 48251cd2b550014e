"""Load DreamO, Reference Image, Apply References: pictures as tokens of Flux's own sequence."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from .sockets import RelateReferences, advanced, schema

log = logging.getLogger(__name__)

BY_NAME, NONE = "by its published name", "none"
TASKS = ("subject", "identity", "style", "try-on")  # as core.routing.condition, which loads torch
MEANINGS = {
    "dreamo": "DreamO itself", "cfg_distill": "the LoRA that lets cfg stay at 1", "quality_pos": "v1's quality LoRA",
    "quality_neg": "v1's negative quality LoRA", "sft": "v1.1's fine-tuning", "dpo": "v1.1's preference tuning",
}  # fmt: skip
STRENGTHS = {"dreamo": 1.0, "cfg_distill": 1.0, "quality_pos": 0.15, "quality_neg": -0.8, "sft": 1.0, "dpo": 1.25}


def adapter_inputs(files: list[str]) -> list:
    """A file and a strength for every LoRA of the presets."""
    inputs = []
    for name, meaning in MEANINGS.items():
        inputs.append(
            advanced(
                io.Combo.Input(
                    f"{name}_lora",
                    options=[BY_NAME, NONE, *files],
                    default=BY_NAME,
                    tooltip=f"File of {meaning}. '{BY_NAME}' finds it in models/loras, in any layout.",
                )
            )
        )
        inputs.append(
            advanced(
                io.Float.Input(
                    f"{name}_strength",
                    default=STRENGTHS[name],
                    min=-3.0,
                    max=3.0,
                    step=0.05,
                    tooltip=f"Strength of {meaning} with the preset 'custom'. {STRENGTHS[name]:g} is as published.",
                )
            )
        )
    return inputs


class RelateDreamOLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from .host_comfy import folders

        folders.register()
        files = folders.choices(folders.identity_files())
        return schema(
            node_id="RelateDreamOLoader",
            display_name="Load DreamO",
            category="relate/references",
            description="Teaches Flux to use reference images: adds DreamO's LoRAs and embeddings, and the "
            "placeholders [ref#1] to [ref#9] that name a reference in the prompt.",
            search_aliases=["dreamo", "flux reference", "uno", "uso", "ip adapter flux"],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1-dev, any precision. It is not changed; a clone is."),
                io.Clip.Input("clip", tooltip="Flux's text encoders, CLIP-L and T5-XXL. A clone learns placeholders."),
                io.Combo.Input(
                    "embeddings",
                    options=files,
                    default="embedding.safetensors" if "embedding.safetensors" in files else None,
                    tooltip="A file in models/relate with DreamO's tables: embedding.safetensors of ByteDance/DreamO.",
                ),
                io.Combo.Input(
                    "preset",
                    options=["v1.1", "v1", "custom"],
                    default="v1.1",
                    tooltip="Which LoRAs, with the published strengths. v1.1 looks better; v1 tells similar "
                    "subjects apart a little better. custom: files and strengths below.",
                ),
                *adapter_inputs(folders.lora_files()),
                advanced(
                    io.Combo.Input(
                        "turbo_lora",
                        options=[BY_NAME, NONE, *folders.lora_files()],
                        default=BY_NAME,
                        tooltip="File of FLUX.1-Turbo-Alpha, for the switch below.",
                    )
                ),
                io.Boolean.Input(
                    "turbo", default=False, tooltip="Add FLUX.1-Turbo-Alpha: 12 steps instead of about 28."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with DreamO. Connect to Apply References."),
                io.Clip.Output(display_name="clip", tooltip="The CLIP that knows [ref#1] to [ref#9]."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, embeddings, preset, turbo, turbo_lora=BY_NAME, **adapters) -> io.NodeOutput:
        from .host_comfy import folders
        from .host_comfy.flux import loader as flux_loader

        if embeddings == folders.NO_FILE:
            raise ValueError(
                "embeddings: models/relate has no file. Put embedding.safetensors there, and the LoRAs of "
                "the preset into models/loras, from https://huggingface.co/ByteDance/DreamO (Apache-2.0); "
                "then press R to read the folders again."
            )
        loras = chosen_loras(preset, turbo, {**adapters, "turbo_lora": turbo_lora}, folders.lora_files())
        paths = [(folders.lora_path(name), strength) for name, strength in loras]
        return io.NodeOutput(*flux_loader.attach_dreamo(model, clip, folders.identity_path(embeddings), paths))


def chosen_loras(preset: str, turbo: bool, widgets: dict, available: list[str]) -> list[tuple[str, float]]:
    """Names and strengths of the LoRAs of a preset.

    Raises:
        ValueError: files that are not there, all in one error.
    """
    from ..core.routing.files import ADAPTERS, PRESETS, TURBO, find_file

    wanted = [
        (adapter, widgets.get(f"{adapter.name}_strength", adapter.strength) if preset == "custom" else adapter.strength)
        for adapter in PRESETS.get(preset, ADAPTERS)
    ]
    wanted += [(TURBO, TURBO.strength)] if turbo else []
    found, missing = [], []
    for adapter, strength in wanted:
        name = widgets.get(f"{adapter.name}_lora", BY_NAME)
        if name == NONE or strength == 0:
            continue
        name = find_file(adapter, available) if name == BY_NAME else name
        if name is None:
            missing.append(f"{adapter.name} ({' or '.join(adapter.files)})")
        else:
            found.append((name, strength))
    if missing:
        raise ValueError(
            f"preset {preset}: {len(missing)} LoRA files are not in models/loras: {'; '.join(missing)}. "
            "Put them there, choose other files in the advanced inputs, or choose 'none' for those you "
            "do without."
        )
    return found


class RelateReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateReference",
            display_name="Reference Image",
            category="relate/references",
            description="Adds one reference image: a subject, a face, a style or clothes. Chain up to nine. The second "
            "output shows exactly what the model will see.",
            search_aliases=["dreamo ref", "condition image", "character", "virtual try-on", "style reference"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The picture. Each picture of a batch becomes a reference of its own. "
                    "An alpha channel serves as mask.",
                ),
                io.Vae.Input("vae", tooltip="The model's own VAE: Flux's."),
                io.Combo.Input(
                    "task",
                    options=list(TASKS),
                    default="subject",
                    tooltip="subject and try-on: what the mask keeps, on white. identity: a face, cut to a "
                    "square around the mask. style: the whole picture; begin the prompt with "
                    "'generate a same style image.'",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=1024,
                    step=16,
                    tooltip="Root of the picture's area in pixels, the shape is kept. 512 is as published; "
                    "more shows fine detail and text, is slower and less editable. 128 for the "
                    "miniworld.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the picture is to be kept: from Remove Background, a face parser, "
                    "SAM, or painted. Without it the background is kept.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White where this reference may act in the output; any size. Acts in "
                    "Routing-aware Flux Sampler, with its routing_strength.",
                ),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="Factor on the attention this reference gets. 1 is as published, 0 leaves it out.",
                ),
                RelateReferences.Input("references", optional=True, tooltip="The references before this one."),
                advanced(
                    io.Int.Input(
                        "slot",
                        default=0,
                        min=0,
                        max=9,
                        optional=True,
                        tooltip="Number of the reference, for [ref#1] to [ref#9] in the prompt. 0 is the "
                        "next free one.",
                    )
                ),
            ],
            outputs=[
                RelateReferences.Output(display_name="references", tooltip="All references so far."),
                io.Image.Output(
                    display_name="image", tooltip="What the model will see; a batch as large as the input's."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image, vae, task, resolution, weight, mask=None, region=None, references=(), slot=0
    ) -> io.NodeOutput:
        from .pipelines.add_reference import add_references

        return io.NodeOutput(*add_references(references, image, vae, task, resolution, mask, region, weight, slot))


class RelateApplyReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateApplyReferences",
            display_name="Apply References",
            category="relate/references",
            description="Puts the references beside the picture in Flux's own attention, for any sampler. Only the "
            "positive side gets them, so guidance works as published. Works with ControlNet, Redux, "
            "Kontext references and LoRAs.",
            search_aliases=["apply dreamo", "flux reference", "reference latent"],
            inputs=[
                io.Model.Input("model", tooltip="From Load DreamO. It is not changed; a clone is."),
                io.Conditioning.Input("positive", tooltip="The positive prompt, encoded with the CLIP of Load DreamO."),
                RelateReferences.Input("references", tooltip="From Reference Image."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Connect to the sampler, together with positive."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt with the references."),
            ],
        )

    @classmethod
    def execute(cls, model, positive, references) -> io.NodeOutput:
        from .host_comfy.flux import references as flux_references

        return io.NodeOutput(*flux_references.apply(model, positive, references))
