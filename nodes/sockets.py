"""Our custom sockets, and the schema helpers that keep one source for old and new ComfyUI."""

import dataclasses

from comfy_api.latest import io

RelateScene = io.Custom("RELATE_SCENE")
RelateIdentityModel = io.Custom("RELATE_IDENTITY_MODEL")
RelateIdentity = io.Custom("RELATE_IDENTITY")
RelateReferences = io.Custom("RELATE_REFERENCES")
RelateRoutingMap = io.Custom("RELATE_ROUTING_MAP")
RelateSubjectAdapter = io.Custom("RELATE_SUBJECT_ADAPTER")
# ComfyUI 0.15 brought the box socket, 0.27 the editor that feeds it; before that the name alone connects.
BoundingBox = getattr(io, "BoundingBox", None) or io.Custom("BOUNDING_BOX")
Array = getattr(io, "Array", None) or io.Custom("ARRAY")
PoseKeypoint = io.Custom("POSE_KEYPOINT")  # OpenPose frames, as SDPose and the preprocessors of ControlNet give them

_KNOWN = {field.name for field in dataclasses.fields(io.Schema)}


def schema(**fields) -> io.Schema:
    """Make a node's schema without the fields that this ComfyUI lacks (``search_aliases`` before 0.11)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})


def advanced(widget: io.Input) -> io.Input:
    """Put an input behind "show advanced inputs", in a frontend that has that; older ones show it."""
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget
