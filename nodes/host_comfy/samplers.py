"""The names of ComfyUI's samplers and schedulers, other packs' included."""

from comfy.samplers import KSampler

SAMPLERS, SCHEDULERS = KSampler.SAMPLERS, KSampler.SCHEDULERS
