"""The miniworld: plush creatures drawn with exact annotation, and small models trained on them from scratch.

`world` draws: who a creature is, its pose, relations, captions, pixels and masks; it knows no model. `recipes` train
the small models on what it draws. `experiments` draw with them, measure, ablate and show. `python -m training.miniworld
--help` is the door.
"""
