"""Read from the running graph which texts the positive conditioning was encoded from, and in which order.

A MODEL does not know the prompt, and a CONDITIONING does not say what it was made of; the graph that runs does. From
the sampler the positive input is followed back to the nodes that encode text, through Combine and Concat. Texts from
ComfyUI's own text nodes are computed once more, those of this pack's remembered from when they ran; those of other
nodes, and graphs that nodes make while they run (loops), are not known.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from comfy_execution.utils import get_executing_context

Graph = dict[str, dict]


@dataclass(frozen=True)
class EncodedText:
    """One text that a node encodes.

    Attributes:
        texts: what each text encoder reads, "l" and "g"; for an encoding node of another pack its inputs by name.
        exact: it is ComfyUI's own node, so that tokens stand where the tokenizer puts them.
    """

    texts: dict[str, str]
    exact: bool


Entry = tuple[EncodedText | None, ...]  # what one entry of a CONDITIONING was encoded from, in order; None: not known

_ENCODERS = {"CLIPTextEncode": {"l": "text", "g": "text"}, "CLIPTextEncodeSDXL": {"l": "text_l", "g": "text_g"}}
_TEXT_NODES = (
    "PrimitiveString",
    "PrimitiveStringMultiline",
    "PrimitiveInt",
    "StringConcatenate",
    "StringSubstring",
    "CaseConverter",
    "StringTrim",
    "StringReplace",
    "RegexReplace",
)
_POSITIVE = ("positive", "conditioning", "cond1")  # inputs of samplers and guiders; the first that is there counts
_MAX_DEPTH = 200  # nodes in a row
_MOST_REMEMBERED = 256  # nodes

_remembered: dict[str, tuple] = {}  # outputs of this pack's text nodes by what they were made of, the newest last


def read_positive() -> list[Entry] | None:
    """Read each entry of the positive conditioning of the node that runs now; None where nothing is known."""
    context = get_executing_context()
    graph = _running_graph(context.prompt_id) if context else None
    if not graph or context.node_id not in graph:
        return None
    link = _positive_input(graph, context.node_id)
    return None if link is None else _entries(graph, link, 0)


def positive_texts() -> list[str]:
    """List the texts of the positive conditioning of the node that runs now, as far as they are known."""
    pieces = [piece for entry in read_positive() or [] for piece in entry if piece is not None]
    return list(dict.fromkeys(text for piece in pieces for text in piece.texts.values()))


def remember_outputs(*outputs: Any) -> tuple:
    """Keep the texts that the node that runs now gives, for whatever reads the graph later; return the outputs.

    A node out of ComfyUI's cache does not run again, so they are kept by all that the node was made from.
    """
    context = get_executing_context()
    graph = _running_graph(context.prompt_id) if context else None
    if graph and context.node_id in graph:
        key = _made_of(graph, context.node_id)
        _remembered.pop(key, None)
        if not context.list_index:  # a node that runs for each of a list gives more than one text
            _remembered[key] = tuple(each if isinstance(each, str) else None for each in outputs)
        for oldest in list(_remembered)[:-_MOST_REMEMBERED]:
            del _remembered[oldest]
    return outputs


def _made_of(graph: Graph, node_id: str) -> str:
    """Hash a node and everything before it."""
    parts: dict[str, Any] = {}
    waiting = [str(node_id)]
    while waiting:
        each = waiting.pop()
        if each not in parts and each in graph:
            inputs = graph[each].get("inputs", {})
            parts[each] = graph[each].get("class_type"), inputs
            waiting += [str(value[0]) for value in inputs.values() if _is_link(value)]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _running_graph(prompt_id: str) -> Graph | None:
    """Look up the API graph of the prompt that runs now."""
    from server import PromptServer  # at run time: the server does not exist while packs load

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return None
    running = server.prompt_queue.get_current_queue()[0]
    return next((item[2] for item in running if item[1] == prompt_id), None)


def _node_class(kind: str) -> type | None:
    """Look up a node's class in ComfyUI's own ``nodes``, whose name this package has too."""
    return sys.modules["nodes"].NODE_CLASS_MAPPINGS.get(kind)


def _positive_input(graph: Graph, node_id: str) -> list | None:
    """Find the link to the positive conditioning of a sampler, through its guider if it has one."""
    inputs = graph[node_id].get("inputs", {})
    guider = inputs.get("guider")
    if _is_link(guider):
        inputs = graph.get(str(guider[0]), {}).get("inputs", {})
    return next((inputs[name] for name in _POSITIVE if _is_link(inputs.get(name))), None)


def _entries(graph: Graph, link: list, depth: int) -> list[Entry] | None:
    """Follow a CONDITIONING output to its entries; None where its node is not known."""
    node = graph.get(str(link[0]))
    if node is None or depth > _MAX_DEPTH:
        return None
    kind, inputs = node.get("class_type", ""), node.get("inputs", {})

    def entries(name: str | None) -> list[Entry] | None:
        return _entries(graph, inputs[name], depth + 1) if _is_link(inputs.get(name)) else None

    if kind in _ENCODERS:
        texts = {encoder: _value(graph, inputs.get(name), depth) for encoder, name in _ENCODERS[kind].items()}
        are_known = all(isinstance(text, str) for text in texts.values())
        return [(EncodedText(texts, exact=True) if are_known else None,)]
    if kind == "ConditioningCombine":
        first, second = entries("conditioning_1"), entries("conditioning_2")
        return None if first is None or second is None else first + second
    if kind == "ConditioningConcat":
        first, second = entries("conditioning_to"), entries("conditioning_from")
        return None if not first or not second else [entry + second[0] for entry in first]
    if kind == "ConditioningAverage":  # the tokens of the one, changed a little by the other
        return entries("conditioning_to")
    if kind == "ConditioningZeroOut":
        return None
    if _is_link(inputs.get("clip")):  # an encoding node of another pack, or of another family of models
        texts = _texts_of(graph, kind, inputs, depth)
        return [(EncodedText(texts, exact=False) if texts else None,)]
    return entries(_passed_through(kind, link[1], inputs))


def _texts_of(graph: Graph, kind: str, inputs: dict, depth: int) -> dict[str, str]:
    """Read the texts of an encoding node: its inputs of type STRING, not its choices; {} unless all are known."""
    kinds = _input_kinds(_node_class(kind))
    values = {name: _value(graph, value, depth) for name, value in inputs.items() if kinds.get(name) == "STRING"}
    return values if all(isinstance(value, str) for value in values.values()) else {}


def _passed_through(kind: str, output: int, inputs: dict) -> str | None:
    """Find the conditioning input that a node only adds to: named as its output, or the only one."""
    node = _node_class(kind)
    if node is None:
        return None
    kinds = _input_kinds(node)
    conditionings = [name for name, each in kinds.items() if each == "CONDITIONING" and _is_link(inputs.get(name))]
    names = getattr(node, "RETURN_NAMES", None) or node.RETURN_TYPES
    if output < len(names) and names[output] in conditionings:
        return names[output]
    return conditionings[0] if len(conditionings) == 1 else None


def _input_kinds(node: Any) -> dict[str, Any]:
    """Name the type of each input that a node's class declares; {} for no class."""
    declared = {} if node is None else node.INPUT_TYPES()
    return {name: spec[0] for group in ("required", "optional") for name, spec in declared.get(group, {}).items()}


def _value(graph: Graph, value: Any, depth: int) -> Any:
    """Return a widget's value, or the output of a text node of ComfyUI; None if it is not known."""
    if not _is_link(value):
        return value
    node = graph.get(str(value[0]), {})
    kind = node.get("class_type", "")
    if remembered := _remembered.get(_made_of(graph, value[0])):
        return remembered[value[1]]
    maker = _node_class(kind) if kind in _TEXT_NODES else None
    if maker is None or depth > _MAX_DEPTH:
        return None
    inputs = {name: _value(graph, link, depth + 1) for name, link in node.get("inputs", {}).items()}
    if None in inputs.values():
        return None
    return maker.execute(**inputs).result[value[1]]


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)
