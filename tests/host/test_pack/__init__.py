"""A test-only node pack: the tiny models of `tiny.py` as loaders, so that graphs run on a real server offline."""


async def comfy_entrypoint():
    """Called once by ComfyUI (V3 registration)."""
    from .loaders import RelateTestExtension

    return RelateTestExtension()
