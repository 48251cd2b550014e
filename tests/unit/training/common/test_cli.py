"""A command stops when it is asked to, wherever the signal catches it."""

import gc
import os
import signal

import pytest

from training.common import cli


class Interrupted:
    """Asks its own process to stop while Python drops exceptions."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10))  # the handler runs between two instructions, in here


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_a_finaliser_swallows_is_raised_at_the_next_step(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_stopped_at", -1e9)
    steps = []

    def run():
        for step in range(3):
            cli.stop_if_asked()
            steps.append(step)
            lost = Interrupted()
            del lost
            gc.collect()

    assert cli.command(run) == 143
    assert steps == [0] and "Stopped" in capsys.readouterr().err


def test_a_command_begins_without_the_stop_of_the_one_before(monkeypatch):
    monkeypatch.setattr(cli, "_stopped_at", -1e9)
    assert cli.command(lambda: os.kill(os.getpid(), signal.SIGINT)) == 130
    assert cli.command(cli.stop_if_asked) == 0
