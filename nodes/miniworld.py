"""Load Miniworld and Miniworld Creature: everything the graphs need, with nothing to download."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .sockets import RelateIdentityModel, schema


class RelateMiniworldLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateMiniworldLoader",
            display_name="Load Miniworld",
            category="relate/miniworld",
            description="Loads the models of the miniworld that come with this pack: a small world of drawn plush "
            "creatures in which every node works as on SDXL, in seconds, on any computer. Pictures are "
            "128 x 128.",
            search_aliases=["demo", "example", "tiny", "plush", "try out"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="A UNet of SDXL's architecture, for latents of 16 x 16."),
                io.Clip.Output(display_name="clip", tooltip="Its two text encoders; they know the world's words."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE, factor 8, 16 channels."),
                io.ClipVision.Output(display_name="clip_vision", tooltip="Its image encoder, for Encode Identity."),
                io.ClipVision.Output(
                    display_name="local_clip_vision", tooltip="The same encoder distilled for local tokens."
                ),
                RelateIdentityModel.Output(display_name="identity_model", tooltip="Its identity model."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from .host_comfy.miniworld import latents
        from .host_comfy.miniworld import sdxl as miniworld
        from .host_comfy.sdxl import models

        missing = miniworld.missing_parts()
        if missing:
            raise ValueError(
                "models/miniworld of this pack: expected the models that come with it, "
                f"{', '.join(missing)} missing. Install the pack again, or make them with "
                "python -m training.miniworld."
            )
        folder = miniworld.FOLDER
        model, vae = miniworld.load_unet(), miniworld.load_vae()
        latents.finish_model(model, vae)
        return io.NodeOutput(
            model,
            miniworld.load_clip(),
            vae,
            miniworld.load_clip_vision(folder / "clip_vision"),
            miniworld.load_clip_vision(folder / "local_clip_vision"),
            models.load_identity_model(str(folder / "identity.safetensors")),
        )


class RelateMiniworldCreature(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from .host_comfy import folders

        return schema(
            node_id="RelateMiniworldCreature",
            display_name="Miniworld Creature",
            category="relate/miniworld",
            description="A picture of one of the miniworld's creatures, for a Subject. They come with this pack; its "
            "training has seen none of them.",
            search_aliases=["demo", "example", "plush", "reference", "photograph"],
            inputs=[
                io.Combo.Input(
                    "creature",
                    options=folders.creatures(),
                    tooltip="Its name for the prompt, the colour of its fur, what it wears.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, 256 x 256. Connect to a Subject."),
                io.String.Output(
                    display_name="name", tooltip="What the prompt calls it, such as fox. Connect to the Subject's name."
                ),
            ],
            is_output_node=True,  # else a picture out of the cache is not shown in a page opened later
        )

    @classmethod
    def execute(cls, creature) -> io.NodeOutput:
        from .drawing.layout import read_picture
        from .host_comfy import folders
        from .host_comfy.prompt_graph import remember_outputs

        picture = read_picture(folders.creature_path(creature))
        return io.NodeOutput(*remember_outputs(picture, creature.split("-")[0]), ui=ui.PreviewImage(picture))
