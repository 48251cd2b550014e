"""Relate, a ComfyUI node pack. Imports nothing at load: ComfyUI, pytest and training all import this file."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Return the extension that lists the nodes; ComfyUI calls this once (V3 registration)."""
    from .nodes import RelateExtension

    return RelateExtension()
