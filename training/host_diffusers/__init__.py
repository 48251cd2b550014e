"""The seam to diffusers, transformers and peft: one verb a file, and the only door to these libraries.

identity    attach_identity: the parallel image cross-attention beside every text cross-attention.
"""

from .identity import CrossAttentionExtras, IdentityBatch, PredicateProbe, attach_identity, identity_batch
from .unet import cross_attentions, grid_of, unet_layout

__all__ = [
    "CrossAttentionExtras", "IdentityBatch", "PredicateProbe", "attach_identity", "cross_attentions", "grid_of",
    "identity_batch", "unet_layout",
]
