"""Scene to Layout Prompt: one scene in the words of the models that read boxes."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.prompt.layout_prompt import DIALECTS, FLUX3, layout_prompt
from .sockets import RelateScene, schema


class RelateSceneToLayoutPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateSceneToLayoutPrompt",
            display_name="Scene to Layout Prompt",
            category="relate/scene",
            description="Writes a scene's subjects and boxes behind the prompt, in the JSON that models trained with "
            "boxes read: FLUX.3's rows, which also say which reference goes where, or Ideogram 4's "
            "elements.",
            search_aliases=[
                "flux 3",
                "flux3 layout",
                "bounding box prompt",
                "json prompt",
                "ideogram",
                "region prompt",
                "two subjects",
            ],
            inputs=[
                RelateScene.Input(
                    "scene",
                    tooltip="The subjects. FLUX.3: those of weight 0 have no reference; the "
                    "others count in order, ref_image_0 first.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="A cat is hugging a plushie bear.",
                    tooltip="What happens in the picture.",
                ),
                io.Combo.Input(
                    "dialect",
                    options=list(DIALECTS),
                    default=FLUX3,
                    tooltip="flux3: the prompt, then rows with a box for each subject and where it comes "
                    "from. ideogram: one object with an element for each subject.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompt", tooltip="For the model's text encoder node.")],
        )

    @classmethod
    def execute(cls, scene, prompt, dialect) -> io.NodeOutput:
        from .host_comfy.prompt_graph import remember_outputs

        return io.NodeOutput(*remember_outputs(layout_prompt(scene, prompt, dialect)))
