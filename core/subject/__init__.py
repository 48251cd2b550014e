"""Subject-Diffusion (SIGGRAPH 2024, arXiv:2307.11410): subjects fused into text, location mask and gated adapter.

Letters: `B` batch, `S` subjects, `T` patch tokens per subject (256 for ViT-H/14 at 224 pixels), `I` width of the image
encoder (1280), `E` its embedding (1024), `D` context width (1024), `N` positions of the UNet's grid, `C` their width.
"""
