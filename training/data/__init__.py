"""Triplets on disk to encoded samples."""
