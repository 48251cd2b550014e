"""The only door to ComfyUI. One verb a file:

folders      where files lie: ``models/relate``, ``models/loras``.
sdxl/        models: load an identity model, read a host model's layout, take a CLIP vision encoder apart; encoders:
             photographs and phrases to features, remembered by photograph; attach: an identity branch or a relation
             LoRA onto a clone of a MODEL; prompt_lookup: the prompt of the running sampler and the names in it.
flux/        wrapper: reference images onto a clone of a Flux MODEL and its conditioning; loader: DreamO's files;
             placeholders: their places in a prompt; references: encoding and checks; sampler: a steered run.
miniworld/   the miniworld's models as ComfyUI's own classes: sdxl and flux.
samplers     the names of samplers and schedulers.
weak_memo    results remembered for as long as all they were made from lives.
"""
