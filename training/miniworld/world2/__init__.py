"""The second miniworld: plush creatures with large heads, drawn for the 128 pixels they are seen at.

It stands beside the first world, which the shipped weights were trained on, and replaces it in the commit that ships
weights trained on this one; until then nothing outside this package and its recipes imports it. What the first world
drew well (colour, SVG text) is imported from there, not repeated.

Modules: `rng_streams` which random numbers are whose · `traits` who a creature is · `pose`, `pose_presets` where its
joints are · `relations`, `single_and_group_poses` what happens · `captions` how it is said · `scene` one planned
picture · `species`, `face`, `coat`, `tails`, `accessories`, `emblems`, `creature`, `backdrop`, `props` how it looks ·
`renderer` pixels, masks, boxes, keypoints, emblems · `triplets`, `corpus`, `labelled_scenes`, `fusions` data sets.

Letters in shapes: `S` creatures of a scene, `N` pictures; coordinates are fractions of the picture, y down.
"""
