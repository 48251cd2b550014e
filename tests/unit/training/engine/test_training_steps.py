"""The pure parts of the loop: draws, rates, the optimiser's state, settled files, the progress line."""

import sys

import pytest
import torch

from training.common.cli import Progress, TrainingAborted, clock, command, say
from training.common.errors import UserErrors
from training.config import TrainConfig
from training.engine.batch import sample_batch
from training.engine.optim import build_optimizer, learning_rate_at, optimizer_tensors, restore_optimizer
from training.engine.plots import loss_chart


def test_draws_are_functions_of_seed_and_step():
    one, same, other = (
        sample_batch(3, 7, 8, 5, (4, 8, 8)),
        sample_batch(3, 7, 8, 5, (4, 8, 8)),
        sample_batch(3, 8, 8, 5, (4, 8, 8)),
    )
    assert torch.equal(one.noise, same.noise) and torch.equal(one.rows, same.rows)
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(sample_batch(1, 23, 8, 5, (1,)).noise, sample_batch(12, 3, 8, 5, (1,)).noise)
    assert one.noise.shape == (8, 4, 8, 8)
    assert int(one.rows.max()) < 5 and 0 <= int(one.timesteps.min()) <= int(one.timesteps.max()) < 1000
    assert torch.equal(torch.cat((one.part(0, 3).noise, one.part(3, 8).noise)), one.noise)


def test_a_batch_of_eight_is_eight_with_two_crops():
    rows = torch.cat([sample_batch(0, step, 8, 2, (1,)).rows for step in range(50)])
    assert len(rows) == 400
    assert 150 < int(rows.sum()) < 250


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 2 / 3, 1 / 3]),
        ("cosine", [0.25, 0.5, 0.75, 1, 0.75, 0.25]),
    ],
)
def test_rates(schedule, expected):
    config = TrainConfig(steps=6, lr=1.0, warmup_steps=3, schedule=schedule)
    assert [learning_rate_at(step, config) for step in range(6)] == pytest.approx(expected)


def trained(parameter, optimizer, steps):
    for step in range(steps):
        parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
        optimizer.step()


def test_a_restored_optimiser_goes_on_to_the_same_bits():
    config = TrainConfig(lr=0.1)
    one, two = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    first = build_optimizer([one], config)
    trained(one, first, 2)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(first).items()}
    two.data.copy_(one.data)
    second = build_optimizer([two], config)
    restore_optimizer(second, kept)
    trained(one, first, 3)
    trained(two, second, 3)
    assert torch.equal(one, two)


def test_eight_bits_are_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserErrors, match="needs the package bitsandbytes"):
        build_optimizer([torch.nn.Parameter(torch.ones(1))], TrainConfig(optimizer="adamw_8bit"))


def test_progress_is_one_line_a_second(capsys):
    progress = Progress(10, 20)
    assert not progress.due(11)
    assert progress.due(20)
    progress.started -= 5
    progress.tell(15, {"loss": 0.123456}, 1e-4)
    line = capsys.readouterr().out
    assert line.startswith("step 15/20  loss 0.1235  lr 1.00e-04  1.00 steps/s  0:05 left")
    assert [clock(seconds) for seconds in (5, 65, 3700)] == ["0:05", "1:05", "1:01:40"]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (None, 0, ""),
        (UserErrors(["a", "b"]), 2, "2 faults:\n  1. a\n  2. b\n"),
        (UserErrors("a"), 2, "a\n"),
        (TrainingAborted("why"), 1, "why\n"),
        (KeyboardInterrupt(), 130, "Stopped; the same command begins again.\n"),
        (
            PermissionError(13, "Permission denied", "x.png"),
            1,
            "Reading or writing failed: [Errno 13] Permission denied: 'x.png'. Mend that, and start the same command "
            "again.\n",
        ),
    ],
)
def test_exit_codes(capsys, error, code, text):
    def run():
        say("working")
        if error:
            raise error

    assert command(run) == code
    assert capsys.readouterr().err == text


class _Added(float):
    """A number that counts how often one is added."""

    count = 0

    def __add__(self, other):
        _Added.count += 1
        return _Added(float(self) + other)

    __radd__ = __add__


def test_a_long_run_is_drawn_in_as_many_sums_as_it_has_steps():
    loss_chart({"loss": [_Added(1 / (step + 1)) for step in range(2000)]})
    assert _Added.count < 4 * 2000
