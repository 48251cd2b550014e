"""Parity of the two hosts on the golden UNet, before and after the identity branch is attached."""

import pytest
import torch

from tests.host.golden_unet import GoldenUNet


@pytest.fixture(scope="module")
def golden():
    return GoldenUNet()


def test_unpatched_comfyui_and_diffusers_agree(golden, tiny):
    """The measure for everything after it: what two hosts differ by when nothing is attached."""
    with torch.inference_mode():
        ours = golden.comfyui_eps(golden.in_comfyui(tiny))
        theirs = golden.in_diffusers()(
            golden.latent, golden.timesteps, golden.text, added_cond_kwargs=golden.added_conditions()
        ).sample
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (theirs - golden.eps).abs().max() > 1e-2  # the published answer has the branch in it
