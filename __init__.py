"""Relate, a ComfyUI node pack. Imports nothing at load: ComfyUI, pytest and training all import this file."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called once by ComfyUI (V3 registration): returns the extension that lists the nodes."""
    from .nodes import RelateExtension

    return RelateExtension()
