"""Apply Scene: one scene for any engine, on the engine's own wiring."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.prompt.wording import PLACES, WORDINGS
from . import widgets
from .sockets import RelateIdentityModel, RelateScene, advanced, schema


class RelateApplyScene(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateApplyScene",
            display_name="Apply Scene",
            category="relate/scene",
            description="Gives a scene to the model you have: scales the photographs, puts them in order, names them "
            "in the prompt and wires both sides as this model's own nodes do, and keeps each reference in "
            "its subject's box. Works with Flux.2, Kontext, Qwen-Image-Edit, OmniGen2, Krea 2, Boogu, "
            "Mage-Flow, JoyImage, LongCat, Z-Image Omni, Flux.1 with DreamO, and SDXL with an identity "
            "model.",
            search_aliases=[
                "edit",
                "multi reference",
                "reference latent",
                "qwen edit",
                "kontext",
                "klein",
                "flux 2",
                "omnigen",
                "hug",
                "two subjects",
                "two people",
                "multiple characters",
                "regional prompt",
            ],
            inputs=[*cls._scene(), *cls._references(), *cls._drawing()],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Connect to the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt with the references."),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative with the references, where this model wants them there. "
                    "For OmniGen2 the second condition of Dual CFG Guider.",
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty, in the model's own shape."),
                io.String.Output(display_name="prompt", tooltip="The prompt as it was encoded."),
                io.Image.Output(
                    display_name="references",
                    is_output_list=True,
                    tooltip="A list of the references, exactly what the VAE saw.",
                ),
            ],
        )

    @classmethod
    def _scene(cls) -> list[io.Input]:
        """List the engine's own three, the scene, and the picture's size."""
        return [
            io.Model.Input(
                "model", tooltip="The model itself, from its loader, with its LoRAs. It is not changed; a clone is."
            ),
            io.Clip.Input("clip", tooltip="The model's own text encoder."),
            io.Vae.Input("vae", tooltip="The model's own VAE."),
            # what to draw, and how large
            RelateScene.Input(
                "scene", tooltip="The subjects, from Subject or Layout. Those of weight 0 have no reference."
            ),
            io.String.Input(
                "prompt",
                multiline=True,
                dynamic_prompts=True,
                default="A cat is hugging a plushie bear.",
                tooltip="What happens. Name each subject as in its Subject node.",
            ),
            io.Int.Input("width", default=1024, min=64, max=16384, step=16, tooltip="Width of the picture in pixels."),
            io.Int.Input(
                "height", default=1024, min=64, max=16384, step=16, tooltip="Height of the picture in pixels."
            ),
            widgets.nats(
                "strength",
                3.0,
                "How firmly a reference is kept in its subject's box, in nats: outside, its attention is "
                "divided by e to this power. 0 is the model's own wiring, untouched; 2 to 4 is soft, 20 "
                "closes the border. SDXL: above 0 each subject acts in its box.",
            ),
            # only some engines take these
            RelateIdentityModel.Input(
                "identity_model",
                optional=True,
                tooltip="For SDXL only, which has no references of its own: from Load Identity Model.",
            ),
            io.ClipVision.Input(
                "clip_vision",
                optional=True,
                tooltip="For SDXL the encoder of the identity model; for Z-Image Omni its SigLIP, "
                "which may be left out.",
            ),
        ]

    @classmethod
    def _references(cls) -> list[io.Input]:
        """List the settings that turn photographs into references."""
        from .host_comfy.scene.engines import AUTO, NAMES

        return [
            # detection and the prompt
            advanced(
                io.Combo.Input(
                    "engine",
                    options=[AUTO, *NAMES],
                    default=AUTO,
                    optional=True,
                    tooltip="auto finds the model by its class. Set it only where two models are one "
                    "structure: kontext, or the first Qwen-Image-Edit.",
                )
            ),
            advanced(
                io.Combo.Input(
                    "wording",
                    options=list(WORDINGS),
                    default=PLACES,
                    optional=True,
                    tooltip="What is written into the prompt: which reference each subject comes from "
                    "and where it stands, the former only, or nothing. A prompt that already "
                    "says 'image 1' is left as written.",
                )
            ),
            # the photographs
            advanced(
                io.Combo.Input(
                    "photographs",
                    options=["first", "all"],
                    default="first",
                    optional=True,
                    tooltip="first: one reference for each subject. all: every photograph of it, as "
                    "long as the model reads more.",
                )
            ),
            advanced(
                io.Float.Input(
                    "reference_size",
                    default=0.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    optional=True,
                    tooltip="Area of a reference in megapixels, for models whose references are scaled "
                    "by hand. 0 is the model's own: 1, Kontext's sizes, DreamO's 0.25.",
                )
            ),
        ]

    @classmethod
    def _drawing(cls) -> list[io.Input]:
        """List the negative, the number of pictures, and the window of the steering."""
        return [
            advanced(
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    tooltip="What the picture shall not show, for guidance (cfg) above 1.",
                )
            ),
            advanced(
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    optional=True,
                    tooltip="Pictures to draw of this one scene.",
                )
            ),
            *map(
                advanced,
                widgets.window(
                    "references begin to be kept in their boxes; on SDXL the subjects begin to act.",
                    "that stops. Not after start_at means never.",
                    optional=True,
                ),
            ),
        ]

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        scene,
        prompt,
        width,
        height,
        strength,
        identity_model=None,
        clip_vision=None,
        engine="auto",
        wording=PLACES,
        photographs="first",
        reference_size=0.0,
        negative="",
        batch_size=1,
        start_at=0.0,
        end_at=1.0,
    ) -> io.NodeOutput:
        from .pipelines.apply_scene import SceneSettings, apply_scene

        settings = SceneSettings(
            width,
            height,
            strength,
            (start_at, end_at),
            engine,
            wording,
            photographs,
            reference_size,
            negative,
            batch_size,
        )
        result = apply_scene(model, clip, vae, scene, prompt, settings, identity_model, clip_vision)
        wiring = result.wiring
        return io.NodeOutput(
            result.model, wiring.positive, wiring.negative, wiring.latent, result.prompt, result.references
        )
