"""Who the subjects are: photographs and boxes to identity tokens, and their way into the picture.

MS-Diffusion (arXiv:2406.07209) with DreamRelation's dense local tokens (arXiv:2410.23280, section 3.4).
"""
