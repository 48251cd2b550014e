"""Assign references to detections, and measure identity, place and number of the subjects.

`hungarian` assigns, `measures` counts (both pure), `subjects` runs the detector and the encoder, `faces` holds the
published measures of faces.
"""
