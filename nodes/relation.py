"""Load Relation: what happens between the subjects."""

from __future__ import annotations

from comfy_api.latest import io

from .sockets import schema


class RelateRelationLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from .host_comfy import folders

        folders.register()
        names, examples = folders.relation_files()
        lora_name = io.Combo.Input(
            "lora_name",
            options=names,
            tooltip="A file in models/loras, relation LoRAs first, or a miniworld_ file, which comes with the pack.",
        )
        lora_name.extra_dict = {"relate_examples": examples}  # web/relate_relation.js shows the chosen one's
        return schema(
            node_id="RelateRelationLoader",
            display_name="Load Relation",
            category="relate/relation",
            description="Adds a relation LoRA (hugging, shaking hands, ...) to an SDXL or Flux model. Reads files made "
            "with this pack's training, the DreamRelation authors' files, and every common layout: diffusers, peft, "
            "kohya, LyCORIS, ai-toolkit. A file for another base model is refused by name.",
            search_aliases=[
                "lora",
                "relation lora",
                "interaction",
                "hug",
                "hugging",
                "two subjects",
                "dreamrelation",
                "relationbooth",
                "flux lora",
                "klein lora",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model the relation was trained for: SDXL, FLUX.1, Kontext, FLUX.2 dev or Klein. It "
                    "is not changed; a clone is.",
                ),
                lora_name,
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-3.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Strength of the relation. 1 is as trained; 0 is the untouched model.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the relation."),
                io.String.Output(
                    display_name="relation",
                    tooltip="The words the relation was trained with, for your prompt; empty if the file does not say.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model, lora_name, strength) -> io.NodeOutput:
        from .host_comfy import folders
        from .host_comfy.prompt_graph import remember_outputs
        from .pipelines.load_relation import load_onto

        return io.NodeOutput(*remember_outputs(*load_onto(model, folders.lora_path(lora_name), lora_name, strength)))
