"""What the miniworld's recipes are made of: the optimiser, the loop, the distillation's regions, the counting."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("resvg_py")
pytest.importorskip("diffusers")

from training.engine.clipself import GRIDS, grid_boxes, region_vectors
from training.engine.muon import Muon, _on_matrix, orthogonalised
from training.engine.timed_loop import TrainerConfig, fit, load_ema_weights
from training.host_diffusers.clipself import letterbox
from training.miniworld.experiments.measure import Share, measure
from training.miniworld.recipes.classifiers import CROP, Classifiers, crop_boxes
from training.miniworld.recipes.labelled_scenes import FUSED, RELATIONS, TRAITS, trait_row
from training.miniworld.world.triplets import evaluation_plans


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonalised_has_singular_values_near_one(shape):
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
    assert 0.6 < values.min() and values.max() < 1.3


@pytest.mark.parametrize("shape", [(3, 8, 40), (40, 8), (24, 400)])
def test_the_short_way_on_the_gram_matrix_is_the_long_way(shape):
    """Also where singular values differ a thousandfold, as gradients' do."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    matrix = u * torch.logspace(0, -3, values.shape[-1]) @ v
    wide = matrix.mT if shape[-2] > shape[-1] else matrix
    direct = _on_matrix(wide / wide.norm(dim=(-2, -1), keepdim=True))
    short = orthogonalised(matrix)
    assert torch.allclose(short.mT if shape[-2] > shape[-1] else short, direct, atol=2e-3)


def test_muon_fits_a_small_net_and_leaves_the_frozen_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 3))
    net[0].bias.requires_grad_(False)
    before = net[0].bias.clone()
    x = torch.randn(64, 4)
    y = torch.sin(2 * x[:, :3])
    optimiser = Muon(net, lr=0.02)
    losses = []
    for _ in range(150):
        loss = (net(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert torch.equal(before, net[0].bias)


def steps_of(optimiser, parameters, count=3):
    """The parameters after some steps on the same gradients."""
    for step in range(count):
        for number, parameter in enumerate(parameters):
            generator = torch.Generator().manual_seed(10 * step + number)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()
    return [parameter.detach() for parameter in parameters]


def test_on_matrices_muon_is_torchs():
    """To the rounding of torch's bfloat16 iterations."""
    start = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Linear(40, 24, bias=False), nn.Parameter(start.clone())
    ours.weight.data.copy_(start)
    (mine,) = steps_of(Muon(ours, 0.02, 0.1), [ours.weight])
    (torchs,) = steps_of(torch.optim.Muon([theirs], 0.02, 0.1, adjust_lr_fn="match_rms_adamw"), [theirs])
    moved, wanted = mine - start, torchs - start
    assert torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), 0) > 0.999
    assert float(moved.norm() / wanted.norm()) == pytest.approx(1, abs=0.02)


def test_vectors_and_plain_matrices_are_trained_by_torchs_adamw():
    torch.manual_seed(0)
    ours = nn.Linear(6, 4)
    theirs = [nn.Parameter(ours.weight.detach().clone()), nn.Parameter(ours.bias.detach().clone())]
    groups = [{"params": [theirs[0]], "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0.0}]
    mine = steps_of(Muon(ours, 0.01, 0.1, adamw_params=("weight",)), [ours.weight, ours.bias])
    for a, b in zip(mine, steps_of(torch.optim.AdamW(groups, 0.01, (0.9, 0.99)), theirs), strict=True):
        assert torch.equal(a, b)


def linear_run(folder, steps, until=None, cooldown=0.0):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)

    def loss(step, generator):
        x = torch.randn(8, 3, generator=generator)
        return {"loss": (model(x) - x[:, :2]).square().mean()}

    settings = TrainerConfig("linear", steps, 8, 0.01, warmup_steps=2, cooldown=cooldown)
    return fit(settings, model, loss, folder, torch.device("cpu"), 1, until)


def test_stopping_and_resuming_changes_nothing(tmp_path):
    linear_run(tmp_path / "whole", 9)
    for stop in (4, 9):
        state = linear_run(tmp_path / "parts", stop)
    assert state.step == 9 and state.samples == 72
    whole, parts = load_ema_weights(tmp_path / "whole")[0], load_ema_weights(tmp_path / "parts")[0]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 1, "older checkpoints are dropped"


def test_stopping_inside_a_cooldown_changes_nothing(tmp_path):
    linear_run(tmp_path / "whole", 10, cooldown=0.5)
    assert linear_run(tmp_path / "parts", 10, until=7, cooldown=0.5).step == 7
    assert linear_run(tmp_path / "parts", 10, cooldown=0.5).step == 10
    whole, parts = load_ema_weights(tmp_path / "whole")[0], load_ema_weights(tmp_path / "parts")[0]
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_the_learning_rate_warms_up_stays_and_cools_down():
    rates = [TrainerConfig("a", 10, 1, 1.0, warmup_steps=2, cooldown=0.4).learning_rate(step) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert [TrainerConfig("a", 4, 1, 1.0, warmup_steps=2).learning_rate(step) for step in range(4)] == [0.5, 1, 1, 1]


def test_no_minutes_left_still_saves_a_whole_state(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    settings = TrainerConfig("none", 5, 1, 0.01)
    state = fit(settings, model, lambda step, generator: {"loss": model.weight.sum()}, tmp_path, torch.device("cpu"), 0)
    assert state.step == 0 and load_ema_weights(tmp_path)[1]["step"] == 0


def test_a_missing_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the recipe"):
        load_ema_weights(tmp_path)


def test_the_references_24_grids():
    assert len(GRIDS) == 24 and (1, 1) in GRIDS and (6, 6) in GRIDS and (1, 3) not in GRIDS
    for seed in range(30):
        boxes = grid_boxes(np.random.default_rng(seed))
        assert 1 <= len(boxes) <= 20 and boxes.min() >= 0 and boxes.max() <= 1
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_region_vectors_are_plain_means_on_whole_cells_and_areas_on_cut_ones():
    dense = torch.arange(16.0).view(1, 4, 4)
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 1], [0, 0, 0.375, 0.25]])
    found = region_vectors(dense, boxes)[:, 0]
    assert torch.allclose(found, torch.tensor([dense[0, :2, :2].mean(), dense.mean(), (0 + 0.5 * 1) / 1.5]))


def test_letterbox_keeps_the_shape_in_the_middle():
    boxed = letterbox(torch.ones(3, 10, 20), 40)
    assert boxed.shape == (3, 40, 40)
    assert boxed[:, 10:30].min() > 0.99 and boxed[:, :10].max() == 0 and boxed[:, 30:].max() == 0


def test_a_crop_of_the_whole_picture_is_the_picture():
    images = torch.rand(1, 3, CROP, CROP, generator=torch.Generator().manual_seed(0))
    crops, areas = crop_boxes(images, torch.tensor([[[0.0, 0, 1, 1]]]), margin=0.0)
    assert torch.allclose(crops, images, atol=1e-5) and torch.equal(areas, torch.tensor([[0.0, 0, 1, 1]]))


def test_wilson_interval():
    share = Share.of(90, 100)
    assert (
        share.value == 0.9
        and share.low == pytest.approx(0.8256, abs=1e-3)
        and share.high == pytest.approx(0.9448, abs=1e-3)
    )
    assert Share.of(0, 10).low == 0 and Share.of(10, 10).high == pytest.approx(1)
    with pytest.raises(ValueError, match="at least one"):
        Share.of(0, 0)


class Oracle(Classifiers):
    """Says what it is told, whatever it sees."""

    def __init__(self, relations, traits):
        super().__init__()
        self.said, self.looks = relations, traits

    def relation(self, images):
        return nn.functional.one_hot(self.said, len(RELATIONS) + 1).float()

    def identity(self, crops):
        logits = {
            name: nn.functional.one_hot(self.looks[:, i], len(values)).float()
            for i, (name, values) in enumerate(TRAITS.items())
        }
        return logits, torch.zeros(len(crops), 17, 2)


@pytest.mark.parametrize("swapped", [False, True])
def test_measure_counts_right_looks_swapped_looks_and_fused_bodies(swapped):
    plans = evaluation_plans("standing next to", 3, 0)
    looks = torch.tensor([[trait_row(traits) for traits in plan.cast] for plan in plans])
    said = torch.tensor([RELATIONS.index("standing next to")] * 2 + [FUSED])
    drawn = looks.flip(1) if swapped else looks
    result = measure(Oracle(said, drawn.flatten(0, 1)), torch.zeros(3, 3, 128, 128), plans)
    assert result.relation.value == pytest.approx(2 / 3) and result.fused.value == pytest.approx(1 / 3)
    assert result.confusion.value == (1.0 if swapped else 0.0)
    assert result.whole.value == (0.0 if swapped else 1.0)
    assert result.emblem.value == 1.0 or swapped
