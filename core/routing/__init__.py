"""Reference images as tokens of Flux's own sequence, seen and steered (DreamO, arXiv:2504.16915).

image_prep     a reference picture as the model sees it: cut out, resized by the published rule.
token_layout   where reference tokens stand: lengths, diagonal positions, the added embeddings.
routing_map    which part of the picture a reference answers to (equation 2), two readings of it.
call_layout, lse_attention, reference_bias, reference_regions, steered_attention
               a bias on attention that keeps references in their regions, by merged blocks of keys.
routing        one conditioning's references with all of it.
losses         the training losses of equations 3 to 5.
placeholders   the words [ref#1] ... [ref#9].
files          the published embeddings and LoRAs in every layout.
"""
