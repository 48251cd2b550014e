"""How a run is described, taken step by step, measured and written down."""
