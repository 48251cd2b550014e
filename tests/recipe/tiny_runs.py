"""Runs of python -m training.finetune on the tiny models: their config, and steps that are interrupted."""

import training.finetune as finetune
from tests.recipe.tiny_recipe import write_config


def config_of(world, name="c.toml", folder="out", cache=None, **tables):
    path = write_config(world / name, world, **tables)
    path.write_text(path.read_text().replace('/out"', f'/{folder}"'))
    return str(path)


class Crash(Exception):
    """Stands for whatever ends a process between two steps."""


def interrupt_at(monkeypatch, at, error):
    """The step number ``at`` ends in ``error``."""
    honest = finetune.one_step

    def one_step(model, optimizer, parameters, crops, identity, step, *rest):
        if step == at:
            raise error
        return honest(model, optimizer, parameters, crops, identity, step, *rest)

    monkeypatch.setattr(finetune, "one_step", one_step)
    return lambda: monkeypatch.setattr(finetune, "one_step", honest)
