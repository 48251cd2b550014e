"""The miniworld: plush creatures drawn with exact annotation, and small models trained on them from scratch.

Rooms: `identity` who a creature is · `pose` where its joints are · `relations` what happens between creatures ·
`captions` how it is said · `scene` one drawn-up picture · `creature`, `species`, `accessories`, `backdrop`, `drawing`
how it looks · `renderer` pixels and masks · `triplets` the paper's training data · `corpus` the cached renders ·
`vae`, `clip`, `unet`, `flux` the recipes. `python -m training.miniworld --help` is the door.
"""
