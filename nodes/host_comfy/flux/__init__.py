"""Flux-class models: DreamO's files, placeholders, references, steering."""
