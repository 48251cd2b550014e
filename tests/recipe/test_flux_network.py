"""FLUX.1 and FLUX.2 with references on diffusers: positions, sites, what a LoRA may touch."""

import pytest
import torch
from diffusers import Flux2KleinPipeline

from core.checkpoint import save
from core.relation.flux_lora import flux_state
from tests.recipe.tiny_flux import inputs, network, transformer
from training.host_diffusers import set_relation
from training.host_diffusers.flux.architectures import PUBLISHED, empty_transformer, name_of
from training.host_diffusers.flux.attention import attend_plain, hook_attention
from training.host_diffusers.flux.lora import (
    SITES,
    attach_lora,
    merged,
    pairs_of,
    read_with_diffusers,
    site_modules,
)
from training.host_diffusers.flux.network import FluxNetwork
from training.host_diffusers.flux.tokens import four_axes, reference_ids
from training.host_diffusers.miniworld.flux import IndexedFlux
from training.host_diffusers.miniworld.flux_files import load_flux

PARAMETERS = {
    "flux1-dev": 11_901_408_320,
    "klein-4b": 3_875_544_576,
    "klein-9b": 9_078_581_248,
    "flux2-dev": 32_223_281_152,
}
RANK_4 = {  # millions, section 3.1 of the facts; S, QK and Tm are of FLUX.1 and Klein 4B
    "flux1-dev": {"T": 1.87, "Tkv": 0.93, "Tm": 4.20, "I": 1.87, "QK": 3.74, "S": 5.60, "DS": 9.34},
    "klein-4b": {"T": 0.49, "Tkv": 0.25, "Tm": 1.17, "I": 0.49, "QK": 0.49, "S": 3.69, "DS": 4.67},
    "klein-9b": {"T": 1.05, "Tkv": 0.52, "I": 1.05, "DS": 8.00},
    "flux2-dev": {"T": 1.57, "Tkv": 0.79, "I": 1.57, "DS": 20.8},
}
LINEARS = {("flux1-dev", "T"): 76, ("flux1-dev", "DS"): 304, ("klein-4b", "T"): 20, ("klein-4b", "DS"): 80}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes_have_their_numbers_of_parameters_and_sites(name):
    empty = empty_transformer(PUBLISHED[name])
    assert sum(parameter.numel() for parameter in empty.parameters()) == PARAMETERS[name]
    assert name_of(PUBLISHED[name], kontext=False) == name
    for sites, millions in RANK_4[name].items():
        modules = site_modules(empty, sites)
        numbers = 4 * sum(sum(empty.get_submodule(module).weight.shape) for module in modules)
        assert numbers / 1e6 == pytest.approx(millions, abs=0.006 if millions < 10 else 0.06)
        assert LINEARS.get((name, sites), len(modules)) == len(modules)
    assert name_of(PUBLISHED["kontext"], kontext=True) == "kontext"


def test_dreamos_own_lora_has_its_published_number():
    modules = site_modules(empty_transformer(PUBLISHED["flux1-dev"]), "DS")
    empty = empty_transformer(PUBLISHED["flux1-dev"])
    assert 128 * sum(sum(empty.get_submodule(module).weight.shape) for module in modules) == 298_844_160


def test_the_miniworlds_flux_is_one_of_them():
    model = load_flux()
    ours = FluxNetwork(model.transformer, "uxo", model.rows(), torch.float32)
    generator = torch.Generator().manual_seed(0)
    latents, *references = (torch.randn(1, 16, 16, 16, generator=generator) for _ in range(3))
    text = torch.randn(1, 24, 128, generator=generator), torch.randn(1, 128, generator=generator)
    with torch.no_grad():
        for given in (references, None):
            arguments = (latents, torch.tensor([0.4]), *text, given)
            assert torch.equal(model(*arguments), ours(*arguments[:4], given or []))


def test_the_miniworlds_numbered_flux_is_one_of_them():
    torch.manual_seed(0)
    model = IndexedFlux().eval()
    ours = FluxNetwork(model.transformer, "index", None, torch.float32)
    latents, *references = (torch.randn(1, 16, 16, 16) for _ in range(3))
    arguments = (latents, torch.tensor([0.4]), torch.randn(1, 24, 128), torch.randn(1, 128), references)
    with torch.no_grad():
        assert torch.equal(model(*arguments), ours(*arguments))


def test_positions_are_those_of_diffusers_and_of_the_tiling_rule():
    grids = [(3, 4), (2, 2)]
    latents = [torch.zeros(1, 8, *grid) for grid in grids]
    theirs = Flux2KleinPipeline._prepare_image_ids(latents)[0].float()
    assert torch.equal(four_axes(reference_ids("index", (5, 5), grids, 10)), theirs)
    diagonal = reference_ids("uxo", (5, 6), grids)
    assert diagonal[0].tolist() == [0, 5, 6] and diagonal[12].tolist() == [0, 8, 10]
    tiled = reference_ids("offset", (5, 6), [(2, 4), (2, 4), (8, 2)])
    # beside the shorter side of what stands: the second below the first, the third right of both
    assert [tiled[at].tolist() for at in (0, 8, 16)] == [[1, 0, 0], [1, 2, 0], [1, 0, 4]]
    with pytest.raises(ValueError, match="expected one of uxo, index, offset"):
        reference_ids("kontext", (1, 1), grids)


@pytest.mark.parametrize("generation", [1, 2])
def test_hooked_attention_is_diffusers_own(generation):
    net, given = network(generation), inputs(generation)
    with torch.no_grad():
        plain = net(**given)
        assert hook_attention(net.transformer) == 5
        torch.testing.assert_close(net(**given, attend=attend_plain), plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("generation", [1, 2])
def test_dropped_reference_tokens_leave_the_others_where_they_are(generation):
    """All kept is the call without a choice; none of the second kept is the first alone."""
    net, given = network(generation), inputs(generation)
    first, second = (each.shape[-1] * each.shape[-2] // net.patch**2 for each in given["references"])
    with torch.no_grad():
        whole = net(**given)
        assert torch.equal(net(**given, token_index=torch.arange(first + second)), whole)
        alone = {**given, "references": given["references"][:1]}
        torch.testing.assert_close(net(**given, token_index=torch.arange(first)), net(**alone), atol=1e-6, rtol=0)
        assert not torch.equal(net(**given, token_index=torch.arange(3, first + second)), whole)


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("sites", SITES)
def test_a_lora_is_on_its_sites_alone(generation, sites, tmp_path):
    net, given = network(generation), inputs(generation)
    with torch.no_grad():
        plain = net(**given)
    parameters = attach_lora(net.transformer, sites, 2, 4.0, torch.Generator().manual_seed(0))
    modules = site_modules(net.transformer, sites)
    assert list(parameters) == [f"{module}.{half}" for module in modules for half in ("down", "up")]
    trained = {id(parameter) for parameter in net.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in parameters.values()}
    with torch.no_grad():
        assert torch.equal(net(**given), plain)  # up is zero
        for index, parameter in enumerate(parameters.values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
        learnt = net(**given)
    assert not torch.allclose(learnt, plain)
    set_relation(net.transformer, False)
    with torch.no_grad():
        assert torch.equal(net(**given), plain)
    pairs = pairs_of(parameters, 4.0)
    save(tmp_path / "lora.safetensors", flux_state(pairs), {})
    assert read_with_diffusers(str(tmp_path / "lora.safetensors"), net.transformer, pairs) == len(modules)
    bare = network(generation)
    with torch.no_grad():
        with merged(bare.transformer, pairs):
            torch.testing.assert_close(bare(**given), learnt, atol=1e-5, rtol=0)
        assert torch.equal(bare(**given), plain)


@pytest.mark.parametrize(("sites", "same"), [("T", True), ("DS", False)])
def test_site_t_leaves_what_references_are_made_of(sites, same):
    """Their keys in the first block do not change; a LoRA on all attention changes them."""
    model, given, seen = transformer(1), inputs(1), []
    net = FluxNetwork(model, "uxo", None, torch.float32)
    hook_attention(model)

    def attend(query, key, value):
        seen.append(key[:, :, 5 + 24 :].clone())
        return attend_plain(query, key, value)

    parameters = attach_lora(model, sites, 2, 2.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        net(**given, attend=attend)
        for parameter in parameters.values():
            parameter.add_(0.3)
        net(**given, attend=attend)
    assert torch.equal(seen[0], seen[5]) == same
