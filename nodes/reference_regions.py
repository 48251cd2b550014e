"""Keep References in Place: native references bound to their regions, on any model that takes them."""

from __future__ import annotations

from comfy_api.latest import io

from . import widgets
from .sockets import RelateRoutingMap, RelateScene, schema


class RelateReferenceRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateReferenceRegions",
            display_name="Keep References in Place",
            category="relate/references",
            description="Keeps each reference image of the conditioning in its own part of the picture, in one pass, "
            "for any sampler: Flux.2, FLUX.1 Kontext, LongCat, Qwen-Image-Edit, Krea 2, Mage-Flow, "
            "JoyImage, OmniGen2, Boogu, Z-Image Omni, Bernini, and DreamO after Apply References. Records "
            "where each acts.",
            search_aliases=[
                "regional reference",
                "reference latent mask",
                "two characters",
                "multiple characters",
                "two people",
                "attention mask",
                "regional prompt",
                "klein",
                "kontext",
                "qwen edit",
                "bleeding",
                "attention map",
            ],
            inputs=cls._inputs(),
            outputs=cls._outputs(),
        )

    @staticmethod
    def _inputs() -> list[io.Input]:
        return [
            io.Model.Input("model", tooltip="The model itself, with its LoRAs. It is not changed; a clone is."),
            io.Conditioning.Input(
                "positive",
                tooltip="The prompt with its references: after Reference Latent, or the model's own edit encoder.",
            ),
            io.Conditioning.Input(
                "negative",
                optional=True,
                tooltip="The negative prompt. If it carries the same references they are kept in "
                "place there too, else guidance would multiply the difference.",
            ),
            # the regions, from boxes or masks
            RelateScene.Input(
                "scene",
                optional=True,
                tooltip="Subjects in the order of the references: their boxes are the regions, their "
                "weights factors on the attention each reference gets. Weight 0: nobody "
                "reads it.",
            ),
            io.Mask.Input(
                "regions",
                optional=True,
                tooltip="One mask for each reference, in order, white where it may act; any size. Takes "
                "the place of the scene's boxes.",
            ),
            # how firmly, when, and whether it is recorded
            widgets.nats(
                "strength",
                3.0,
                "How firmly a reference is kept in its region, in nats: outside, its attention is "
                "divided by e to this power. 0 is off, 2 to 4 is soft, 20 closes the border.",
            ),
            widgets.nats(
                "isolation",
                0.0,
                "How firmly references are kept from each other, in nats. Helps when two subjects look "
                "alike. 0 is off, 20 parts them.",
            ),
            *widgets.window("this begins.", "it stops. Not after start_at means never."),
            widgets.record(
                "record where each reference acts, for Preview Routing. Costs next to nothing and changes nothing."
            ),
        ]

    @staticmethod
    def _outputs() -> list[io.Output]:
        return [
            io.Model.Output(display_name="model", tooltip="Connect to the sampler, together with both sides."),
            io.Conditioning.Output(display_name="positive", tooltip="The prompt, its references kept in place."),
            io.Conditioning.Output(
                display_name="negative",
                tooltip="The same for the negative; without one, the positive zeroed out as by Conditioning Zero Out.",
            ),
            RelateRoutingMap.Output(
                display_name="routing_map",
                tooltip="Filled while a sampler runs. Connect to Preview Routing, and the "
                "picture with it, so that it runs afterwards.",
            ),
        ]

    @classmethod
    def execute(
        cls, model, positive, strength, isolation, start_at, end_at, record, negative=None, scene=None, regions=None
    ) -> io.NodeOutput:
        from .pipelines.reference_regions import RegionSettings, keep_in_place

        settings = RegionSettings(strength, isolation, (start_at, end_at), record == "maps")
        return io.NodeOutput(*keep_in_place(model, positive, negative, scene, regions, settings))
