"""The miniworld: plush creatures with large heads, drawn for the 128 pixels they are seen at.

Modules: `rng_streams` which random numbers are whose · `traits` who a creature is · `pose`, `pose_presets` where its
joints are · `relations`, `close_relations`, `single_and_group_poses`, `staging` what happens · `captions` how it is
said · `scene` one planned picture · `species`, `face`, `coat`, `tails`, `accessories`, `emblems`, `creature`,
`backdrop`, `props`, `colour`, `svg` how it looks · `renderer` pixels, masks, boxes, keypoints, emblems · `triplets`,
`fusions`, `example_creatures` data sets.

Letters in shapes: `S` creatures of a scene, `N` pictures; coordinates are fractions of the picture, y down.
"""
