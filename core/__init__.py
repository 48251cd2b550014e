"""What the papers say, in pure torch: imports stdlib, torch, einops and safetensors, never a host.

scene       what the user wants: boxes, subjects, scenes.
shapes      the one sentence for every wrong tensor.
cross_attention_layers  the address book of text cross-attentions, in the published order and in every host's spelling.
attention   heads in, heads out; boxes to masks on a token grid.
checkpoint  files: read without running anything, compared key by key, written whole or not at all.
identity/   who the subjects are (MS-Diffusion arXiv:2406.07209, CLIPSelf arXiv:2310.01403).
relation/   what happens between them (DreamRelation arXiv:2410.23280).
routing/    whose features go where, on Flux (DreamO arXiv:2504.16915).
"""
