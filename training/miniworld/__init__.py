"""The miniworld: plush creatures drawn with exact annotation, and small models trained on them from scratch.

`world` draws: a creature's traits, poses, relations, captions, pixels and masks; it imports no model. `recipes` train
the small models on its renders. `experiments` draw with them, measure, ablate and show. Commands: `python -m
training.miniworld --help`.
"""

import os

# read as torch is first imported: OpenMP's threads that wait by spinning took ten times the processor time of a step
# beside busy processes (tests/bench/threads.py)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
