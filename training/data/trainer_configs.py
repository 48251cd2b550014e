"""The configs of other people's trainers, filled in for exported triplets.

ai-toolkit and musubi train FLUX.2 Klein 4B (base) at rank 16, in the text stream of the double blocks, which the
reference images do not pass through: the nearest relative of SDXL's text cross-attention. The hosted trainers choose
layers and rank themselves: fal's trains Klein 4B, replicate's Pruna's p-image-edit, whose LoRAs only its own endpoint
loads. Settings are those the trainers' own documentation recommends; none has been measured here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

STEPS, LEARNING_RATE, RANK = 1000, "0.0001", 16
_FAL_LEARNING_RATE = 0.00005  # its default
BASE = "black-forest-labs/FLUX.2-klein-base-4B"


@dataclass(frozen=True)
class ExportFacts:
    """What a config says of the exported triplets.

    Attributes:
        folder: where they are, absolute.
        relation: the predicate of the first.
        caption: of the first.
        controls: paths of the first's control images, in order.
        count: of triplets.
        masked: there is a mask for each target.
    """

    folder: Path
    relation: str
    caption: str
    controls: tuple[str, ...]
    count: int
    masked: bool

    @property
    def name(self) -> str:
        """Name the LoRA: letters, digits and underscores."""
        return f"relation_{re.sub(r'[^a-z0-9]+', '_', self.relation.lower()).strip('_') or 'own'}_klein4b"


_AI_TOOLKIT = Template("""\
# ai-toolkit: python run.py $config
# Other bases: arch flux2_klein_9b or flux2; qwen_image_edit_plus has no such text stream: delete network_kwargs.
job: extension
config:
  name: $name
  process:
    - type: diffusion_trainer
      training_folder: output
      device: cuda:0
      network:
        type: lora
        linear: $rank
        linear_alpha: $rank
        network_kwargs:
          only_if_contains: ["txt_attn"]  # text stream only; Flux.1: attn.add_ and attn.to_add_out
      save:
        dtype: float16
        save_every: 250
        max_step_saves_to_keep: 4
      datasets:
        - folder_path: $target
          control_path: $controls  # the order is the subjects' order
$mask          caption_ext: txt
          caption_dropout_rate: 0.05
          resolution: [512, 768, 1024]
          cache_latents_to_disk: true
      train:
        batch_size: 1
        steps: $steps
        gradient_accumulation: 1
        train_unet: true
        train_text_encoder: false
        gradient_checkpointing: true
        noise_scheduler: flowmatch
        timestep_type: weighted
        optimizer: adamw8bit
        lr: $lr
        dtype: bf16
        cache_text_embeddings: true
      model:
        name_or_path: $base
        arch: flux2_klein_4b
        quantize: true
        qtype: qfloat8
        quantize_te: true
        low_vram: true
        model_kwargs:
          match_target_res: false
      sample:
        sampler: flowmatch
        sample_every: 250
        width: 1024
        height: 1024
        guidance_scale: 4
        sample_steps: 25
        samples:
          - {prompt: $caption, $samples}
""")


def _quoted(value: object) -> str:
    """Write strings and lists as JSON, which YAML and TOML read too; letters stay letters."""
    return json.dumps(value, ensure_ascii=False)


def ai_toolkit(facts: ExportFacts) -> dict[str, str]:
    """Write ``config.yaml`` for ``python run.py config.yaml``."""
    mask = f"          mask_path: {_quoted(str(facts.folder / 'mask'))}  # white weighs more: all subjects together\n"
    samples = [f"ctrl_img_{slot}: {_quoted(path)}" for slot, path in enumerate(facts.controls, 1)]
    text = _AI_TOOLKIT.substitute(
        config=shlex.quote(str(facts.folder / "config.yaml")),
        name=_quoted(facts.name),
        rank=RANK,
        target=_quoted(str(facts.folder / "target")),
        controls=_quoted([str(facts.folder / f"control_{slot}") for slot in range(1, len(facts.controls) + 1)]),
        mask=mask + "          mask_min_value: 0.1\n" if facts.masked else "",
        steps=STEPS,
        lr=LEARNING_RATE,
        base=BASE,
        caption=_quoted(facts.caption),
        samples=", ".join(samples),
    )
    return {"config.yaml": text}


def musubi(facts: ExportFacts) -> dict[str, str]:
    """Write ``dataset.toml`` and the three commands that use it."""
    # 1. the data set
    size = 1024 if len(facts.controls) > 1 else 2024  # of Flux.2's own pipeline: one reference may be larger
    dataset = f"""\
# musubi-tuner: see train.sh. Controls are 0000_0.png, 0000_1.png of target 0000.png, in the subjects' order.
[general]
resolution = [1024, 1024]
caption_extension = ".txt"
batch_size = 1
enable_bucket = true

[[datasets]]
image_directory = {_quoted(str(facts.folder / "target"))}
control_directory = {_quoted(str(facts.folder / "control"))}
cache_directory = {_quoted(str(facts.folder / "cache"))}
no_resize_control = true  # as when drawing
control_resolution = [{size}, {size}]
num_repeats = 10
"""
    # 2. the commands that encode and train
    config = shlex.quote(str(facts.folder / "dataset.toml"))
    commands = f"""\
#!/bin/sh
# Run in musubi-tuner's folder; fill in the paths of FLUX.2 Klein 4B base (files in Black Forest Labs' own layout, of
# the text encoder the first of its files).
set -e
DIT=flux2-klein-base-4b.safetensors VAE=ae.safetensors TEXT_ENCODER=qwen3_4b/00001-of-00002.safetensors
VERSION=klein-base-4b  # or klein-base-9b, dev

python src/musubi_tuner/flux_2_cache_latents.py --dataset_config {config} --vae "$VAE" --model_version $VERSION
python src/musubi_tuner/flux_2_cache_text_encoder_outputs.py --dataset_config {config} \\
  --text_encoder "$TEXT_ENCODER" --batch_size 1 --model_version $VERSION
# alpha must be given: its default is 1, a sixteenth of this strength. The patterns keep the LoRA in the text stream.
accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 src/musubi_tuner/flux_2_train_network.py \\
  --model_version $VERSION --dit "$DIT" --vae "$VAE" --text_encoder "$TEXT_ENCODER" --dataset_config {config} \\
  --sdpa --mixed_precision bf16 --timestep_sampling flux2_shift --weighting_scheme none \\
  --optimizer_type adamw8bit --learning_rate {LEARNING_RATE} --gradient_checkpointing --max_train_steps {STEPS} \\
  --network_module networks.lora_flux_2 --network_dim {RANK} --network_alpha {RANK} \\
  --network_args "exclude_patterns=['.*']" "include_patterns=['.*txt_attn.*']" \\
  --output_dir output --output_name {facts.name}
"""
    return {"dataset.toml": dataset, "train.sh": commands}


def fal(facts: ExportFacts) -> dict[str, str]:
    """Write ``request.json`` for fal's trainer of edit LoRAs; the archive must be uploaded first."""
    request = {
        "endpoint": "fal-ai/flux-2-klein-4b-base-trainer/edit",
        "input": {
            "image_data_url": "the address of the uploaded triplets.zip",
            "steps": STEPS,
            "learning_rate": _FAL_LEARNING_RATE,
            "default_caption": facts.caption,
        },
    }
    return {"request.json": json.dumps(request, indent=2, ensure_ascii=False) + "\n"}


def replicate(facts: ExportFacts) -> dict[str, str]:
    """Write ``request.json`` for replicate's prunaai/p-image-edit-trainer; ``image_data`` is a file to upload."""
    request = {
        "model": "prunaai/p-image-edit-trainer",
        "input": {
            "image_data": str(facts.folder / "triplets.zip"),
            "steps": STEPS,
            "learning_rate": float(LEARNING_RATE),
            "default_caption": facts.caption,
        },
    }
    return {"request.json": json.dumps(request, indent=2, ensure_ascii=False) + "\n"}


WRITERS: dict[str, Callable[[ExportFacts], dict[str, str]]] = {
    "ai-toolkit": ai_toolkit,
    "musubi": musubi,
    "fal": fal,
    "replicate": replicate,
}
