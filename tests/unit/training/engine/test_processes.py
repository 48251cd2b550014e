"""How long the processes of a run wait for each other."""

from datetime import timedelta

from training.config import TrainConfig
from training.engine.processes import open_accelerator


def test_the_others_wait_while_one_process_encodes_a_large_set():
    accelerator = open_accelerator(TrainConfig(device="cpu"), half=False)
    assert accelerator.init_handler.timeout >= timedelta(days=1)  # accelerate's own: 10 minutes on a GPU
