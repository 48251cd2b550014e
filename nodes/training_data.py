"""Save Triplet: a picture of a relation and its subjects' photographs as one sample to train from."""

from __future__ import annotations

from comfy_api.latest import io, ui

from .sockets import PoseKeypoint, RelateScene, schema

_ALIASES = ["dataset", "training data", "save dataset", "relation lora", "triplets.jsonl", "fine-tune", "dreamrelation"]


def _annotations() -> list[io.Input]:
    """List the subjects' masks and poses in the target; both may be missing."""
    return [
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="One mask for each subject, in their order, white where it is in the target: from SAM 3 "
            "by words, or painted. Batch them with Batch Masks.",
        ),
        PoseKeypoint.Input(
            "keypoints",
            optional=True,
            tooltip="Poses of the target, then of each subject's photograph, one frame each. They make the "
            "LoRA learn poses instead of copying them.",
        ),
    ]


class RelateSaveTriplet(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateSaveTriplet",
            display_name="Save Triplet",
            category="relate/training",
            description="Saves a picture in which a relation happens, and a photograph of each of its subjects alone, "
            "as one line of triplets.jsonl with its pictures: what python -m training.finetune learns a relation LoRA "
            "from. Four to six of them are enough. A triplet is written whole or not at all.",
            search_aliases=_ALIASES,
            inputs=[
                io.Image.Input("target", tooltip="The picture in which the relation happens: one picture, no batch."),
                RelateScene.Input(
                    "scene",
                    tooltip="The subjects: each photograph shows one of them alone, in another pose and place. Boxes "
                    "count where no masks are connected.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=False,
                    default="A cat is hugging a plushie bear.",
                    tooltip="What the target shows, in one sentence with every subject's name and the relation.",
                ),
                io.String.Input(
                    "relation",
                    default="hugging",
                    tooltip="The words of the relation, exactly as the prompt has them.",
                ),
                io.String.Input(
                    "folder",
                    default="relate/hugging",
                    tooltip="Folder below ComfyUI's output folder; one for each relation. New triplets are added to "
                    "those that are there.",
                ),
                *_annotations(),
            ],
            outputs=[
                io.String.Output(
                    display_name="path", tooltip="The folder that holds triplets.jsonl: data.folder of the training."
                )
            ],
            hidden=[io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, target, scene, prompt, relation, folder, masks=None, keypoints=None) -> io.NodeOutput:
        from .host_comfy import folders
        from .pipelines.save_triplet import save_triplet

        home = folders.below_output(folder)
        save_triplet(home, target, scene, prompt, relation, masks, keypoints, getattr(cls.hidden, "prompt", None))
        return io.NodeOutput(str(home), ui=ui.PreviewText(str(home)))
