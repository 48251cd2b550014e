"""What references, maps and steering cost: python -m tests.bench.routing [--size small|full]

One random-weight Flux, the same inputs, two references. Ways take turns: plain Flux with as many tokens (reference
latents without embeddings); ours; the published hook written out again (``published_flux.py``); ours with maps; and
steering in its three forms, soft and hard. Ratios are medians over the rounds of the ratio within a round, so a machine
whose speed drifts does not matter; on a busy one the ratio of each way's fastest round says more. ``--size full`` is
FLUX.1 itself (12 B parameters, 1024 x 1024, references of 512 x 512; for a GPU); ``small`` has 6 blocks of 3 heads at
512 x 512 with references of 256 x 256. Results are printed as a table and, with ``--write``, kept in
tests/bench/results/routing.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tests.bench.hosts import _load_pack
from tests.bench.identity import chip, in_turn, peak_bytes, ratio
from tests.bench.published_flux import published_step
from tests.host.comfyui import find_comfyui

RESULTS = Path(__file__).parent / "results" / "routing.json"
WIDTHS = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
    "mlp_ratio": 4.0, "num_heads": 24, "depth": 19, "depth_single_blocks": 38, "axes_dim": [16, 56, 56],
    "guidance_embed": True,
}  # fmt: skip
SIZES = {
    "small": (WIDTHS | {"hidden_size": 384, "num_heads": 3, "depth": 2, "depth_single_blocks": 4,
                        "context_in_dim": 256}, 64, 32),
    "full": (WIDTHS, 128, 64),
}  # fmt: skip
TEXT = 256
GOALS = {"ours / plain": 1.00, "ours / published": 1.00, "maps / ours": 1.05}


def _fused_attention() -> None:
    """ComfyUI's choice on a GPU, also on a CPU: else steering would be measured against a slower kernel."""
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("No ComfyUI here: set COMFYUI_PATH to its folder.")
    sys.path.insert(0, str(comfyui))
    importlib.import_module("comfy.cli_args").args.use_pytorch_cross_attention = True


class Flux:
    """One call of a Flux with two references, in every way."""

    def __init__(self, size: str, device: torch.device, dtype: torch.dtype) -> None:
        widths, side, small_side = SIZES[size]
        _fused_attention()
        pack = _load_pack()
        tiny = importlib.import_module("tests.host.test_pack.tiny")
        self.seam = importlib.import_module(f"{pack}.nodes.host_comfy.flux.wrapper")
        self.core = {name: importlib.import_module(f"{pack}.core.routing.{name}")
                     for name in ("token_layout", "routing", "routing_map", "attention_bias")}
        with torch.device(device):
            torch.set_default_dtype(dtype)
            self.model = tiny.model("flux", unet=widths, dtype=dtype).model.to(device)
            torch.set_default_dtype(torch.float32)
        draw = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw).to(device, dtype)

        self.widths, self.dtype, self.device = widths, dtype, device
        self.x, self.context = random(1, 16, side, side).float(), random(1, TEXT, widths["context_in_dim"])
        self.y, self.guidance = random(1, widths["vec_in_dim"]), torch.full((1,), 3.5, device=device, dtype=dtype)
        self.latents = [random(1, 16, small_side, small_side) for _ in range(2)]
        width = widths["hidden_size"]
        self.tables = self.core["token_layout"].Tables(random(2, width), random(10, width))
        self.sigma = torch.full((1,), 0.7, device=device)
        grid = self.core["token_layout"].token_grid(side, side)
        left = torch.zeros(grid)
        left[:, : grid[1] // 2] = 1.0
        self.regions = (left, 1 - left)
        self.sequence = self.core["token_layout"].Sequence(TEXT, grid, (self.core["condition"].token_grid(
            small_side, small_side),) * 2)

    def _apply(self, options: dict | None = None, **conds) -> Tensor:
        return self.model.apply_model(self.x, self.sigma, c_crossattn=self.context, y=self.y, guidance=self.guidance,
                                      ref_latents=self.latents, ref_latents_method="uxo",
                                      transformer_options=dict(options or {}), **conds)

    def plain(self) -> Tensor:
        """As many tokens, nothing of ours."""
        return self._apply()

    def ours(self, recorder=None, attention=None) -> Tensor:
        """Through the wrapper; with an attention, its override as the steered sampler installs it."""
        references = tuple(self.core["token_layout"].Reference(latent.cpu().float(), "subject", slot)
                           for slot, latent in enumerate(self.latents, start=1))
        routing = self.core["routing"].Routing(references, self.tables, recorder=recorder)
        options = {"wrappers": {"apply_model": {self.seam.KEY: [self.seam.apply_references]}}}
        if attention is not None:
            options["optimized_attention_override"] = self.seam.Override(self.sequence, attention, None, slice(None),
                                                                         None)
        return self._apply(options, **{self.seam.KEY: (routing, None)})

    def maps(self) -> Tensor:
        blocks = self.widths["depth"] + self.widths["depth_single_blocks"]
        return self.ours(recorder=self.core["routing_map"].Recorder(blocks))

    def published(self) -> Tensor:
        network = self.model.diffusion_model
        out = published_step(network, self.x.to(self.dtype), self.model.model_sampling.timestep(self.sigma).float(),
                             self.context, self.y, self.guidance, self.latents, self.tables.task, self.tables.index)
        return self.model.model_sampling.calculate_denoised(self.sigma, out.float(), self.x)

    def steered(self, strength: float) -> dict[str, Callable[[], Tensor]]:
        """The forms that say this steering exactly."""
        steering = self.core["attention_bias"]
        made = steering.Steering(strength, 0.0, (1.0, 1.0), self.regions)
        bias = steering.bias_of(made, self.sequence)
        head = self.widths["hidden_size"] // self.widths["num_heads"]
        groups = steering.Groups.of(bias)
        forms = self.core["routing"].Attention.of(bias.to(self.device), head, self.dtype)
        matrix = forms.bias.dense(self.dtype)
        ways = {"matrix": lambda q, k, v, _: steering.attend_dense(q, k, v, matrix),
                "channels": lambda q, k, v, _: steering.attend_channels(q, k, v, forms.channels)}
        if groups is not None:
            groups = groups.to(self.device)
            ways["groups"] = lambda q, k, v, _: steering.attend_groups(q, k, v, groups)
        return {name: lambda form=form: self.ours(attention=form) for name, form in ways.items()}

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        found = {"plain": self.plain, "ours": self.ours, "published": self.published, "maps": self.maps}
        for word, strength in (("soft", 3.0), ("hard", self.core["attention_bias"].HARD)):
            found |= {f"{word} {form}": way for form, way in self.steered(strength).items()}
        return found


@torch.inference_mode()
def measure(size: str, dtype: torch.dtype, rounds: int) -> dict:
    """Ratios of step times, differences of results, and memory where torch counts it."""
    flux = Flux(size, torch.device("cuda" if torch.cuda.is_available() else "cpu"), dtype)
    ways = flux.ways()
    difference = (flux.ours() - flux.published()).abs().max().item()
    seconds = in_turn(ways, rounds)
    pairs = [("ours", "plain"), ("ours", "published"), ("maps", "ours")]
    pairs += [(name, "ours") for name in ways if name.startswith(("soft", "hard"))]
    return {
        "tokens": flux.sequence.size, "plain_step_s": statistics.median(seconds["plain"]),
        "ratios": {f"{over} / {under}": ratio(seconds, over, under) for over, under in pairs},
        "largest_difference_ours_published": difference,
        "peak_bytes": {name: peak_bytes(way) for name, way in ways.items()},
    }


def table(found: dict) -> str:
    """For people."""
    lines = [f"{found['tokens']} tokens, plain step {found['plain_step_s'] * 1000:.1f} ms; largest difference of ours "
             f"and the published step {found['largest_difference_ours_published']:g}"]
    for name, value in found["ratios"].items():
        goal = f"  goal {GOALS[name]:.2f}" if name in GOALS else ""
        lines.append(f"{name:24} {value['median']:.3f} ({value['least']:.3f} to {value['most']:.3f}), fastest "
                     f"{value['fastest']:.3f}{goal}")
    if any(found["peak_bytes"].values()):
        lines.append("peak memory beyond the model: " + ", ".join(
            f"{name} {size / 2**20:.0f} MiB" for name, size in found["peak_bytes"].items()))
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="full" if torch.cuda.is_available() else "small")
    options.add_argument("--dtype", choices=("float32", "bfloat16"),
                         default="bfloat16" if torch.cuda.is_available() else "float32")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--write", action="store_true", help=f"keep the numbers in {RESULTS.name}")
    chosen = options.parse_args()
    found = measure(chosen.size, getattr(torch, chosen.dtype), chosen.rounds)
    title = f"{chip()}, torch {torch.__version__}, {chosen.size}, {chosen.dtype}"
    sys.stdout.write(f"{title}\n{table(found)}\n")
    if chosen.write:
        RESULTS.parent.mkdir(exist_ok=True)
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(kept | {title: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
