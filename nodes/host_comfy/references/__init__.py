"""References of every family that takes them natively: where their tokens stand, and how they are kept in place.

``families`` is the table; one small file for each family says how its calls are laid out; ``override`` takes the place
of attention; ``steer`` does so for one model call; ``attach`` puts all of it on a MODEL and its CONDITIONING.
"""
