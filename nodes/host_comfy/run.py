"""What is known while a sampler runs: the prompt that feeds it, and where the subjects' names stand in it.

A MODEL does not know the prompt. When sampling starts, the running graph does: from the sampler's positive input the
texts are followed back to the nodes that encode them. A text that another node computes cannot be read; then a
warning says so and the boxes are used.
"""

from __future__ import annotations

import logging
import re

from comfy_execution.utils import get_executing_context

from ...core.identity.auto_layout import AttentionRecord, Span
from ...core.scene import WHOLE_PICTURE, Box

log = logging.getLogger(__name__)

RUN = "relate_run"
# inputs that lead away from what the picture shall show
_NOT_POSITIVE = ("negative", "model", "vae", "latent", "clip", "image", "control_net", "noise", "sampler", "sigmas")
_TEXT_NODE_INPUTS = {"value", "text", "string", "string_a", "string_b", "delimiter"}


class Run:
    """State of one sampling run.

    Args:
        guider: ComfyUI's; it knows which conditioning is limited to which area.
        size: height and width of the latent.
    """

    def __init__(self, guider, size: tuple[int, int]) -> None:
        self._guider = guider
        self._size = size
        self._records: dict[int, AttentionRecord] = {}
        self._windows: dict[object, Box] = {}

    def start(self, identity, spans: tuple[Span | None, ...]) -> None:
        self._records[id(identity)] = AttentionRecord(spans)

    def record_for(self, identity) -> AttentionRecord:
        return self._records[id(identity)]

    def window_of(self, uuid: object) -> Box:
        """The part of the picture a conditioning is computed on: the whole, or the area the user limited it to."""
        if uuid not in self._windows:
            conds = (cond for group in self._guider.conds.values() for cond in group)
            area = next((cond["area"] for cond in conds if cond.get("uuid") == uuid and "area" in cond), None)
            self._windows[uuid] = self._window(area)
        return self._windows[uuid]

    def _window(self, area: tuple[int, ...] | None) -> Box:
        """ComfyUI's area is (height, width, top, left) in latent cells, cut at the latent's edges."""
        if area is None or len(area) != 4:
            return WHOLE_PICTURE
        height, width, top, left = area
        rows, columns = self._size
        return Box(left / columns, top / rows, min(left + width, columns) / columns, min(top + height, rows) / rows)


def start_run(identity, names: tuple[str, ...], tokenizer):
    """An OUTER_SAMPLE wrapper that begins a run: finds the names in the prompt and warns of those it lacks."""

    def wrapper(executor, *args, **kwargs):
        options = executor.class_obj.model_options["transformer_options"]
        noise = args[0] if args else kwargs["noise"]
        run = options.setdefault(RUN, Run(executor.class_obj, tuple(noise.shape[-2:])))
        texts = positive_texts()
        for name in names:
            if texts and not any(mentions(text, name) for text in texts):
                log.warning("Relate: subject '%s' is not in the prompt %r; name it there as in its Subject node, or "
                            "the picture may lack it.", name, texts[0][:200])
        spans = tuple(find_span(tokenizer, texts, name) for name in names)
        if identity.layout == "attention" and None in spans:
            lost = ", ".join(f"'{name}'" for name, span in zip(names, spans) if span is None)
            log.warning("Relate: layout 'attention' needs the names in the prompt; %s not found there, so the subject "
                        "acts nowhere once the automatic layout starts.", lost)
        run.start(identity, spans)
        return executor(*args, **kwargs)

    return wrapper


def mentions(text: str, name: str) -> bool:
    """Whether a text has the name as whole words, any case."""
    return re.search(rf"(?<!\w){re.escape(name.strip().lower())}(?!\w)", text.lower()) is not None


def positive_texts() -> list[str]:
    """Texts that feed the positive input of the node that runs now; empty outside a running graph."""
    context = get_executing_context()
    graph = _running_graph(context.prompt_id) if context else None
    if not graph or context.node_id not in graph:
        return []
    texts, todo, seen = [], [context.node_id], set()
    while todo:
        node_id = todo.pop(0)
        if node_id in seen or node_id not in graph:
            continue
        seen.add(node_id)
        inputs = graph[node_id].get("inputs", {})
        encodes = isinstance(inputs.get("clip"), list)
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2 and not name.startswith(_NOT_POSITIVE):
                todo.append(str(value[0]))
            elif isinstance(value, str) and (encodes or set(inputs) <= _TEXT_NODE_INPUTS):
                texts.append(value)
    return texts


def _running_graph(prompt_id: str) -> dict | None:
    """The API graph of the prompt that runs now."""
    from server import PromptServer  # at run time: the server does not exist while packs load

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return None
    running = server.prompt_queue.get_current_queue()[0]
    return next((item[2] for item in running if item[1] == prompt_id), None)


def find_span(tokenizer, texts: list[str], name: str) -> Span | None:
    """Where a name's tokens stand in the text context of the first text that has it.

    Args:
        tokenizer: of a CLIP with CLIP-L; its 77-token chunks follow each other as in the context.
    """
    wanted = [token for token, _ in _inner(tokenizer.tokenize_with_weights(name)["l"])]
    for text in texts:
        tokens = [token for chunk in tokenizer.tokenize_with_weights(text)["l"] for token, _ in chunk]
        for start in range(len(tokens) - len(wanted) + 1):
            if wanted and tokens[start:start + len(wanted)] == wanted:
                return start, start + len(wanted)
    return None


def _inner(chunks: list) -> list:
    """Tokens of a short text without start, end and padding."""
    return [pair for chunk in chunks for pair in chunk if pair[0] not in (49406, 49407)]
