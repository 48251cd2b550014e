"""Who is where in a picture: references assigned to detections, and what follows from it.

`hungarian` assigns, `measures` counts (both pure), `subjects` runs the detector and the encoder, `faces` holds the
published measures that need faces.
"""
