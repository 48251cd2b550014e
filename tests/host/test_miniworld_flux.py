"""The miniworld's Flux is the same in both hosts, from prompt and photographs to the picture, steered and not."""

from __future__ import annotations

import types
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("resvg_py")

from core.routing.reference_bias import HARD
from tests.host.conftest import ROOT
from training.host_diffusers.miniworld.architectures import CHANNELS
from training.host_diffusers.miniworld.bundle import load_miniworld
from training.host_diffusers.miniworld.flux import IndexedFlux, RoutedFlux
from training.host_diffusers.miniworld.flux_files import load_flux, save_flux
from training.host_diffusers.miniworld.flux_text import PlaceholderWords, encode_ids
from training.miniworld.experiments.generate import request_of
from training.miniworld.experiments.generate_flux import FluxWorld, box_region, generate
from training.miniworld.world.triplets import evaluation_plans

PROMPT = "a fox [ref#1] is facing a bear [ref#2], in the snow"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniworld's own encoders beside a Flux of random weights."""
    target = tmp_path_factory.mktemp("miniworld")
    for name in ("tokenizer", "text_encoder_2", "vae"):
        (target / name).symlink_to(ROOT / "models" / "miniworld" / name)
    torch.manual_seed(0)
    model = RoutedFlux()
    for parameter in model.parameters():
        parameter.data += 0.04 * torch.randn_like(parameter)
    for table in model.tables.values():
        table.data += 0.5 * torch.randn_like(table)
    save_flux(model, target / "flux")
    numbered = IndexedFlux()
    numbered.load_state_dict(model.state_dict())
    save_flux(numbered, target / "flux_index")
    return target


@pytest.fixture(scope="module")
def ours(folder):
    """The training's side."""
    world = load_miniworld()
    return FluxWorld(load_flux(folder / "flux"), world.text_g, world.vae, PlaceholderWords())


@pytest.fixture(scope="module")
def theirs(pack, folder):
    """ComfyUI's side."""
    flux, miniworld = (pack.module(f"nodes.host_comfy.{name}") for name in ("miniworld.flux", "miniworld.sdxl"))
    with torch.inference_mode():
        return types.SimpleNamespace(
            model=flux.load_flux(folder), clip=flux.load_clip(folder), vae=miniworld.load_vae(folder)
        )


@pytest.fixture(scope="module")
def request_():
    """Two creatures, their boxes on whole tokens, pictures of the size that the model was trained with, in 8 bits."""
    request = request_of(evaluation_plans("facing", 1, 3)[0], 0)
    pictures = F.interpolate(request.references, size=(128, 128), mode="area")
    boxes = (request.boxes * 8).round() / 8  # else two drawings of a box differ in their outermost tokens
    return replace(request, references=(pictures * 255).round() / 255, boxes=boxes)


def picture_of(image):
    """(3, H, W) as ComfyUI's IMAGE."""
    return image.movedim(0, -1)[None]


def close(one, other, atol=2e-4):
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


def test_nothing_is_missing_and_what_is_gets_named(pack, folder, tmp_path):
    flux = pack.module("nodes.host_comfy.miniworld.flux")
    assert flux.missing_parts(folder) == []
    assert flux.missing_parts(tmp_path) == [
        "flux/transformer",
        "text_encoder_2",
        "vae",
        "flux/embedding.safetensors",
        "tokenizer/stock_ids.json",
    ]


def test_without_weights_the_node_says_what_makes_them(pack, monkeypatch, tmp_path):
    flux = pack.module("nodes.host_comfy.miniworld.flux")
    monkeypatch.setattr(flux.missing_parts, "__defaults__", (tmp_path, flux.DREAMO))
    made = "flux-base, then flux, then python -m training.miniworld flux-export"
    with pytest.raises(ValueError, match=f"expected the miniworld's Flux, flux/transformer.*{made}"):
        pack.run("RelateMiniworldFluxLoader")
    wanted = "flux_index/transformer, text_encoder_2, vae.*then flux --references numbered, then"
    with pytest.raises(ValueError, match=f"expected the miniworld's Flux, {wanted}"):
        pack.run("RelateMiniworldFluxLoader", variant="numbered references")


@torch.inference_mode()
def test_plain_flux_is_the_same(ours, theirs):
    draw = torch.Generator().manual_seed(0)
    noisy, time = torch.randn(2, CHANNELS, 16, 16, generator=draw), torch.tensor([0.2, 0.9])
    text, pooled = torch.randn(2, 24, 128, generator=draw), torch.randn(2, 128, generator=draw)
    close(theirs.model.model.diffusion_model(noisy, time, context=text, y=pooled), ours.flux(noisy, time, text, pooled))


@torch.inference_mode()
@pytest.mark.parametrize("prompt", [PROMPT, "a fox", ""])
def test_prompts_are_read_the_same(ours, theirs, prompt):
    ids = ours.words.ids([prompt])
    text, pooled = encode_ids(ours.text_g, ids, ours.flux.tables["words"])
    ((found, entry),) = theirs.clip.encode_from_tokens_scheduled(theirs.clip.tokenize(prompt))
    close(found, text)
    close(entry["pooled_output"], pooled)
    places = ours.words.places(ids, 2)[0].tolist()
    assert entry["relate_placeholders"] == ({1: (places[0],), 2: (places[1],)} if "ref" in prompt else {})


@torch.inference_mode()
def test_a_long_prompt_goes_on_in_a_second_chunk(theirs):
    found = theirs.clip.encode_from_tokens(theirs.clip.tokenize("a fox is facing a bear " * 6))
    assert found.shape == (1, 48, 128)


@pytest.mark.parametrize(("nats", "strength"), [(0.0, 0.0), (3.0, 3.0), (HARD, 20.0)])
def test_a_picture_is_the_same(pack, comfy, ours, theirs, request_, nats, strength):
    """From prompt and photographs: two steps with guidance, off, soft and hard."""
    references = None
    for image, box in zip(request_.references, request_.boxes):
        chain = {} if references is None else {"references": references}
        references, shown = pack.run(
            "RelateReference",
            image=picture_of(image),
            vae=theirs.vae,
            resolution=128,
            region=box_region(box)[None],
            **chain,
        )
        assert torch.equal(shown, picture_of(image))
    names, prompt = request_.names, request_.prompt
    for slot, name in enumerate(names, start=1):
        prompt = prompt.replace(name, f"{name} [ref#{slot}]", 1)
    with torch.inference_mode():
        positive, negative = (comfy.CLIPTextEncode().encode(theirs.clip, text)[0] for text in (prompt, ""))
    found = pack.run(
        "RelateRoutingSampler",
        model=theirs.model,
        positive=positive,
        negative=negative,
        latent_image={"samples": torch.zeros(1, CHANNELS, 16, 16)},
        references=references,
        seed=5,
        steps=2,
        cfg=3.0,
        routing_strength=strength,
        record="maps",
    )
    with torch.inference_mode():
        picture = theirs.vae.decode(found[0]["samples"])
    wanted = generate(ours, request_, 5, nats, steps=2, guidance=3.0)
    close(picture[0].movedim(-1, 0), wanted, atol=2e-3)
    assert found[1].slots == (1, 2) and found[1].blocks.shape == (9, 1, 2, 8, 8)


def test_references_of_another_familys_vae_are_refused(pack, comfy, theirs, request_):
    latent = torch.zeros(1, 4, 16, 16)
    reference = pack.module("core.routing.token_layout").Reference(latent, "subject", 1)
    with torch.inference_mode():
        positive = comfy.CLIPTextEncode().encode(theirs.clip, "a fox")[0]
    with pytest.raises(ValueError, match="encoded by a VAE of 4 latent channels, the model has 16"):
        pack.run("RelateApplyReferences", model=theirs.model, positive=positive, references=(reference,))


@pytest.mark.parametrize(("nats", "strength"), [(0.0, 0.0), (3.0, 3.0), (HARD, 20.0)])
def test_a_picture_of_numbered_references_is_the_same(pack, comfy, folder, ours, theirs, request_, nats, strength):
    """ComfyUI's own KSampler, references kept in place or not; the loader's model numbers references itself."""
    rooms = pack.module("nodes.host_comfy.miniworld.flux")
    variant = rooms.VARIANTS["numbered references"]
    assert rooms.missing_parts(folder, variant) == []
    with torch.inference_mode():
        model, clip = rooms.load_flux(folder, variant), rooms.load_clip(folder, variant)
        positive, negative = (comfy.CLIPTextEncode().encode(clip, text)[0] for text in (request_.prompt, ""))
        latents = [theirs.vae.encode(picture_of(image)) for image in request_.references]
    positive = [[text, {**entry, "reference_latents": latents}] for text, entry in positive]
    scene = None
    for name, image, box in zip(request_.names, request_.references, request_.boxes.tolist()):
        chain = {} if scene is None else {"scene": scene}
        edges = dict(zip(("x0", "y0", "x1", "y1"), box))
        scene = pack.run("RelateSubject", image=picture_of(image), name=name, weight=1.0, **edges, **chain)
    model, positive, negative, _ = pack.run(
        "RelateReferenceRegions",
        model=model,
        positive=positive,
        negative=negative,
        scene=scene,
        strength=strength,
        isolation=0.0,
        start_at=0.0,
        end_at=1.0,
        record="maps",
    )
    empty = {"samples": torch.zeros(1, CHANNELS, 16, 16)}
    with torch.inference_mode():
        (drawn,) = comfy.KSampler().sample(model, 5, 2, 3.0, "euler", "simple", positive, negative, empty)
        picture = theirs.vae.decode(drawn["samples"])
    world = FluxWorld(load_flux(folder / "flux_index"), ours.text_g, ours.autoencoder, ours.words)
    wanted = generate(world, request_, 5, nats, steps=2, guidance=3.0)
    close(picture[0].movedim(-1, 0), wanted, atol=2e-3)
