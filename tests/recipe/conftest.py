"""One thread, as tensors this small make more threads wait for each other; the tiny models of finetune's tests."""

import pytest
import torch

from tests.recipe.tiny_recipe import write_all


@pytest.fixture(autouse=True)
def _one_thread():
    """Before each test: a command that ran in this process may have set its own number, and sums depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def world(tiny_root, tmp_path):
    """Its own output, the shared models, data and cache."""
    for name in ("base", "models", "data"):
        (tmp_path / name).symlink_to(tiny_root / name)
    return tmp_path
