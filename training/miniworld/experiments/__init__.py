"""Draw with the miniworld's models, measure, ablate, show."""
