"""Reference images as tokens of Flux's own sequence, seen and steered (DreamO, arXiv:2504.16915).

photograph     a reference picture as the model sees it: cut out, resized by the published rule.
condition      where reference tokens stand: lengths, diagonal positions, the added embeddings.
routing_map    which part of the picture a reference answers to (equation 2), three readings of it.
steering       a bias on attention that keeps references in their regions; dense, as channels, and in groups.
routing        one conditioning's references with all of it.
routing_loss   the training losses of equations 3 to 5.
placeholders   the words [ref#1] ... [ref#9].
files          the published embeddings and LoRAs in every layout.
"""
