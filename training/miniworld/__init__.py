"""The miniworld: plush creatures drawn with exact annotation, and small models trained on them from scratch.

`world` draws: who a creature is, its pose, relations, captions, pixels and masks; it knows no model. `recipes` train
the small models on what it draws. `experiments` draw with them, measure, ablate and show. `python -m training.miniworld
--help` is the door.
"""

import os

# read as torch is first imported: OpenMP's threads that wait by spinning took ten times the processor time of a step
# beside busy processes (tests/bench/threads.py)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
