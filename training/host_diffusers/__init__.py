"""The seam to diffusers, transformers and peft: one verb a file, and the only door to these libraries.

unet        where a UNet has its text cross-attentions.
identity    attach_identity: the parallel image cross-attention beside every text cross-attention.
relation    attach_relation: a relation LoRA, through peft; merge_relation: a finished one, into the weights.
text        encode_prompts, encode_phrases.
images      encode_pictures, decode_latents, image_tokens.
base_model  open_base_model: a diffusers folder, or one checkpoint file (single_file, checkpoint_configs, tokenizer).
vision      load_vision: CLIP vision encoders from disk; clipself takes them apart for dense features.
frozen      open_frozen_models: all frozen models of a recipe.
subject     a subject adapter on a UNet; subject_base its frozen models, stable_diffusion bases of one text encoder,
            fused_text prompts with subjects in them, word_probe where words look.
miniworld/  architectures: the miniworld's sizes; bundle: its models in one object; flux, flux_text, flux_files: its
            Flux with references, its prompts with placeholders, on disk.
"""

from .identity import CrossAttentionExtras, IdentityBatch, PredicateProbe, attach_identity, identity_batch
from .relation import (
    attach_relation,
    merge_relation,
    read_with_diffusers,
    relation_of,
    relation_parameters,
    set_relation,
)
from .unet import cross_attentions, grid_of, unet_layout

__all__ = [
    "CrossAttentionExtras",
    "IdentityBatch",
    "PredicateProbe",
    "attach_identity",
    "attach_relation",
    "cross_attentions",
    "grid_of",
    "identity_batch",
    "merge_relation",
    "read_with_diffusers",
    "relation_of",
    "relation_parameters",
    "set_relation",
    "unet_layout",
]
