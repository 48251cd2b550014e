"""Shared tools of the training package: errors, command line, files, sheets, settings; statistics, boxes and protocols
of models that look at pictures; the client of a running ComfyUI."""
