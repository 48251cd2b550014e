"""The runnable recipes. Commands, each ``python -m training.<name>``:

finetune    a relation LoRA from a handful of triplets (DreamRelation arXiv:2410.23280).
prepare     triplets on disk: convert, inspect.
distill     a local image encoder (CLIPSelf arXiv:2310.01403).
miniworld   the small world: render, train, ablate.
evaluate    RelationBench.

Only ``host_diffusers`` says diffusers, transformers or peft; what crosses to the nodes is a file.
"""
