"""The relation between the subjects: low-rank deltas of the text cross-attentions (DreamRelation arXiv:2410.23280)."""
