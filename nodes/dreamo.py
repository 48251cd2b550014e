"""Load DreamO: its LoRAs and embeddings, which teach Flux to read references."""

from __future__ import annotations

from comfy_api.latest import io

from ..core.routing.files import ADAPTERS, PRESETS, TURBO, find_file
from .sockets import advanced, schema

BY_NAME, NONE = "by its published name", "none"
MEANINGS = {
    "dreamo": "DreamO itself", "cfg_distill": "the LoRA that lets cfg stay at 1", "quality_pos": "v1's quality LoRA",
    "quality_neg": "v1's negative quality LoRA", "sft": "v1.1's fine-tuning", "dpo": "v1.1's preference tuning",
}  # fmt: skip


def adapter_inputs(files: list[str]) -> list:
    """List a file and a strength for every LoRA of the presets."""
    inputs = []
    for adapter in ADAPTERS:
        name, meaning = adapter.name, MEANINGS[adapter.name]
        inputs.append(
            advanced(
                io.Combo.Input(
                    f"{name}_lora",
                    options=[BY_NAME, NONE, *files],
                    default=BY_NAME,
                    tooltip=f"File of {meaning}. '{BY_NAME}' finds it in models/loras, in any layout.",
                )
            )
        )
        inputs.append(
            advanced(
                io.Float.Input(
                    f"{name}_strength",
                    default=adapter.strength,
                    min=-3.0,
                    max=3.0,
                    step=0.05,
                    tooltip=f"Strength of {meaning} with the preset 'custom'. {adapter.strength:g} is as published.",
                )
            )
        )
    return inputs


class RelateDreamOLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        from .host_comfy import folders

        folders.register()
        files = folders.choices(folders.identity_files())
        return schema(
            node_id="RelateDreamOLoader",
            display_name="Load DreamO",
            category="relate/references",
            description="Teaches Flux to use reference images: adds DreamO's LoRAs and embeddings, and the "
            "placeholders [ref#1] to [ref#9] that name a reference in the prompt.",
            search_aliases=["dreamo", "flux reference", "uno", "uso", "ip adapter flux"],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1-dev, any precision. It is not changed; a clone is."),
                io.Clip.Input("clip", tooltip="Flux's text encoders, CLIP-L and T5-XXL. A clone learns placeholders."),
                io.Combo.Input(
                    "embeddings",
                    options=files,
                    default="embedding.safetensors" if "embedding.safetensors" in files else None,
                    tooltip="A file in models/relate with DreamO's tables: embedding.safetensors of ByteDance/DreamO.",
                ),
                io.Combo.Input(
                    "preset",
                    options=["v1.1", "v1", "custom"],
                    default="v1.1",
                    tooltip="Which LoRAs, with the published strengths. v1.1 looks better; v1 tells similar "
                    "subjects apart a little better. custom: files and strengths below.",
                ),
                *adapter_inputs(folders.lora_files()),
                advanced(
                    io.Combo.Input(
                        "turbo_lora",
                        options=[BY_NAME, NONE, *folders.lora_files()],
                        default=BY_NAME,
                        tooltip="File of FLUX.1-Turbo-Alpha, for the switch below.",
                    )
                ),
                io.Boolean.Input(
                    "turbo", default=False, tooltip="Add FLUX.1-Turbo-Alpha: 12 steps instead of about 28."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with DreamO. Connect to Apply References."),
                io.Clip.Output(display_name="clip", tooltip="The CLIP that knows [ref#1] to [ref#9]."),
            ],
        )

    @classmethod
    def execute(cls, model, clip, embeddings, preset, turbo, turbo_lora=BY_NAME, **adapters) -> io.NodeOutput:
        from .host_comfy import folders
        from .host_comfy.flux import loader as flux_loader

        if embeddings == folders.NO_FILE:
            raise ValueError(
                "embeddings: models/relate has no file. Put embedding.safetensors there, and the LoRAs of "
                "the preset into models/loras, from https://huggingface.co/ByteDance/DreamO (Apache-2.0); "
                "then press R to read the folders again."
            )
        loras = chosen_loras(preset, turbo, {**adapters, "turbo_lora": turbo_lora}, folders.lora_files())
        paths = [(folders.lora_path(name), strength) for name, strength in loras]
        return io.NodeOutput(*flux_loader.attach_dreamo(model, clip, folders.identity_path(embeddings), paths))


def chosen_loras(preset: str, turbo: bool, widgets: dict, available: list[str]) -> list[tuple[str, float]]:
    """Choose the names and strengths of the LoRAs of a preset.

    Raises:
        ValueError: files that are not there, all in one error.
    """
    adapters = [
        (adapter, widgets.get(f"{adapter.name}_strength", adapter.strength) if preset == "custom" else adapter.strength)
        for adapter in PRESETS.get(preset, ADAPTERS)
    ]
    adapters += [(TURBO, TURBO.strength)] if turbo else []
    loras, missing = [], []
    for adapter, strength in adapters:
        name = widgets.get(f"{adapter.name}_lora", BY_NAME)
        if name == NONE or strength == 0:
            continue
        name = find_file(adapter, available) if name == BY_NAME else name
        if name is None:
            missing.append(f"{adapter.name} ({' or '.join(adapter.files)})")
        else:
            loras.append((name, strength))
    if missing:
        raise ValueError(
            f"preset {preset}: {len(missing)} LoRA files are not in models/loras: {'; '.join(missing)}. "
            "Put them there, choose other files in the advanced inputs, or choose 'none' for those you "
            "do without."
        )
    return loras
