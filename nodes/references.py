"""Reference Image, Apply References: pictures as tokens of Flux's own sequence."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.routing.token_layout import TASKS
from .sockets import RelateReferences, advanced, schema


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
            inputs=cls._inputs(),
            outputs=[
                RelateReferences.Output(display_name="references", tooltip="All references so far."),
                io.Image.Output(
                    display_name="image", tooltip="What the model will see; a batch as large as the input's."
                ),
            ],
        )

    @staticmethod
    def _inputs() -> list[io.Input]:
        return [
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
            # which part of it, and where and how strongly it acts
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
            # the chain of references
            RelateReferences.Input("references", optional=True, tooltip="The references before this one."),
            advanced(
                io.Int.Input(
                    "slot",
                    default=0,
                    min=0,
                    max=9,
                    optional=True,
                    tooltip="Number of the reference, for [ref#1] to [ref#9] in the prompt. 0 is the next free one.",
                )
            ),
        ]

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
