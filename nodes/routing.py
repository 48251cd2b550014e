"""Routing-aware Sampler and Preview Routing: references kept in their regions by one node, and the maps of it."""

from __future__ import annotations

from comfy_api.latest import io

from . import widgets
from .sockets import RelateReferences, RelateRoutingMap, advanced, schema


class RelateRoutingSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateRoutingSampler",
            display_name="Routing-aware Flux Sampler",
            category="relate/references",
            description="Samples with references, keeps each in its region, and shows where each acts: Flux with "
            "DreamO, and every model that takes references natively (Flux.2, Kontext, Qwen-Image-Edit "
            "and others). With routing_strength 0 it is KSampler after Apply References or Reference "
            "Latent, bit for bit.",
            search_aliases=["dreamo sampler", "regional reference", "attention map", "ksampler"],
            inputs=[*cls._sampling(), *cls._steering()],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The sampled latent."),
                RelateRoutingMap.Output(
                    display_name="routing_map", tooltip="Where each reference acts. Connect to Preview Routing."
                ),
                io.Image.Output(display_name="heat_maps", tooltip="One picture a reference; black if not recorded."),
                io.Mask.Output(display_name="masks", tooltip="One mask a reference, where it acts most (Otsu)."),
            ],
        )

    @staticmethod
    def _sampling() -> list[io.Input]:
        """List KSampler's inputs, and the references."""
        from .host_comfy.samplers import SAMPLERS, SCHEDULERS

        return [
            io.Model.Input(
                "model",
                tooltip="From Load DreamO, or a model that takes references natively. It is not changed; a clone is.",
            ),
            io.Conditioning.Input("positive", tooltip="The positive prompt; the references are added here."),
            io.Conditioning.Input(
                "negative",
                tooltip="The negative prompt, for cfg above 1. With DreamO and "
                "OmniGen2 it never gets references, else it does.",
            ),
            io.Latent.Input("latent_image", tooltip="What to start from."),
            RelateReferences.Input("references", tooltip="From Reference Image."),
            # KSampler's widgets, with defaults for DreamO
            io.Int.Input(
                "seed",
                default=0,
                min=0,
                max=0xFFFFFFFFFFFFFFFF,
                control_after_generate=True,
                tooltip="Of the noise.",
            ),
            io.Int.Input("steps", default=12, min=1, max=10000, tooltip="12 with turbo, about 28 without."),
            io.Float.Input(
                "cfg",
                default=1.0,
                min=0.0,
                max=100.0,
                step=0.1,
                tooltip="True guidance. 1 as published, DreamO's LoRA makes it unnecessary; above 1 "
                "costs twice the time.",
            ),
            io.Combo.Input("sampler_name", options=SAMPLERS, default="euler", tooltip="As in KSampler."),
            io.Combo.Input("scheduler", options=SCHEDULERS, default="simple", tooltip="As in KSampler."),
            io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="As in KSampler."),
        ]

    @staticmethod
    def _steering() -> list[io.Input]:
        """List the settings of the steering and of the record."""
        return [
            widgets.nats(
                "routing_strength",
                0.0,
                "How firmly a reference is kept in its region, in nats: outside, its attention is "
                "divided by e to this power. 0 is plain DreamO, 2 to 4 is soft, 20 closes the border.",
            ),
            *widgets.window("the steering begins.", "it stops. Not after start_at means never."),
            widgets.record("record where each reference acts, and show it while it runs."),
            advanced(
                widgets.nats(
                    "isolation",
                    0.0,
                    "How firmly references are kept from each other, in nats. Helps when two subjects look "
                    "alike. 0 is plain DreamO, 20 parts them.",
                    optional=True,
                )
            ),
            advanced(
                io.Float.Input(
                    "first_step_guidance",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="Distilled guidance of the first step; 0 is the same as the others, "
                    "which Flux Guidance sets.",
                )
            ),
        ]

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        latent_image,
        references,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        routing_strength,
        start_at,
        end_at,
        record,
        isolation=0.0,
        first_step_guidance=0.0,
    ) -> io.NodeOutput:
        from .drawing.heat_map import thumbnail
        from .host_comfy.flux import sampler as flux_sampler
        from .pipelines.routing_previews import pictures_of

        settings = flux_sampler.SamplerSettings(
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            denoise,
            routing_strength,
            start_at,
            end_at,
            record == "maps",
            isolation,
            first_step_guidance,
        )
        latent, routing_map, size = flux_sampler.sample(
            model, positive, negative, latent_image, references, settings, thumbnail
        )
        return io.NodeOutput(latent, routing_map, *pictures_of(routing_map, size))


class RelateRoutingPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateRoutingPreview",
            display_name="Preview Routing",
            category="relate/references",
            description="Shows where one reference acted: a heat map, over the picture if it is connected, and the "
            "mask of its strongest part, which can serve as a region of the next run.",
            search_aliases=["attention map", "heat map", "show routing"],
            inputs=[
                RelateRoutingMap.Input(
                    "routing_map",
                    tooltip="From Keep References in Place or Routing-aware Flux Sampler, with record at maps.",
                ),
                io.Int.Input(
                    "reference",
                    default=1,
                    min=1,
                    max=16,
                    tooltip="The reference's number: its place in the order, or as in [ref#1].",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to lay the map over. After Keep References in Place connect it, so "
                    "that this runs when the sampler is done.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Dark is little, light is much."),
                io.Mask.Output(display_name="mask", tooltip="Where it acts most, split by Otsu's threshold."),
            ],
        )

    @classmethod
    def execute(cls, routing_map, reference, image=None) -> io.NodeOutput:
        from .pipelines.routing_previews import preview

        return io.NodeOutput(*preview(routing_map, reference, image))
