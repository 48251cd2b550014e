"""Subject, Layout, Preview Layout, Scene Prompt: the subjects of a picture and their boxes."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..core.scene import WHOLE_PICTURE, Box, Scene, Subject
from .boxes import read_boxes
from .sockets import Array, BoundingBox, RelateScene, schema

log = logging.getLogger(__name__)


def edge(name: str, default: float, meaning: str) -> io.Float.Input:
    """Make the widget of one edge of a box."""
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip=f"{meaning} edge of the subject's box, as a fraction of the output picture "
        "(0 is left or top, 1 is right or bottom).",
    )


class RelateSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateSubject",
            display_name="Subject",
            category="relate/scene",
            description="Adds one subject to a scene: its photographs, the words that name it in the prompt, and the "
            "box where it stands. Chain one node a subject, in any number.",
            search_aliases=[
                "two subjects",
                "reference image",
                "identity",
                "character",
                "ip adapter",
                "ms-diffusion",
                "bounding box",
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Photograph of the subject. A batch is several photographs of the same "
                    "subject; all are read. An alpha channel serves as mask.",
                ),
                io.String.Input(
                    "name",
                    default="cat",
                    tooltip="The words that name the subject in the prompt, e.g. "
                    "'plushie bear'. Use the same words there.",
                ),
                edge("x0", 0.0, "Left"),
                edge("y0", 0.0, "Top"),
                edge("x1", 1.0, "Right"),
                edge("y1", 1.0, "Bottom"),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="How strongly this subject's identity acts, beside the weight of Apply "
                    "Identity. 0 leaves it to the prompt, 1 is as published.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the photograph shows the subject; the rest is painted white and "
                    "cut off. Load Image gives the mask you paint; invert a mask made from "
                    "transparency.",
                ),
                RelateScene.Input("scene", optional=True, tooltip="The subjects before this one."),
            ],
            outputs=[RelateScene.Output(display_name="scene", tooltip="The scene with this subject added last.")],
        )

    @classmethod
    def validate_inputs(cls, x0, y0, x1, y1, name):
        if None in (x0, y0, x1, y1):  # an edge comes from another node: checked when it is known
            return True
        try:
            Box(x0, y0, x1, y1)
        except ValueError as error:
            return f"subject '{name}': {error}"
        return True

    @classmethod
    def execute(cls, image, name, x0, y0, x1, y1, weight, mask=None, scene=None) -> io.NodeOutput:
        from .pipelines.subject_images import keeps_background, read_photographs

        try:
            photographs, subject_mask = read_photographs(image, mask)
            box = Box(x0, y0, x1, y1)
        except ValueError as error:
            raise ValueError(f"subject '{name}': {error}") from error
        subject = Subject(name.strip(), photographs, box, weight, subject_mask)
        if subject_mask is not None and keeps_background(subject_mask):
            log.warning(
                "Relate: subject '%s': the mask is white at the picture's border and black in its middle: it "
                "keeps the background and removes the subject. Put Invert Mask between; the MASK of a "
                "transparent picture is such a one.",
                subject.name,
            )
        return io.NodeOutput((scene or Scene()).with_subject(subject))


def scene_notices(scene: Scene) -> list[str]:
    """List probable mistakes: subjects of one name, or with the whole picture for their box."""
    notices = []
    names = [subject.name.lower() for subject in scene.subjects]
    if same := sorted({name for name in names if names.count(name) > 1}):
        notices.append(
            f"more than one subject is named '{same[0]}', so the prompt cannot tell them apart. Name them "
            f"apart, e.g. 'black {same[0]}' and 'white {same[0]}'."
        )
    whole = [subject.name for subject in scene.subjects if subject.box == WHOLE_PICTURE]
    if len(whole) > 1:
        notices.append(
            f"{' and '.join(whole)} each have the whole picture for their box, so they will blend. Give "
            "each its place in Subject, or draw the boxes with Layout."
        )
    return notices


class RelateLayout(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateLayout",
            display_name="Layout",
            category="relate/scene",
            description="Gives the subjects of a scene new boxes, in order. Draw them on the node, or connect Create "
            "Bounding Boxes or a detector (SAM, RT-DETR), or write them as text.",
            search_aliases=["bounding boxes", "regions", "box editor"],
            inputs=[
                RelateScene.Input("scene", tooltip="The scene whose subjects get the boxes."),
                io.MultiType.Input(
                    io.String.Input(
                        "bboxes",
                        default='[{"x": 0, "y": 0, "width": 512, "height": 1024}, '
                        '{"x": 512, "y": 0, "width": 512, "height": 1024}]',
                        multiline=True,
                        tooltip="One box a subject, in order: bounding boxes in pixels of the canvas, "
                        "elements, or the same as JSON text.",
                    ),
                    types=[BoundingBox, Array],
                ),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=1,
                    max=16384,
                    tooltip="Width in pixels of the canvas the boxes are on. Only its ratio to them counts.",
                ),
                io.Int.Input(
                    "height", default=1024, min=1, max=16384, tooltip="Height in pixels of the canvas the boxes are on."
                ),
            ],
            outputs=[
                RelateScene.Output(display_name="scene", tooltip="The scene with the new boxes."),
                io.Image.Output(display_name="preview", tooltip="The boxes drawn on the canvas."),
            ],
        )

    @classmethod
    def execute(cls, scene, bboxes, width, height) -> io.NodeOutput:
        from dataclasses import replace

        from .drawing.layout import draw_layout

        boxes = read_boxes(bboxes, width, height)
        if len(boxes) != len(scene.subjects):
            names = ", ".join(f"'{subject.name}'" for subject in scene.subjects)
            raise ValueError(
                f"bboxes: expected {len(scene.subjects)} boxes, one for each of {names or 'no subjects'}, "
                f"got {len(boxes)}. Draw or connect as many boxes as the scene has subjects."
            )
        scene = Scene(tuple(replace(subject, box=box) for subject, box in zip(scene.subjects, boxes)))
        return io.NodeOutput(scene, draw_layout(scene, width, height))


class RelateLayoutPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateLayoutPreview",
            display_name="Preview Layout",
            category="relate/scene",
            description="Draws where each subject of a scene may act, with its photograph, name and weight.",
            search_aliases=["show boxes", "draw boxes"],
            inputs=[
                RelateScene.Input("scene", tooltip="The scene to draw."),
                io.Int.Input("width", default=1024, min=16, max=16384, tooltip="Width of the drawing in pixels."),
                io.Int.Input("height", default=1024, min=16, max=16384, tooltip="Height of the drawing in pixels."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The drawing.")],
        )

    @classmethod
    def execute(cls, scene, width, height) -> io.NodeOutput:
        from .drawing.layout import draw_layout

        return io.NodeOutput(draw_layout(scene, width, height))


class RelateScenePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateScenePrompt",
            display_name="Scene Prompt",
            category="relate/scene",
            description="Makes the prompt from the subjects' names and a relation, so that each name is written once: "
            "'a cat is hugging a plushie bear in a meadow'.",
            search_aliases=["hug", "two subjects", "relation", "interaction", "prompt builder", "sentence"],
            inputs=[
                RelateScene.Input("scene", tooltip="The scene whose subjects are named, in order: the first one acts."),
                io.String.Input(
                    "relation",
                    default="hugging",
                    tooltip="What happens between them, in the words the relation was trained with. "
                    "Connect relation of Load Relation, or write it. Empty: they are just "
                    "together.",
                ),
                io.String.Input("place", default="", tooltip="What follows in the sentence, e.g. 'in a meadow'."),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="The sentence. Connect to text of CLIP Text Encode.")
            ],
        )

    @classmethod
    def execute(cls, scene, relation, place) -> io.NodeOutput:
        from ..core.prompt.sentence import make_sentence
        from .host_comfy.prompt_graph import remember_outputs

        sentence = make_sentence([subject.name for subject in scene.subjects], relation, place)
        return io.NodeOutput(*remember_outputs(sentence))
