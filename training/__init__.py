"""The runnable recipes. Commands, each ``python -m training.<name>``:

finetune    a relation LoRA from a handful of triplets (DreamRelation arXiv:2410.23280).
prepare     triplets on disk: convert, inspect.
distill     a local image encoder (CLIPSelf arXiv:2310.01403).
miniworld   the small world: render, train, ablate.
evaluate    RelationBench.

Below them, each storey importing only what lies under it: ``engine`` (a run, step by step), ``evaluation``, ``data``,
``host_diffusers``, ``diffusion``, ``config``, ``common``; beside them ``miniworld`` with its ``world``, ``recipes`` and
``experiments``. Only ``host_diffusers`` says diffusers, transformers or peft; what crosses to the nodes is a file.
"""
