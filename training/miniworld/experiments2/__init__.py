"""What the second world's models do, drawn and counted; replaces `experiments/` together with its weights."""
