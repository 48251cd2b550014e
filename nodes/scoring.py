"""Score Pictures: which of several pictures shows the relation and keeps the subjects best."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from .sockets import RelateScene, schema

log = logging.getLogger(__name__)


class RelateScorePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="RelateScorePictures",
            display_name="Score Pictures",
            category="relate/scene",
            description="Puts pictures of one scene in order: whether what the prompt says happens, and whether each "
            "subject in its box looks like its photographs. Draw several and keep the best. Needs no "
            "model but the CLIPs of the graph.",
            search_aliases=[
                "best of n",
                "rank images",
                "clip score",
                "evaluate",
                "compare pictures",
                "identity score",
                "pick best",
                "similarity",
            ],
            inputs=[
                io.Image.Input("images", tooltip="The pictures, a batch of any number."),
                RelateScene.Input("scene", tooltip="The subjects with the boxes that the pictures were drawn with."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=False,
                    default="A cat is hugging a plushie bear.",
                    tooltip="The prompt of the pictures. What stands between the subjects' names is taken "
                    "for the relation.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="The CLIP of the model. Its text encoder must belong with the CLIP "
                    "vision (SDXL's with ViT-bigG, a CLIP-L with ViT-L); else the relation "
                    "is not scored.",
                ),
                io.ClipVision.Input("clip_vision", tooltip="Sees the pictures and the photographs: ViT-bigG for SDXL."),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The same pictures, best first."),
                io.Image.Output(display_name="table", tooltip="The scores drawn: a row for each picture."),
                io.String.Output(display_name="scores", tooltip="The scores as text, a Markdown table."),
            ],
        )

    @classmethod
    def execute(cls, images, scene, prompt, clip, clip_vision) -> io.NodeOutput:
        from .drawing.score_table import draw_scores, reorder
        from .host_comfy import joint_space
        from .pipelines.score_pictures import score_pictures, score_text, square_batch

        scene.check_subjects()

        def embed_images(pictures):
            return joint_space.embed_images(clip_vision, square_batch(pictures, clip_vision.image_size))

        def embed_texts(texts, width):
            return joint_space.embed_texts(clip, texts, width)

        scores = score_pictures(images, scene, prompt, embed_images, embed_texts)
        if scores[0].prompt is None:
            log.warning(
                "Relate: Score Pictures: the CLIP has no text encoder that belongs with this CLIP vision, so "
                "the relation is not scored and identity alone decides. Connect SDXL's CLIP with ViT-bigG."
            )
        elif scores[0].relation is None:
            log.warning(
                "Relate: Score Pictures: the prompt says no relation of the subjects' names, so identity alone "
                "decides. Use the names of the Subject nodes in the prompt."
            )
        names = [subject.name for subject in scene.subjects]
        return io.NodeOutput(reorder(images, scores), draw_scores(images, scores, names), score_text(scores, names))
