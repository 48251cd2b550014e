"""The subjects' identity: photographs and boxes to identity tokens, and these into cross-attention.

MS-Diffusion (arXiv:2406.07209) with DreamRelation's dense local tokens (arXiv:2410.23280, section 3.4).
"""
