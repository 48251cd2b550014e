"""The papers' methods in pure torch: imports stdlib, torch, einops and safetensors, never a host.

scene       a user's input: boxes, subjects, scenes.
shapes      the one message for every tensor of a wrong shape.
cross_attention_layers  the address book of text cross-attentions, in the published order and in every host's spelling.
attention   heads in, heads out; boxes to masks on a token grid.
checkpoint  files: read without running code, compared key by key, written atomically.
identity/   the subjects' identity (MS-Diffusion arXiv:2406.07209, CLIPSelf arXiv:2310.01403).
relation/   the relation between them (DreamRelation arXiv:2410.23280).
routing/    reference images and their regions, on Flux (DreamO arXiv:2504.16915).
"""
