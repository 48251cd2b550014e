"""Noise, targets and clean latents: inverse of each other, and equal to a computation by hand."""

import pytest
import torch

from training.diffusion.ddim import sample, sampling_timesteps, seeded_noise
from training.diffusion.noise_schedule import PREDICTIONS, NoiseSchedule, denoising_loss


@pytest.fixture(params=PREDICTIONS)
def schedule(request):
    return NoiseSchedule("flow") if request.param == "flow" else NoiseSchedule.of_betas(request.param)


def drawn(seed=0, batch=5):
    generator = torch.Generator().manual_seed(seed)
    latents, noise = (torch.randn(batch, 4, 6, 6, generator=generator) for _ in range(2))
    return latents, noise, torch.tensor([1, 100, 333, 700, 999])[:batch]


def test_a_perfect_prediction_gives_the_clean_latents(schedule):
    latents, noise, t = drawn()
    noisy = schedule.add_noise(latents, noise, t)
    torch.testing.assert_close(schedule.clean(noisy, schedule.target(latents, noise, t), t), latents, atol=2e-4, rtol=0)


def test_sdxl_alphas_are_the_published_ones():
    alphas = NoiseSchedule.of_betas("epsilon").alphas
    assert alphas[200] == pytest.approx(0.75369173, abs=1e-6)
    assert alphas[333] == pytest.approx(0.53496188, abs=1e-6)
    assert (1 - alphas[999]) / alphas[999] == pytest.approx(214, abs=1)


def test_by_hand():
    schedule = NoiseSchedule("v", (0.64,) * 1000)
    latents, noise, t = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 5.0), torch.tensor([7])
    assert schedule.add_noise(latents, noise, t).item() == pytest.approx(0.8 * 2 + 0.6 * 5)
    assert schedule.target(latents, noise, t).item() == pytest.approx(0.8 * 5 - 0.6 * 2)
    snr = 0.64 / 0.36
    assert schedule.min_snr_weight(t, 1.0).item() == pytest.approx(1 / (snr + 1))
    assert NoiseSchedule("epsilon", (0.64,) * 1000).min_snr_weight(t, 1.0).item() == pytest.approx(1 / snr)
    assert NoiseSchedule("epsilon", (0.64,) * 1000).min_snr_weight(t, 5.0).item() == pytest.approx(1)
    flow = NoiseSchedule("flow")
    assert flow.add_noise(latents, noise, torch.tensor([250])).item() == pytest.approx(0.75 * 2 + 0.25 * 5)
    assert flow.target(latents, noise, t).item() == 3


def test_the_loss_is_a_mean_per_picture():
    predicted = torch.stack((torch.zeros(2, 3, 3), torch.full((2, 3, 3), 2.0)))
    assert denoising_loss(predicted, torch.zeros(2, 2, 3, 3)).tolist() == [0, 4]


def test_sampling_with_a_perfect_network_finds_the_picture(schedule):
    latents, _, _ = drawn(batch=2)
    noise = seeded_noise([1, 2], latents.shape[1:])

    def perfect(noisy, t):
        clean_factor, noise_factor = schedule.signal(t)
        if schedule.prediction == "flow":
            return (noisy - latents) / noise_factor
        implied = (noisy - clean_factor * latents) / noise_factor
        return schedule.target(latents, implied, t)

    torch.testing.assert_close(sample(perfect, schedule, noise, 7), latents, atol=2e-3, rtol=0)
    assert sampling_timesteps(4) == [999, 749, 499, 249]


def test_leading_steps_end_with_the_noise_of_timestep_0_as_sdxls_scheduler_does():
    schedule = NoiseSchedule.of_betas("epsilon")
    latents, noise = (seeded_noise([seed], (4, 4, 4)) for seed in (0, 1))

    def perfect(noisy, t):
        clean_factor, noise_factor = schedule.signal(t)
        return (noisy - clean_factor * latents) / noise_factor

    last = sample(perfect, schedule, noise, 10, "leading")
    clean_factor, noise_factor = schedule.signal(torch.tensor([0]))
    assert float(noise_factor) > 0.02
    assert float((last - clean_factor * latents).std()) == pytest.approx(float(noise_factor), rel=0.3)
    assert sampling_timesteps(4, "leading") == [751, 501, 251, 1]


def test_each_row_of_noise_belongs_to_its_seed():
    assert torch.equal(seeded_noise([3, 4], (4, 8, 8))[1], seeded_noise([4], (4, 8, 8))[0])


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="expected one of epsilon, v, flow, got 'x'"):
        NoiseSchedule.of_betas("x")
    with pytest.raises(ValueError, match="expected scaled_linear or linear, got 'cosine'"):
        NoiseSchedule.of_betas("v", spacing="cosine")
