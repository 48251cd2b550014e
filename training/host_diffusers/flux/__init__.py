"""Flux-class transformers on diffusers, FLUX.1 (DreamO, Kontext) and FLUX.2 (Klein, dev), for a relation LoRA.

architectures  which of them a config or a file is; the published sizes.
files          open_flux_base: a diffusers folder, or one file and the other parts' folder; dreamo: its LoRAs merged.
network        FluxNetwork: one call with references; tokens: their positions; attention: a door into every block.
lora           attach_lora: pairs on the sites of a relation LoRA; export_state: as ComfyUI and diffusers read them.
stored         store_blocks: frozen blocks in 8 bits, or in the computer's memory, inside gradient checkpoints.
text, latents  prompts and pictures, encoded.
"""
