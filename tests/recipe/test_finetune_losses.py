"""The losses and gradients of a training step."""

import pytest
import torch

import training.engine.setup as sdxl_setup
import training.finetune as finetune
from tests.recipe.tiny_runs import config_of
from training.config import load_config
from training.data.dataset import load_triplets
from training.data.encoding_cache import encode
from training.diffusion.noise_schedule import NoiseSchedule
from training.engine import objective as relation
from training.host_diffusers import relation_parameters, set_relation
from training.host_diffusers.frozen import open_frozen_models

CPU = torch.device("cpu")


@pytest.fixture
def parts(world):
    """A method attached to the tiny base, its encoded triplets and a fixed evaluation batch."""

    def build(**tables):
        config = load_config(config_of(world, **tables))
        frozen = open_frozen_models(config.models)
        crops = encode(load_triplets(config.data, config.relation), config, frozen, CPU, torch.float32, lambda _: None)
        unet = frozen.base.unet(torch.float32)
        objective = relation.attach(unet, frozen.base.schedule, config, frozen.identity_config is not None)
        recipe = finetune.load_run_spec(config, CPU, 1, False)
        return objective, crops, sdxl_setup.project_identity(recipe, crops, unet)

    return build


def evaluate(objective, crops, identity):
    """The losses on the same 12 noisy pictures."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(3).repeat_interleave(4)
    noise = torch.randn((12, *crops.latents.shape[1:]), generator=generator)
    timesteps = torch.tensor([20, 150, 300, 600]).repeat(3)
    return objective(crops.take(rows), identity.take(rows) if identity else None, timesteps, noise)


def test_only_the_lora_receives_gradients(parts):
    objective, crops, identity = parts(loss="attention_weight = 0.001\nattention_max_cells = 64")
    with torch.no_grad():
        for name, parameter in relation_parameters(objective.unet).items():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    losses = evaluate(objective, crops, identity)
    own = {id(parameter) for parameter in relation_parameters(objective.unet).values()}
    for name in ("denoise", "keypoint", "attention", "loss"):
        objective.zero_grad()
        losses[name].backward(retain_graph=True)
        for parameter in objective.parameters():
            if id(parameter) not in own:
                assert parameter.grad is None
        touched = [p for p in objective.parameters() if p.grad is not None and p.grad.any()]
        assert len(touched) == len(own) if name != "attention" else touched
    assert not crops.latents.requires_grad
    total = losses["denoise"] + 1e-3 * losses["keypoint"] + 1e-3 * losses["attention"]
    torch.testing.assert_close(losses["loss"], total)


def test_the_losses_are_those_of_a_computation_by_hand(parts):
    objective, crops, identity = parts()
    set_relation(objective.unet, True)
    losses = evaluate(objective, crops, identity)
    generator = torch.Generator().manual_seed(1)
    rows, noise = torch.arange(3).repeat_interleave(4), torch.randn((12, *crops.latents.shape[1:]), generator=generator)
    timesteps = torch.tensor([20, 150, 300, 600]).repeat(3)
    alphas = torch.tensor(NoiseSchedule.of_betas("epsilon").alphas)
    batch, denoise, keypoint = crops.take(rows), [], []
    for i in range(12):
        a = alphas[timesteps[i]]
        noisy = a.sqrt() * batch.latents[i] + (1 - a).sqrt() * noise[i]
        said = objective._predict(
            noisy[None],
            timesteps[i : i + 1],
            batch.take(slice(i, i + 1)),
            relation.CrossAttentionExtras(identity.take(rows[i : i + 1])),
        )[0]
        denoise.append(((said - noise[i]) ** 2).mean())
        clean = (noisy - (1 - a).sqrt() * said) / a.sqrt()
        apart = []
        for subject in range(2):
            for joint in range(17):
                if batch.visible[i, subject, joint]:
                    x, y = (batch.keypoints_target[i, subject, joint] * 8).long().clamp(max=7).tolist()
                    u, v = (batch.keypoints_concepts[i, subject, joint] * 8).long().clamp(max=7).tolist()
                    apart.append(((clean[:, y, x] - batch.concept_latents[i, subject, :, v, u]) ** 2).sum())
        keypoint.append(torch.stack(apart).mean() if timesteps[i] <= 333 else torch.tensor(0.0))
    torch.testing.assert_close(losses["denoise"], torch.stack(denoise).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses["keypoint"], torch.stack(keypoint).mean(), atol=1e-4, rtol=1e-4)


def test_losses_fall_on_a_fixed_batch(parts):
    objective, crops, identity = parts(loss="keypoint_weight = 1e-2")
    parameters = list(relation_parameters(objective.unet).values())
    optimizer = torch.optim.AdamW(parameters, lr=2e-2)
    before = {name: loss.item() for name, loss in evaluate(objective, crops, identity).items()}
    for _ in range(15):
        evaluate(objective, crops, identity)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    after = {name: loss.item() for name, loss in evaluate(objective, crops, identity).items()}
    assert after["denoise"] < before["denoise"]
    assert after["keypoint"] < before["keypoint"]


def test_gradient_checkpointing_changes_no_gradient(parts):
    found = []
    for flag in ("false", "true"):
        objective, crops, identity = parts(
            train=f"gradient_checkpointing = {flag}", loss="attention_weight = 0.01\nattention_max_cells = 64"
        )
        evaluate(objective, crops, identity)["loss"].backward()
        found.append([parameter.grad for parameter in relation_parameters(objective.unet).values()])
    for once, twice in zip(*found):
        torch.testing.assert_close(once, twice, atol=1e-6, rtol=1e-4)


def test_the_released_losses_run_with_their_error(parts):
    objective, crops, identity = parts(loss='keypoint_form = "as_released"\nkeypoint_weight = 0.1')
    released = evaluate(objective, crops, identity)["keypoint"]
    objective, crops, identity = parts()
    assert not torch.isclose(released, evaluate(objective, crops, identity)["keypoint"] / 4)
