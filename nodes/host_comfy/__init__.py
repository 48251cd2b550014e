"""The only door to ComfyUI. One verb per file:

folders      where files lie: ``models/relate``, ``models/loras``.
sdxl/        models: load an identity model, read a host model's layout, take a CLIP vision encoder apart; encoders:
             photographs and phrases to features, remembered by photograph; attach: an identity branch onto a clone of
             a MODEL; relation: a relation LoRA onto one; prompt_lookup: the state of a sampling run.
model_calls  which rows of a model call are positive, and which part of the picture they show.
prompt_graph the texts that the running graph encodes; prompt_tokens: their tokens, and names among these.
flux/        wrapper: reference images onto a clone of a Flux MODEL and its conditioning; loader: DreamO's files;
             placeholders: their places in a prompt; references: encoding and checks; sampler: a steered run.
miniworld/   the miniworld's models as ComfyUI's own classes: sdxl and flux.
samplers     the names of samplers and schedulers.
weight_adapters  adapters in LoRA files that ComfyUI lacks.
weak_memo    results remembered for as long as all they were made from lives.
"""
