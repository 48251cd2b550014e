"""Keep References in Place on a running server: core's own nodes around it, the map after the sampler, the cache."""

import io

import pytest
from PIL import Image

from tests.host.api_graphs import node
from tests.host.test_graphs import change, digest


@pytest.fixture
def graph() -> dict:
    """Two references by Reference Latent, KSampler, and the map of the second laid over the finished picture."""
    return {
        "base": node("RelateTestFlux", weights_seed=1),
        "photo": node("LoadImage", image="subject.png"),
        "flipped": node("ImageInvert", image=["photo", 0]),
        "one": node("VAEEncode", pixels=["photo", 0], vae=["base", 2]),
        "two": node("VAEEncode", pixels=["flipped", 0], vae=["base", 2]),
        "text": node("CLIPTextEncode", clip=["base", 1], text="a corgi and a fox in the park"),
        "first": node("ReferenceLatent", conditioning=["text", 0], latent=["one", 0]),
        "second": node("ReferenceLatent", conditioning=["first", 0], latent=["two", 0]),
        "corgi": node("RelateSubject", image=["photo", 0], name="corgi", x0=0.0, y0=0.0, x1=0.5, y1=1.0, weight=1.0),
        "fox": node("RelateSubject", image=["flipped", 0], name="fox", x0=0.5, y0=0.0, x1=1.0, y1=1.0, weight=1.0,
                    scene=["corgi", 0]),
        "keep": node("RelateReferenceRegions", model=["base", 0], positive=["second", 0], scene=["fox", 0],
                     strength=20.0, isolation=0.0, start_at=0.0, end_at=1.0, record="maps"),
        "latent": node("EmptySD3LatentImage", width=192, height=128, batch_size=1),
        "sample": node("KSampler", model=["keep", 0], positive=["keep", 1], negative=["keep", 2],
                       latent_image=["latent", 0], seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="simple",
                       denoise=1.0),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["base", 2]),
        "preview": node("RelateRoutingPreview", routing_map=["keep", 3], reference=2, image=["decode", 0]),
        "mask": node("MaskToImage", mask=["preview", 1]),
        "save": node("SaveImage", images=["mask", 0], filename_prefix="regions"),
        "digest": node("RelateTestDigest", samples=["sample", 0]),
    }  # fmt: skip


def test_the_map_of_the_picture_that_was_drawn(comfy_server, graph):
    run = comfy_server.run(graph)
    digest(run)
    picture = Image.open(io.BytesIO(comfy_server.images(run)[-1])).convert("L")
    assert picture.size == (192, 128)
    assert picture.crop((0, 0, 88, 128)).getextrema() == (0, 0)  # the fox acts on the right only
    assert picture.crop((104, 0, 192, 128)).getextrema()[1] == 255
    assert comfy_server.run(graph).executed == frozenset()
    again = comfy_server.run(change(graph, "sample", seed=7))  # the same node, another run: a map of its own
    assert again.executed == {"sample", "decode", "preview", "mask", "save", "digest"}


def test_strength_0_is_core_s_own_picture_bit_for_bit(comfy_server, graph):
    off = change(graph, "keep", strength=0.0, record="off")
    for name in ("preview", "mask", "save"):
        del off[name]
    ours = digest(comfy_server.run(off))
    core = {name: each for name, each in off.items() if name not in ("keep", "corgi", "fox")}
    core["zero"] = node("ConditioningZeroOut", conditioning=["second", 0])
    core = change(core, "sample", model=["base", 0], positive=["second", 0], negative=["zero", 0])
    assert digest(comfy_server.run(core)) == ours
