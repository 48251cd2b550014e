"""A relation LoRA on Flux-class models: the run described (`spec`), its objective, batches, memory and samples."""
