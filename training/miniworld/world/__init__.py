"""The miniworld: plush creatures with large heads, drawn for the 128 pixels they are seen at.

Modules: `rng_streams` random streams · `traits` identities · `pose`, `pose_presets` joints · `relations`,
`close_relations`, `single_and_group_poses`, `staging` poses of relations · `captions` sentences · `scene` the plan of a
picture · `species`, `face`, `coat`, `tails`, `accessories`, `emblems`, `creature`, `backdrop`, `props`, `colour`, `svg`
shapes and colours · `renderer` pixels, masks, boxes, keypoints, emblems · `triplets`, `fusions`, `example_creatures`
data sets.

Letters in shapes: `S` creatures of a scene, `N` pictures; coordinates are fractions of the picture, y down.
"""
