"""Write a scene as the JSON that models trained with boxes read in their prompt.

FLUX.3 (docs.bfl.ai, "image bounding boxes"): the prompt, a space, and an array of rows. Boxes are
[top, left, bottom, right] in thousandths. A row with references says where a subject comes from and where it goes:
{"id", "from": "ref_image_0", "src_bbox", "tgt_bbox", "desc"}; a new one has null for from and src_bbox. ComfyUI's own
Flux3LayoutPrompt writes rows without "from". Whether rows from several references act as documented was not tried.

Ideogram 4 (read by ComfyUI's nodes Create Bounding Boxes and Build JSON Prompt): one object, its elements with boxes
[ymin, xmin, ymax, xmax] in thousandths. It takes no references.
"""

from __future__ import annotations

import json
import re

from torch import Tensor

from ..scene import WHOLE_PICTURE, Box, Scene, Subject

FLUX3, IDEOGRAM = "flux3", "ideogram"
DIALECTS = (FLUX3, IDEOGRAM)
MAX_ROWS = 24  # what validators of FLUX.3's rows accept
_THOUSANDTHS = 1000


def layout_prompt(scene: Scene, prompt: str, dialect: str) -> str:
    """Write a scene's subjects, boxes and references into a prompt.

    Args:
        scene: its subjects of weight 0 have no reference.
        prompt: what happens in the picture.
        dialect: one of DIALECTS.

    Raises:
        ValueError: an unknown dialect, no subjects, or more than FLUX.3 takes.
    """
    scene.check_subjects()
    if dialect == FLUX3:
        return f"{prompt.rstrip()} {_compact(flux3_rows(scene))}".lstrip()
    if dialect == IDEOGRAM:
        return _compact(ideogram_caption(scene, prompt))
    raise ValueError(f"dialect: expected one of {', '.join(DIALECTS)}, got {dialect!r}.")


def flux3_rows(scene: Scene) -> list[dict]:
    """Return the rows of FLUX.3: with references if any subject has one, else as for a picture from words alone.

    Raises:
        ValueError: more than MAX_ROWS subjects.
    """
    if len(scene.subjects) > MAX_ROWS:
        raise ValueError(
            f"scene: expected at most {MAX_ROWS} subjects, which is what FLUX.3 takes; got "
            f"{len(scene.subjects)}. Leave some out."
        )
    ids = _identifiers([subject.name for subject in scene.subjects])
    if not any(subject.weight > 0 for subject in scene.subjects):
        return [
            {"id": row_id, "bbox": _edges(subject.box), "desc": subject.name}
            for row_id, subject in zip(ids, scene.subjects)
        ]
    rows, reference = [], 0
    for row_id, subject in zip(ids, scene.subjects):
        source: dict = {"from": None, "src_bbox": None}
        if subject.weight > 0:
            source = {"from": f"ref_image_{reference}", "src_bbox": _edges(_subject_box(subject))}
            reference += 1
        rows.append({"id": row_id, **source, "tgt_bbox": _edges(subject.box), "desc": subject.name})
    return rows


def ideogram_caption(scene: Scene, prompt: str) -> dict:
    """Return the object that ComfyUI's Build JSON Prompt (Ideogram) makes, without a style."""
    elements = [{"type": "obj", "bbox": _edges(subject.box), "desc": subject.name} for subject in scene.subjects]
    caption: dict = {"high_level_description": prompt} if prompt.strip() else {}
    return {**caption, "compositional_deconstruction": {"background": "", "elements": elements}}


def _identifiers(names: list[str]) -> list[str]:
    """cat_1, bear_1, bear_2: the last word of a name that is plain ASCII, numbered."""
    count: dict[str, int] = {}
    identifiers = []
    for name in names:
        words = re.findall(r"(?<![a-z0-9])[a-z][a-z0-9]*", name.lower())
        word = words[-1] if words else "subject"
        count[word] = count.get(word, 0) + 1
        identifiers.append(f"{word}_{count[word]}")
    return identifiers


def _subject_box(subject: Subject) -> Box:
    """Bound the subject in its first photograph by its mask."""
    return WHOLE_PICTURE if subject.mask is None else _mask_box(subject.mask[0])


def _mask_box(mask: Tensor) -> Box:
    height, width = mask.shape
    rows, columns = ((mask > 0.5).any(dim=axis).nonzero() for axis in (1, 0))
    return Box(
        float(columns[0]) / width, float(rows[0]) / height, float(columns[-1] + 1) / width, float(rows[-1] + 1) / height
    )


def _edges(box: Box) -> list[int]:
    """[top, left, bottom, right] in thousandths."""
    return [round(_THOUSANDTHS * edge) for edge in (box.y0, box.x0, box.y1, box.x1)]


def _compact(value) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
