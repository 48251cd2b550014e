"""Shared tools of the training package: statistics, the client of a running ComfyUI."""
