"""SDXL-class models: encoders, identity branch, relation LoRA, prompt lookup."""
