"""Regions of references on a token grid: what is steered when, how firmly, and what a new run forgets."""

import copy

import pytest
import torch

from core.routing.call_layout import CallLayout
from core.routing.reference_bias import HARD
from core.routing.reference_regions import ReferenceRegions
from core.routing.routing_map import Recorder

LEFT = torch.zeros(4, 8)
LEFT[:, :4] = 1.0
LAYOUT = CallLayout(9, (2, 2), (1, 5), ((0, 1),), (((5, 9),),))


@pytest.mark.parametrize(("fields", "steers"), [
    ({"strength": 2.0}, True), ({"strength": 2.0, "regions": (None,)}, False), ({}, False), ({"isolation": 1.0}, True),
    ({"strength": 2.0, "regions": (LEFT, None), "weights": (1.0, 1.0)}, True),
    ({"strength": 2.0, "window": (0.5, 0.5)}, False), ({"isolation": 1.0, "window": (0.6, 0.5)}, False),
    ({"weights": (1.0, 0.5), "regions": (None, None)}, True),
    ({"weights": (0.5,), "window": (0.5, 0.5)}, True), ({"weights": (1.0,)}, False),
])  # fmt: skip
def test_what_is_steered(fields, steers):
    fields = {"regions": (LEFT,), "weights": (1.0,)} | fields
    assert ReferenceRegions(**fields).steers is steers


def test_outside_the_window_weights_alone_act():
    fields = ReferenceRegions((LEFT,), (0.5,), 3.0, 2.0, copies_are_pictures=False)
    inside, outside = (fields.steering((2, 2), None, None, now) for now in (True, False))
    assert (inside.strength, inside.isolation, inside.weights) == (3.0, 2.0, (0.5,))
    assert torch.equal(inside.regions[0], torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert outside.regions == (None,) and outside.isolation == 0 and outside.weights == (0.5,)
    assert (
        not inside.copies_are_pictures
        and ReferenceRegions((), ()).steering((1, 1), None, None, True).copies_are_pictures
    )


def test_from_20_nats_on_a_border_is_closed():
    def nats(strength, isolation):
        steering = ReferenceRegions((LEFT,), (1.0,), strength, isolation).steering((2, 2), None, None, True)
        return steering.strength, steering.isolation

    assert nats(20.0, 19.9) == (HARD, 19.9) and nats(19.9, 25.0) == (19.9, HARD)


@pytest.mark.parametrize("area", [(2, 4, 2, 2), (1, 2, 4, 0, 2, 2)], ids=["of a picture", "with a time axis"])
@pytest.mark.parametrize("scale", [1, 2], ids=["on the latent's own grid", "drawn larger"])
def test_a_part_of_the_picture_sees_its_part_of_a_region(area, scale):
    """Rows 2 and 3, columns 2 to 5 of a latent of 4 x 8."""
    region = torch.zeros(4, 8)
    region[2, 2:4], region[3, 3], region[0], region[:, 6:] = 1.0, 1.0, 1.0, 1.0
    region = region.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    fields = ReferenceRegions((region,), (1.0,), 2.0)
    on_grid = fields.steering((2, 2), area, (4, 8), True).regions[0]
    assert torch.equal(on_grid, torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    whole = fields.steering((4, 8), None, (4, 8), True).regions[0]
    assert torch.equal(whole, fields.steering((4, 8), (4, 8, 0, 0), None, True).regions[0]) and whole[0].all()


def test_a_part_in_the_middle_has_four_edges():
    region = (torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    fields = ReferenceRegions((region, None), (1.0, 1.0), 2.0)
    found = fields.steering((1, 2), (2, 4, 1, 1), (4, 8), True).regions
    assert torch.equal(found[0], region[1:3, 1:5].reshape(2, 2, 2).mean(dim=(0, 2))[None]) and found[1] is None


def test_an_attention_is_made_once_for_each_call_that_differs():
    fields = ReferenceRegions((LEFT,), (1.0,), 2.0)
    made = fields.attention(LAYOUT, (0, 9))
    assert made is fields.attention(LAYOUT, (0, 9)) and made is not None
    assert fields.attention(LAYOUT, (0, 5)) is not made and fields.attention(LAYOUT, (0, 9), device="meta") is not made
    with pytest.raises(ValueError, match="a weight and a region for each of 1 references, got 2 and 1"):
        ReferenceRegions((LEFT,), (1.0, 1.0), 2.0).attention(LAYOUT, (0, 9))


def test_a_new_run_forgets_the_one_before():
    fields = ReferenceRegions((LEFT,), (1.0,), 2.0, recorder=Recorder())
    made = fields.attention(LAYOUT, (0, 9))
    fields.warnings.add("said")
    fields.own_latents[(1,)] = (0,)
    fields.recorder.take([torch.ones(1, 1, 2, 2)], 1)
    fields.begin()
    assert not fields.warnings and not fields.own_latents and fields.recorder.result((1,)) is None
    assert fields.attention(LAYOUT, (0, 9)) is not made
    ReferenceRegions((LEFT,), (1.0,)).begin()  # without a recorder as well


def test_clones_share_it():
    fields = ReferenceRegions((LEFT,), (1.0,))
    assert copy.deepcopy([fields])[0] is fields
