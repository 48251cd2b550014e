"""References on a running server: the graph to a saved picture, the cache, cancelling, and what the log says."""

import io

import pytest
from PIL import Image

from tests.host.api_graphs import GRAPHS, for_test, node
from tests.host.test_graphs import change, digest

NONE = {f"{name}_lora": "none" for name in ("dreamo", "cfg_distill", "quality_pos", "quality_neg", "sft", "dpo")}
STRENGTHS = {
    "dreamo_strength": 1.0,
    "cfg_distill_strength": 1.0,
    "quality_pos_strength": 0.15,
    "quality_neg_strength": -0.8,
    "sft_strength": 1.0,
    "dpo_strength": 1.25,
}
PROMPT = "a corgi from [ref#1] and a fox from [ref#2] in the park"


@pytest.fixture
def routed() -> dict:
    """Two references in their halves, routed and recorded."""
    return {
        "base": node("RelateTestFlux", weights_seed=1),
        "dreamo": node("RelateDreamOLoader", model=["base", 0], clip=["base", 1], embeddings="embedding.safetensors",
                       preset="custom", turbo=False, turbo_lora="none", **NONE, **STRENGTHS),
        "photo": node("LoadImage", image="subject.png"),
        "left": node("SolidMask", value=1.0, width=64, height=64),
        "corgi": node("RelateReference", image=["photo", 0], vae=["base", 2], task="subject", resolution=256,
                      weight=1.0, region=["left", 0]),
        "fox": node("RelateReference", image=["photo", 0], vae=["base", 2], task="try-on", resolution=256, weight=0.8,
                    mask=["photo", 1], region=["half", 0], references=["corgi", 0], slot=2),
        "white": node("SolidMask", value=1.0, width=32, height=64),
        "black": node("SolidMask", value=0.0, width=64, height=64),
        "half": node("MaskComposite", destination=["black", 0], source=["white", 0], x=32, y=0, operation="add"),
        "positive": node("CLIPTextEncode", clip=["dreamo", 1], text=PROMPT),
        "negative": node("CLIPTextEncode", clip=["dreamo", 1], text=""),
        "latent": node("EmptySD3LatentImage", width=192, height=128, batch_size=1),
        "sample": node("RelateRoutingSampler", model=["dreamo", 0], positive=["positive", 0],
                       negative=["negative", 0], latent_image=["latent", 0], references=["fox", 0], seed=1, steps=2,
                       cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0, routing_strength=3.0,
                       start_at=0.0, end_at=1.0, record="maps"),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["base", 2]),
        "preview": node("RelateRoutingPreview", routing_map=["sample", 1], reference=2, image=["decode", 0]),
        "save": node("SaveImage", images=["preview", 0], filename_prefix="flux"),
        "digest": node("RelateTestDigest", samples=["sample", 0]),
    }  # fmt: skip


@pytest.fixture
def routed_whole(routed) -> dict:
    """LoadImage's own mask is empty without transparency: the fox keeps its background instead."""
    del routed["fox"]["inputs"]["mask"]
    return routed


def test_the_graph_runs_to_a_saved_picture(comfy_server, routed_whole):
    run = comfy_server.run(routed_whole)
    digest(run)
    assert Image.open(io.BytesIO(comfy_server.images(run)[-1])).size == (192, 128)
    assert "reads placeholders as plain text" not in comfy_server.log


def test_the_same_graph_twice_runs_nothing_and_another_seed_encodes_nothing(comfy_server, routed_whole):
    comfy_server.run(routed_whole)
    assert comfy_server.run(routed_whole).executed == frozenset()
    run = comfy_server.run(change(routed_whole, "sample", seed=7))
    assert run.executed == {"sample", "digest", "decode", "preview", "save"}


def test_routing_0_is_apply_references_and_ksampler_bit_for_bit(comfy_server, routed_whole):
    ours = digest(comfy_server.run(change(routed_whole, "sample", routing_strength=0.0)))
    stock = {key: value for key, value in routed_whole.items() if key not in ("decode", "preview", "save")}
    stock["apply"] = node("RelateApplyReferences", model=["dreamo", 0], positive=["positive", 0], references=["fox", 0])
    stock["sample"] = node(
        "KSampler",
        model=["apply", 0],
        positive=["apply", 1],
        negative=["negative", 0],
        latent_image=["latent", 0],
        seed=1,
        steps=2,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )
    assert digest(comfy_server.run(stock)) == ours


def test_an_empty_mask_names_the_reference_on_its_node(comfy_server, routed):
    run = comfy_server.run(routed)
    assert run.status != "success" and "RelateReference" in run.error
    assert "reference 2: mask: expected some of the picture to keep (white), got an empty mask" in run.error


def test_the_log_says_which_clip_to_connect_and_which_reference_is_missing(comfy_server, routed_whole):
    digest(comfy_server.run(change(routed_whole, "positive", clip=["base", 1])))
    assert "reads placeholders as plain text. Connect the CLIP of Load DreamO" in comfy_server.log
    digest(comfy_server.run(change(routed_whole, "positive", text="a corgi from [ref#1], [ref#2] and [ref#5]")))
    assert "the prompt names [ref#5], but no reference has that slot (there are: 1, 2)" in comfy_server.log


def test_a_controlnet_beside_references_acts_and_lets_them_act(comfy_server):
    graph = for_test(GRAPHS / "flux_dreamo_controlnet.json")
    sampler = next(node_id for node_id, value in graph.items() if value["class_type"] == "KSampler")
    control = next(node_id for node_id, value in graph.items() if value["class_type"] == "ControlNetApplyAdvanced")
    reference = next(node_id for node_id, value in graph.items() if value["class_type"] == "RelateReference")
    graph["digest"] = node("RelateTestDigest", samples=[sampler, 0])
    both, alone, other = (
        digest(comfy_server.run(each))
        for each in (graph, change(graph, control, strength=0.0), change(graph, reference, weight=0.5))
    )
    assert len({both, alone, other}) == 3


def test_a_lora_of_a_deeper_flux_is_refused_on_its_node(comfy_server, routed_whole):
    run = comfy_server.run(change(routed_whole, "dreamo", dreamo_lora="dreamo.safetensors"))
    assert run.status != "success" and run.error.startswith("RelateDreamOLoader")
    assert "6 of 12 pairs found their weights in this model; it has no diffusion_model.double_blocks.1" in run.error


def test_cancelling_mid_run_leaves_nothing_behind(comfy_server, routed_whole):
    whole = digest(comfy_server.run(routed_whole))
    slow = {**routed_whole, "slow": node("RelateTestSlowModel", model=["dreamo", 0], seconds=0.5)}
    slow = change(slow, "sample", steps=60, model=["slow", 0])
    prompt_id = comfy_server.queue(slow)
    comfy_server.wait_for_step(prompt_id, 60)
    comfy_server.interrupt()
    assert comfy_server.wait(prompt_id, slow).status == "interrupted"
    comfy_server.free()
    assert digest(comfy_server.run(routed_whole)) == whole
