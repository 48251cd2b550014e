"""torch.compile of the whole diffusion model: no graph breaks of ours, no recompiling at every step."""

import pytest
import torch

from tests.host.golden_flux import formula_flux
from tests.host.test_flux_golden import columns, latents_of, routing_of


@pytest.fixture(scope="module")
def formula(tiny):
    with torch.no_grad():  # not inference_mode: dynamo would guard on it
        return formula_flux(tiny)


def fused(plain, *args, **kwargs):
    """ComfyUI's choice on a GPU. Its choice on a CPU looks up the free memory, and every look breaks the graph."""
    from comfy.ldm.modules.attention import attention_pytorch

    return attention_pytorch(*args, **kwargs)


def compiled(pack, flux, routing, steps=3):
    """Calls as ComfyUI's TorchCompileModel makes them, and how many graphs dynamo made."""
    from comfy.patcher_extension import WrapperExecutor

    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    network = torch.compile(flux.model.model.diffusion_model, backend=count)
    seam = pack.module("nodes.host_comfy.flux.wrapper")

    def apply_model(x, t, c_concat, context, control, transformer_options, **conds):
        return network(x, t, context=context, transformer_options=transformer_options, **conds)

    outs = []
    for _ in range(steps):
        executor = WrapperExecutor.new_class_executor(apply_model, flux.model.model, [seam.apply_references])
        conds = {"y": flux.y, "guidance": flux.guidance}
        if routing is not None:
            conds |= {
                "ref_latents": latents_of(routing),
                "ref_latents_method": "uxo",
                seam.KEY: (routing, None, (True,)),
            }
        with torch.no_grad():
            outs.append(
                executor.execute(
                    flux.x, flux.time, None, flux.context, None, {"optimized_attention_override": fused}, **conds
                )
            )
    return outs, len(graphs)


@pytest.mark.parametrize("strength", [None, 1e4], ids=["references", "steered and recorded"])
def test_one_graph_for_all_steps(pack, formula, strength):
    recorder = pack.module("core.routing.routing_map").Recorder()
    fields = {} if strength is None else {"strength": strength, "recorder": recorder}
    routing = routing_of(pack, formula, regions=(columns(0, 1, 2), columns(3, 4, 5)), **fields)
    outs, graphs = compiled(pack, formula, routing)
    assert graphs == 1
    assert torch.equal(outs[0], outs[1]) and torch.isfinite(outs[0]).all()
    assert recorder.calls["mass"] == (0 if strength is None else 3)
