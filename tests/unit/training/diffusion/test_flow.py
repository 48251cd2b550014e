"""Flow matching's times and weights: densities as they are published, losses in each other's units."""

import pytest
import torch

from training.diffusion.flow import add_noise, clean_of, euler, loss_weight, sample_times, shift_of, shifted
from training.diffusion.noise_schedule import NoiseSchedule

GATE = 0.4825


def drawn(density, **options):
    return sample_times(density, 40000, torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize(
    ("density", "shift", "below", "median"),
    [
        ("uniform", 1.0, 0.48, 0.50),
        ("logit_normal", 1.0, 0.47, 0.50),
        ("shift", 1.88, 0.24, 0.65),
        ("shift", 3.16, 0.11, 0.76),
    ],
)
def test_how_often_the_keypoint_gate_is_open(density, shift, below, median):
    times = drawn(density, shift=shift)
    assert ((times > 0) & (times < 1)).all()
    assert float((times <= GATE).float().mean()) == pytest.approx(below, abs=0.01)
    assert float(times.median()) == pytest.approx(median, abs=0.01)


def test_the_gate_has_the_noise_of_sdxl_at_333():
    alpha = NoiseSchedule.of_betas("epsilon").alphas[333]
    assert 1 / (1 + (alpha / (1 - alpha)) ** 0.5) == pytest.approx(GATE, abs=1e-4)


def test_the_shift_follows_the_picture_as_flux_does():
    assert shift_of(1024) == pytest.approx(1.88, abs=0.01) and shift_of(4096) == pytest.approx(3.16, abs=0.01)
    assert torch.equal(shifted(torch.tensor([0.0, 0.3, 1.0]), 1.0), torch.tensor([0.0, 0.3, 1.0]))


def test_weights_make_the_velocitys_loss_another_predictions():
    generator = torch.Generator().manual_seed(0)
    clean, noise, wrong = (torch.randn(5, 4, 2, 2, generator=generator) for _ in range(3))
    times = torch.linspace(0.1, 0.9, 5)
    noisy = add_noise(clean, noise, times)
    velocity = noise - clean + wrong  # a prediction and its error
    errors = wrong.square().mean(dim=(1, 2, 3))
    of_clean = (clean_of(noisy, velocity, times) - clean).square().mean(dim=(1, 2, 3))
    noise_implied = noisy + (1 - times).view(-1, 1, 1, 1) * velocity
    of_noise = (noise_implied - noise).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss_weight(times, "x0") * errors, of_clean)
    torch.testing.assert_close(loss_weight(times, "epsilon") * errors, of_noise)
    snr = ((1 - times) / times) ** 2
    torch.testing.assert_close(loss_weight(times, "min_snr", 5.0), (1 - times) ** 2 * snr.clamp(max=5.0) / snr)
    assert loss_weight(torch.zeros(1), "min_snr").item() == 0 and loss_weight(times, "none").tolist() == [1] * 5


def test_euler_follows_a_straight_path_exactly():
    noise, clean = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    for steps, shift in ((1, 1.0), (5, 3.0)):
        torch.testing.assert_close(euler(lambda x, t: noise - clean, noise, steps, shift), clean, atol=1e-5, rtol=1e-5)


def test_unknown_names_are_refused():
    for call in (lambda: drawn("cosine"), lambda: loss_weight(torch.ones(1), "v")):
        with pytest.raises(ValueError, match="expected one of"):
            call()
    with pytest.raises(ValueError, match="at least 1 step"):
        euler(lambda x, t: x, torch.zeros(1), 0)
