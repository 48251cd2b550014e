"""The test bed itself: the tiny SDXL samples and decodes, the server runs, caches, refuses and interrupts graphs."""

import io

import pytest
import torch
from PIL import Image

from tests.host.api_graphs import node, swap_loaders, without

OURS = ("corgi", "fox", "identity_model", "encode", "relation", "apply")


@pytest.fixture
def plain(graph):
    """The two-subject graph without our nodes."""
    return without(graph, *OURS, "vision", "photo", sample__model=["base", 0])


def test_server_runs_a_graph_and_then_takes_it_from_the_cache(comfy_server, plain):
    first, second = comfy_server.run(plain), comfy_server.run(plain)
    assert (first.status, second.status) == ("success", "success"), first.error
    assert "sample" in first.executed and not second.executed
    assert Image.open(io.BytesIO(comfy_server.images(first)[0])).size == (192, 128)


def test_same_seed_same_latent_and_another_seed_another(comfy_server, plain):
    def digest(seed):
        plain["sample"]["inputs"]["seed"] = seed
        run = comfy_server.run(plain)
        assert run.outputs["digest"]["finite"] == [True]
        return run.outputs["digest"]["digest"]

    assert digest(3) == digest(3) != digest(4)


def test_a_graph_with_an_unknown_file_is_refused_with_its_name(comfy_server, plain):
    plain["base"] = node("CheckpointLoaderSimple", ckpt_name="absent.safetensors")
    run = comfy_server.run(plain)
    assert run.status == "refused" and "absent.safetensors" in run.error


def test_interrupting_a_run_ends_it(comfy_server, plain):
    plain["slow"] = node("RelateTestSlowModel", model=["base", 0], seconds=0.5)
    plain = without(plain, sample__model=["slow", 0])
    plain["sample"]["inputs"]["steps"] = 100
    prompt_id = comfy_server.queue(plain)
    comfy_server.wait_for_step(prompt_id, 100)
    comfy_server.interrupt()
    run = comfy_server.wait(prompt_id, plain)
    assert run.status == "interrupted" and run.seconds < 30


def test_loaders_of_published_weights_are_swapped(plain):
    plain["base"] = node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors")
    assert swap_loaders(plain)["base"]["class_type"] == "RelateTestCheckpoint"
    assert plain["base"]["class_type"] == "CheckpointLoaderSimple"


def test_tiny_sdxl_listens_to_its_prompt(tiny_sdxl, comfy):
    """Guard for every other law: a model that ignores its text would make them all pass."""
    with torch.inference_mode():
        encode = [tiny_sdxl.clip.encode_from_tokens_scheduled(tiny_sdxl.clip.tokenize(text)) for text in ("a", "b")]
        latent = {"samples": torch.zeros(1, 4, 16, 24)}
        first, second = (
            comfy.common_ksampler(tiny_sdxl.model, 0, 1, 1.0, "euler", "normal", text, text, latent)[0]["samples"]
            for text in encode
        )
    assert not torch.allclose(first, second)
