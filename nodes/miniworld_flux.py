"""Load Miniworld Flux: reference images and their routing, with nothing to download."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import schema

NUMBERED = " --references numbered"


class RelateMiniworldFluxLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateMiniworldFluxLoader",
            display_name="Load Miniworld Flux",
            category="relate/miniworld",
            description="Loads the miniworld's small Flux, trained with references in one of two ways: nodes for "
            "references work on it as on FLUX.1-dev with Load DreamO, or as on FLUX.2, in seconds, on any "
            "computer. Pictures are 128 x 128.",
            search_aliases=["demo", "example", "tiny", "plush", "dreamo", "kontext", "klein", "try out"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=["DreamO", "numbered references"],
                    default="DreamO",
                    optional=True,
                    tooltip="DreamO: for Reference Image and Apply References. Numbered references: as FLUX.2 and "
                    "Kontext take them, for Reference Latent and Keep References in Place.",
                )
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="A Flux of 5 million parameters, for latents of 16 x 16. Connect DreamO's to Apply "
                    "References or Routing-aware Flux Sampler, the one with numbered references to Keep References "
                    "in Place.",
                ),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="Its text encoder; it knows the world's words, DreamO's also [ref#1] to [ref#9].",
                ),
                io.Vae.Output(
                    display_name="vae",
                    tooltip="Its VAE, factor 8, 16 channels; also for Reference Image, with resolution 128, or for "
                    "VAE Encode before Reference Latent.",
                ),
            ],
        )

    @classmethod
    def execute(cls, variant="DreamO") -> io.NodeOutput:
        from .host_comfy.miniworld import flux as miniworld_flux
        from .host_comfy.miniworld import latents
        from .host_comfy.miniworld import sdxl as miniworld

        files = miniworld_flux.VARIANTS[variant]
        missing = miniworld_flux.missing_parts(variant=files)
        if missing:
            raise ValueError(
                "models/miniworld of this pack: expected the miniworld's Flux, "
                f"{', '.join(missing)} missing. Install the pack again if it should have come with it, or "
                f"make it: python -m training.miniworld flux-base, then flux{'' if files.dreamo else NUMBERED}, "
                "then python -m training.miniworld flux-export."
            )
        model, vae = miniworld_flux.load_flux(variant=files), miniworld.load_vae()
        latents.finish_model(model, vae)
        return io.NodeOutput(model, miniworld_flux.load_clip(variant=files), vae)
