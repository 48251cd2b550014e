"""One noise schedule and one sampler."""
