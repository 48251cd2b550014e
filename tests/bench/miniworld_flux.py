"""What a picture of the small Flux costs with references steered and not: calls of the model, processor seconds.

python -m tests.bench.miniworld_flux
"""

from __future__ import annotations

import time

import torch

from training.common.cli import say
from training.host_diffusers.miniworld.flux_files import INDEX_FOLDER
from training.miniworld.experiments.generate import request_of
from training.miniworld.experiments.generate_flux import STEERING, FluxWorld, generate, generate_per_subject
from training.miniworld.experiments.measure_flux import A_PASS_EACH
from training.miniworld.world.relations import SEEN
from training.miniworld.world.triplets import evaluation_plans

PICTURES = 5


def main() -> None:
    torch.set_num_threads(1)
    world = FluxWorld.shipped(INDEX_FOLDER)
    requests = [request_of(evaluation_plans(SEEN[index], 1, index)[0], 0, index) for index in range(PICTURES)]
    calls: list[int] = []
    world.flux.register_forward_hook(lambda *_: calls.append(1))
    for name in (*STEERING, A_PASS_EACH):
        calls.clear()
        seconds = []
        for request in requests:
            began = time.process_time()
            if name == A_PASS_EACH:
                generate_per_subject(world, request, 0)
            else:
                generate(world, request, 0, STEERING[name])
            seconds.append(time.process_time() - began)
        say(f"{name}: {len(calls) // PICTURES} calls, {sorted(seconds)[PICTURES // 2]:.2f} processor seconds a picture")


if __name__ == "__main__":
    main()
