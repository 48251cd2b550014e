"""Write a job as a graph of ComfyUI in API format: an example graph with the job's subjects, prompt and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .jobs import Job
from .settings import DrawingSettings

SAVE = "save"


def graph_of(job: Job, settings: DrawingSettings, photographs: Sequence[str]) -> dict[str, Any]:
    """Return the graph that draws a job.

    Args:
        job: the picture to draw.
        settings: how to draw it.
        photographs: LoadImage's names of the subjects' photographs on the server.
    """
    graph = _loaders(settings)
    scene = None
    for number, (name, box, photograph) in enumerate(zip(job.entry.names, job.entry.boxes, photographs), 1):
        graph[f"photograph {number}"] = node("LoadImage", image=photograph)
        inputs = {
            "image": [f"photograph {number}", 0],
            "name": name,
            "weight": 1.0,
            **{key: float(edge) for key, edge in zip(("x0", "y0", "x1", "y1"), box)},
        }
        graph[f"subject {number}"] = node("RelateSubject", **inputs, **({"scene": scene} if scene else {}))
        scene = [f"subject {number}", 0]
    model = graph.pop("_sockets")
    if job.relation_file:
        graph["relation"] = node(
            "RelateRelationLoader",
            model=model["model"],
            lora_name=job.relation_file,
            strength=settings.relation_strength,
        )
        model["model"] = ["relation", 0]
    return graph | _drawing(job, settings, model, scene)


def _drawing(job: Job, settings: DrawingSettings, model: dict[str, Any], scene: list | None) -> dict[str, Any]:
    """Return the nodes from the scene and the models to the saved picture."""
    local = {"local_clip_vision": model["local_clip_vision"]} if "local_clip_vision" in model else {}
    return {
        # encode the subjects and patch the model with them
        "identity": node(
            "RelateEncodeIdentity",
            scene=scene,
            identity_model=model["identity"],
            clip=model["clip"],
            clip_vision=model["clip_vision"],
            local_grid=settings.local_grid,
            ground_with="name and box",
            **local,
        ),
        "apply": node(
            "RelateApplyIdentity",
            model=model["model"],
            identity=["identity", 0],
            weight=settings.strength,
            start_at=0.0,
            end_at=1.0,
            layout="boxes",
        ),
        # sample with the prompt, decode and save
        "positive": node("CLIPTextEncode", clip=model["clip"], text=job.entry.prompt),
        "negative": node("CLIPTextEncode", clip=model["clip"], text=settings.negative),
        "latent": node("EmptyLatentImage", width=settings.width, height=settings.height, batch_size=1),
        "sample": node(
            "KSampler",
            model=["apply", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=job.seed,
            steps=settings.steps,
            cfg=settings.guidance,
            sampler_name=settings.sampler,
            scheduler=settings.scheduler,
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=model["vae"]),
        SAVE: node("SaveImage", images=["decode", 0], filename_prefix="relate/evaluate"),
    }


def _loaders(settings: DrawingSettings) -> dict[str, Any]:
    """Return the nodes that load models, and under `_sockets` the output of each model."""
    if settings.world == "miniworld":
        names = ("model", "clip", "vae", "clip_vision", "local_clip_vision", "identity")
        return {
            "miniworld": node("RelateMiniworldLoader"),
            "_sockets": {name: ["miniworld", place] for place, name in enumerate(names)},
        }
    graph = {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=settings.checkpoint),
        "vision": node("CLIPVisionLoader", clip_name=settings.clip_vision),
        "identity model": node("RelateIdentityModelLoader", model_name=settings.identity),
    }
    sockets = {
        "model": ["checkpoint", 0],
        "clip": ["checkpoint", 1],
        "vae": ["checkpoint", 2],
        "clip_vision": ["vision", 0],
        "identity": ["identity model", 0],
    }
    if settings.local_clip_vision:
        graph["local vision"] = node("CLIPVisionLoader", clip_name=settings.local_clip_vision)
        sockets["local_clip_vision"] = ["local vision", 0]
    return graph | {"_sockets": sockets}


def node(class_type: str, /, **inputs: Any) -> dict[str, Any]:
    """Make one node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


def files_needed(settings: DrawingSettings) -> list[tuple[str, str, str]]:
    """List (class type, input, file) of every model file that the graphs name beside the relations."""
    if settings.world == "miniworld":
        return []
    encoders = [name for name in (settings.clip_vision, settings.local_clip_vision) if name]
    return [
        ("CheckpointLoaderSimple", "ckpt_name", settings.checkpoint),
        ("RelateIdentityModelLoader", "model_name", settings.identity),
        *(("CLIPVisionLoader", "clip_name", name) for name in encoders),
    ]
