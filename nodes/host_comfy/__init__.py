"""The only door to ComfyUI. One verb a file:

folders      where files lie: ``models/relate``, ``models/loras``.
models       load an identity model; read a host model's layout; the parts of a CLIP vision encoder.
encoders     photographs and phrases to features, through ComfyUI's memory manager, remembered by photograph.
attach       an identity branch or a relation LoRA onto a clone of a MODEL.
miniworld    the miniworld's models as ComfyUI's own classes (with miniworld_flux: its Flux).
run          what is known while a sampler runs: its prompt, and where the names stand in it.
flux         reference images onto a clone of a Flux MODEL and its conditioning (with flux_loader: DreamO's files;
             flux_words: the placeholders; flux_references: encoding and checks; flux_sampler: a steered run).
samplers     the names of samplers and schedulers.
weak_memo    results remembered for as long as all they were made from lives.
"""
