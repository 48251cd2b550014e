"""What references in their places cost: python -m tests.bench.routing [--model flux2|dreamo] [--size small|full]

A random-weight network of ComfyUI's own class, two references, one call of the model; ways take turns.

flux2   FLUX.2's shapes: heads of 128, text to picture 1 : 8. Plain; kept in place softly and with closed borders; with
        maps; and the way users have today, N passes: one conditioning and one reference for each subject, masked and
        combined. ``--size full`` is 24 heads and 25 blocks at 1024 x 1024; ``small`` has 6 heads and 3 blocks at 512 x
        512, where attention's share of the work is twice as large, so the ratios are those of a harder case.
        References have a quarter of the picture's pixels (512 beside 1024), and once as many as the picture.
dreamo  FLUX.1 with DreamO: plain with as many tokens; ours; the published hook written out again
        (``published_flux.py``); ours with maps; kept in place.

Ratios are medians over the rounds of the ratio within a round, and of each way's fastest round, which a busy machine
slows least; without a GPU it is the processor's time that counts. Results are printed as a table and, with
``--write``, kept in tests/bench/results/routing.json.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tests.bench.hosts import _load_pack
from tests.bench.identity import chip, in_turn, keep, peak_bytes, ratio, writing
from tests.bench.published_flux import published_step
from tests.host.comfyui import find_comfyui

RESULTS = Path(__file__).parent / "results" / "routing.json"
DREAMO = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 768,
    "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 19,
    "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": True,
}  # fmt: skip
FLUX2 = {
    "image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None,
    "context_in_dim": 7680, "hidden_size": 3072, "mlp_ratio": 3.0, "num_heads": 24, "depth": 5,
    "depth_single_blocks": 20, "axes_dim": [32, 32, 32, 32], "theta": 2000, "qkv_bias": False, "guidance_embed": False,
    "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True, "ops_bias": False,
    "default_ref_method": "index", "ref_index_scale": 10.0,
}  # fmt: skip
SIZES = {  # network, side of the picture's latent, text tokens
    ("dreamo", "small"): (DREAMO | {"hidden_size": 384, "num_heads": 3, "depth": 2, "depth_single_blocks": 4,
                                    "context_in_dim": 256}, 64, 256),
    ("dreamo", "full"): (DREAMO, 128, 256),
    ("flux2", "small"): (FLUX2 | {"hidden_size": 768, "num_heads": 6, "depth": 1, "depth_single_blocks": 2,
                                  "context_in_dim": 256}, 32, 128),
    ("flux2", "full"): (FLUX2, 64, 512),
}  # fmt: skip
GOALS = {"ours / plain": 1.00, "ours / published": 1.00, "maps / ours": 1.05, "soft / plain": 1.05,
         "hard / plain": 1.05, "soft with maps / soft": 1.02, "soft / N passes": 0.70}  # fmt: skip
STRENGTHS = {"soft": 3.0, "hard": 20.0}


def _fused_kernels() -> None:
    """ComfyUI's attention on a GPU, also on a CPU: else steering would be measured against a slower kernel.

    Triton's rotary positions stand in where comfy-kitchen was installed without its compiled ones.
    """
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("No ComfyUI here: set COMFYUI_PATH to its folder.")
    sys.path.insert(0, str(comfyui))
    arguments = importlib.import_module("comfy.cli_args").args
    arguments.use_pytorch_cross_attention = True
    arguments.enable_triton_backend = torch.cuda.is_available()


class Step:
    """One call of a Flux with two references; its first reference belongs to the left half, the other to the right."""

    def __init__(self, model: str, size: str, small_side: int, device: torch.device, dtype: torch.dtype) -> None:
        widths, side, text = SIZES[model, size]
        pack = _load_pack()
        tiny = importlib.import_module("tests.host.test_pack.tiny")
        models = importlib.import_module("comfy.supported_models")
        made = (
            tiny.model("flux", unet=widths, dtype=dtype, device=device)
            if model == "dreamo"
            else tiny.model_of(models.Flux2, widths, dtype=dtype, device=device)
        )
        self.module = lambda name: importlib.import_module(f"{pack}.{name}")
        self.model = made.model.to(device)
        draw = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw).to(device, dtype)

        self.widths, self.dtype, self.text = widths, dtype, text
        channels = widths["in_channels"]
        self.x, self.context = random(1, channels, side, side).float(), random(1, text, widths["context_in_dim"])
        self.latents = [random(1, channels, small_side, small_side) for _ in range(2)]
        self.conds = {"guidance": torch.full((1,), 3.5, device=device, dtype=dtype)}
        if widths["vec_in_dim"]:
            self.conds["y"] = random(1, widths["vec_in_dim"])
        self.tables = (random(2, widths["hidden_size"]), random(10, widths["hidden_size"]))
        self.sigma = torch.full((1,), 0.7, device=device)
        left = torch.zeros(side, side)
        left[:, : side // 2] = 1.0
        self.areas = (left, 1 - left)
        self.masks = tuple(area.to(device) for area in self.areas)

    def apply(self, latents: list[Tensor], options: dict | None = None, **conds) -> Tensor:
        return self.model.apply_model(
            self.x,
            self.sigma,
            c_crossattn=self.context,
            ref_latents=latents,
            transformer_options=dict(options or {}),
            **self.conds,
            **conds,
        )

    def plain(self) -> Tensor:
        """As many tokens, nothing of ours."""
        return self.apply(self.latents)

    @property
    def tokens(self) -> int:
        patch = self.widths["patch_size"]
        return self.text + sum(side.shape[-2] * side.shape[-1] // patch**2 for side in (self.x, *self.latents))


class NativeStep(Step):
    """References by ComfyUI's own way, kept in place by the node's wrapper."""

    def kept(self, strength: float, record: bool = False) -> Callable[[], Tensor]:
        seam = self.module("nodes.host_comfy.references.steer")
        recorder = self.module("core.routing.routing_map").Recorder() if record else None
        regions = self.module("core.routing.reference_regions").ReferenceRegions(
            self.areas, (1.0, 1.0), strength, recorder=recorder
        )
        placed = seam.Placed(regions, (0, 1), ((), ()), self.text, True)
        options = {"wrappers": {"apply_model": {seam.KEY: [seam.steer_references]}}}
        return lambda: self.apply(self.latents, options, **{seam.KEY: (placed, None, (True,))})

    def passes(self) -> Tensor:
        """Each subject's own call, masked and added as ComfyUI's sampler does it."""
        return sum(self.apply([latent]) * mask for latent, mask in zip(self.latents, self.masks))

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        found = {name: self.kept(strength) for name, strength in STRENGTHS.items()}
        return {
            "plain": self.plain,
            "N passes": self.passes,
            **found,
            "plain with maps": self.kept(0.0, True),
            "soft with maps": self.kept(STRENGTHS["soft"], True),
        }

    def pairs(self) -> list[tuple[str, str]]:
        return [
            ("soft", "plain"),
            ("hard", "plain"),
            ("soft with maps", "soft"),
            ("plain with maps", "plain"),
            ("soft", "N passes"),
            ("hard", "N passes"),
        ]


class DreamOStep(Step):
    """FLUX.1 with DreamO's rows and positions."""

    def ours(self, strength: float = 0.0, record: bool = False) -> Callable[[], Tensor]:
        seam, layout = self.module("nodes.host_comfy.flux.wrapper"), self.module("core.routing.token_layout")
        recorder = self.module("core.routing.routing_map").Recorder() if record else None
        references = tuple(
            layout.Reference(latent.cpu().float(), "subject", slot, area)
            for slot, (latent, area) in enumerate(zip(self.latents, self.areas), start=1)
        )
        embeddings = layout.DreamOEmbeddings(*self.tables)
        routing = self.module("core.routing.routing").Routing(references, embeddings, strength, recorder=recorder)
        latents = [self.model.process_latent_in(reference.latent).to(self.latents[0]) for reference in references]
        options = {"wrappers": {"apply_model": {seam.KEY: [seam.apply_references]}}}
        return lambda: self.apply(latents, options, ref_latents_method="uxo", **{seam.KEY: (routing, None, (True,))})

    def published(self) -> Tensor:
        latents = [self.model.process_latent_in(latent) for latent in self.latents]
        out = published_step(
            self.model.diffusion_model,
            self.x.to(self.dtype),
            self.model.model_sampling.timestep(self.sigma).float(),
            self.context,
            self.conds["y"],
            self.conds["guidance"],
            latents,
            *self.tables,
        )
        return self.model.model_sampling.calculate_denoised(self.sigma, out.float(), self.x)

    def ways(self) -> dict[str, Callable[[], Tensor]]:
        found = {name: self.ours(strength) for name, strength in STRENGTHS.items()}
        return {
            "plain": self.plain,
            "ours": self.ours(),
            "published": self.published,
            "maps": self.ours(record=True),
            **found,
        }

    def pairs(self) -> list[tuple[str, str]]:
        return [("ours", "plain"), ("ours", "published"), ("maps", "ours"), ("soft", "ours"), ("hard", "ours")]


@torch.inference_mode()
def measure(model: str, size: str, share: int, dtype: torch.dtype, rounds: int, only: list[str] | None = None) -> dict:
    """Ratios of step times, and memory where torch counts it.

    Args:
        share: references have 1 / share of the picture's sides.
        only: ways to compare, where two are to be told apart closely; None for all.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _fused_kernels()
    kind = {"flux2": NativeStep, "dreamo": DreamOStep}[model]
    step = kind(model, size, SIZES[model, size][1] // share, device, dtype)
    ways = {name: way for name, way in step.ways().items() if only is None or name in only}
    seconds = in_turn(ways, rounds)
    found = {
        "tokens": step.tokens,
        "step_s": {name: statistics.median(each) for name, each in seconds.items()},
        "rounds": rounds,
        "ratios": {
            f"{over} / {under}": ratio(seconds, over, under)
            for over, under in step.pairs()
            if over in ways and under in ways
        },
        "peak_bytes": {name: peak_bytes(way) for name, way in ways.items()},
    }
    if model == "dreamo" and only is None:
        found["largest_difference_ours_published"] = (ways["ours"]() - step.published()).abs().max().item()
    return found


def table(found: dict) -> str:
    """For people."""
    name, step = next(iter(found["step_s"].items()))
    lines = [f"{found['tokens']} tokens, {found['rounds']} rounds, {name} step {step * 1000:.1f} ms"]
    if "largest_difference_ours_published" in found:
        lines[0] += f"; largest difference to the published step {found['largest_difference_ours_published']:g}"
    for name, value in found["ratios"].items():
        goal = f"  goal {GOALS[name]:.2f}" if name in GOALS else ""
        lines.append(
            f"{name:26} {value['median']:.3f} ({value['least']:.3f} to {value['most']:.3f}), fastest "
            f"{value['fastest']:.3f}{goal}"
        )
    if any(found["peak_bytes"].values()):
        lines.append(
            "peak memory beyond the model: "
            + ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in found["peak_bytes"].items())
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=("flux2", "dreamo"), nargs="+", default=["flux2", "dreamo"])
    options.add_argument("--size", choices=("small", "full"), default="full" if torch.cuda.is_available() else "small")
    options.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="bfloat16" if torch.cuda.is_available() else "float32"
    )
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--ways", nargs="+", help="only these, e.g. 'soft' 'soft with maps'")
    writing(options, RESULTS)
    chosen = options.parse_args()
    for model in chosen.model:
        for share in (2, 1) if model == "flux2" else (2,):
            found = measure(model, chosen.size, share, getattr(torch, chosen.dtype), chosen.rounds, chosen.ways)
            beside = "a quarter of the picture" if share == 2 else "as large as the picture"
            title = f"{chip()}, torch {torch.__version__}, {chosen.dtype}, {model} {chosen.size}, references {beside}"
            title += "" if chosen.ways is None else f", {' and '.join(chosen.ways)} only"
            sys.stdout.write(f"{title}\n{table(found)}\n")
            sys.stdout.flush()
            keep(chosen.write, title, found)


if __name__ == "__main__":
    main()
