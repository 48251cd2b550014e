"""The miniworld's models on diffusers and transformers: architectures, one bundle of all, and its Flux."""
