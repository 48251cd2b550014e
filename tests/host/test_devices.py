"""Pictures and masks on different devices, told by tensors that have a device and no memory.

A GPU is not needed: torch's fake tensors follow each operation's device and stop where two do not agree.
"""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICES = ("cpu", "cuda:0")


@pytest.fixture
def fake():
    """Tensors of any device; what is asked of their values is true."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


@pytest.mark.parametrize(("image_device", "mask_device"), list(itertools.product(DEVICES, DEVICES)))
@pytest.mark.parametrize("mask_size", [(40, 60), (20, 30)], ids=["same size", "other size"])
def test_photographs_and_masks_come_to_one_device(pack, fake, image_device, mask_device, mask_size):
    convert = pack.module("nodes.pipelines.subject_images")._convert
    photographs, mask = convert(
        torch.empty(2, 40, 60, 3, device=image_device), torch.empty(1, *mask_size, device=mask_device)
    )
    assert photographs.device == mask.device == torch.device("cpu")
    assert photographs.shape == (2, 3, 40, 60) and mask.shape == (2, 40, 60)


@pytest.mark.parametrize("device", DEVICES)
def test_an_alpha_channel_and_a_flat_mask(pack, fake, device):
    convert = pack.module("nodes.pipelines.subject_images")._convert
    photographs, mask = convert(torch.empty(1, 8, 8, 4, device=device), None)
    assert photographs.device == mask.device == torch.device("cpu")
    assert convert(torch.empty(1, 8, 8, 3), torch.empty(8, 8, device=device))[1].device == torch.device("cpu")


@pytest.mark.parametrize(("image_device", "mask_device"), list(itertools.product(DEVICES, DEVICES)))
def test_what_is_cut_out_and_resized_is_on_one_device(pack, fake, image_device, mask_device):
    """As Reference Image prepares it."""
    convert = pack.module("nodes.pipelines.subject_images")._convert
    images = pack.module("core.routing.image_prep")
    photographs, mask = convert(
        torch.empty(1, 40, 60, 3, device=image_device), torch.empty(1, 40, 60, device=mask_device)
    )
    picture = images.resize(images.on_white(photographs[0], mask[0]), 32, 48)
    assert picture.shape == (3, 32, 48) and picture.device == torch.device("cpu")


@pytest.mark.parametrize("device", DEVICES)
def test_regions_come_to_the_cpu(pack, fake, monkeypatch, device):
    """Of Reference Image and of Keep References in Place; what is asked of a region's values is not known here."""
    monkeypatch.setattr(torch, "isfinite", lambda tensor: torch.ones(1, dtype=torch.bool, device="meta").new_ones(()))
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: True)
    region = pack.module("nodes.pipelines.add_reference")._region(torch.empty(1, 16, 24, device=device), "reference 1")
    assert region.device == torch.device("cpu") and region.shape == (16, 24)
    regions = pack.module("nodes.pipelines.reference_regions").regions_of(torch.empty(2, 16, 24, device=device), 2)
    assert {each.device for each in regions} == {torch.device("cpu")}


def test_heat_maps_over_a_picture_on_the_gpu(pack, fake, monkeypatch):
    module = pack.module("nodes.pipelines.routing_previews")
    monkeypatch.setattr(module, "heat_masks", lambda maps, size: maps)  # its threshold reads values
    maps = SimpleNamespace(maps=torch.empty(1, 1, 8, 12), slots=(1,))
    heat, _ = module.preview(maps, 1, torch.empty(1, 128, 192, 3, device="cuda:0"))
    assert heat.shape == (1, 128, 192, 3) and heat.device == torch.device("cpu")


def test_a_mask_of_no_numbers_is_a_fault(studio):
    from tests.host.pictures import photograph

    with pytest.raises(ValueError, match="subject 'corgi': mask: expected numbers in .0, 1., got NaN or infinity"):
        studio.scene({"name": "corgi", "image": photograph(8, 8), "mask": torch.full((1, 8, 8), float("nan"))})
