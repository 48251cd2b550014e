"""Subject-Diffusion's modules on a diffusers UNet, put on and taken off again (arXiv:2307.11410).

diffusers' transformer blocks call ``self.fuser`` between self- and cross-attention, and its UNet calls
``self.position_net``, wherever ``cross_attention_kwargs`` has "gligen". Both are only attributes, so attaching a module
to a plain UNet replaces no method:

    unet(noisy_and_mask, t, text, cross_attention_kwargs={"gligen": object_arguments(patches, boxes, present)})
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.subject.files import SubjectAdapter, SubjectAdapterConfig

CHANNELS = 5  # of the input convolution: the noisy latent's four, then the location mask
_PLAIN_CONVOLUTION = "_relate_plain_conv_in"


def block_names(unet: nn.Module) -> dict[str, int]:
    """Name every transformer block with cross-attention, and its width, in the order of the UNet's stages.

    Raises:
        ValueError: a UNet that has none.
    """
    blocks = {
        name: module.attn2.to_q.in_features
        for name, module in unet.named_modules()
        if name.split(".")[-2:-1] == ["transformer_blocks"] and getattr(module, "attn2", None) is not None
    }
    if not blocks:
        raise ValueError("base: expected a UNet with text cross-attention, found no transformer block in it.")
    stage = ("down_blocks", "mid_block", "up_blocks")
    return dict(
        sorted(
            blocks.items(),
            key=lambda block: (
                stage.index(block[0].split(".")[0]),
                *(int(part) for part in block[0].split(".") if part.isdigit()),
            ),
        )
    )


def new_config(
    unet: nn.Module,
    image_width: int,
    embedding_width: int,
    word_width: int,
    tokens: int,
    max_subjects: int = 2,
    base: str = "",
) -> SubjectAdapterConfig:
    """Size a fresh adapter for a UNet as the published one is: hidden widths are the context's and the embedding's."""
    blocks = block_names(unet)
    heads = {name: unet.get_submodule(name).attn1.heads for name in blocks}
    widths = {width // heads[name] for name, width in blocks.items()}
    one_width = len(widths) == 1
    if not one_width and len(set(heads.values())) > 1:
        raise ValueError(
            "base: expected transformer blocks with heads of one width, or of one number; this UNet has neither."
        )
    return SubjectAdapterConfig(
        image_width,
        embedding_width,
        unet.config.cross_attention_dim,
        unet.config.cross_attention_dim,
        tokens,
        (embedding_width, word_width),
        blocks,
        head_width=max(widths) if one_width else 0,
        heads=0 if one_width else max(heads.values()),
        input_channels=CHANNELS,
        max_subjects=max_subjects,
        base=base,
    )


def attach(unet: nn.Module, adapter: SubjectAdapter, location: bool = True) -> None:
    """Put an adapter on a UNet, in place.

    Args:
        unet: diffusers', of four input channels.
        adapter: its ``proj`` becomes the UNet's ``position_net``, its ``fusers`` the blocks' ``fuser``.
        location: whether the input convolution gets a fifth channel, of zeros.

    Raises:
        ValueError: blocks that are not the adapter's, or something attached already.
    """
    blocks = block_names(unet)
    if blocks != adapter.config.blocks:
        raise ValueError(
            f"adapter: made for {len(adapter.config.blocks)} blocks, the UNet has {len(blocks)}, or of "
            "other names or widths. Use the base that it was made for."
        )
    if getattr(unet, "position_net", None) is not None:
        raise ValueError("unet: it has a position_net already (GLIGEN, or an adapter that was not detached).")
    unet.position_net = adapter.proj
    for name, fuser in zip(blocks, adapter.fusers):
        unet.get_submodule(name).fuser = fuser
    if location:
        plain = unet.conv_in
        wide = nn.Conv2d(
            CHANNELS,
            plain.out_channels,
            plain.kernel_size,
            padding=plain.padding,
            device=plain.weight.device,
            dtype=plain.weight.dtype,
        )
        with torch.no_grad():
            wide.weight.zero_()
            wide.weight[:, : plain.in_channels] = plain.weight
            wide.bias.copy_(plain.bias)
        setattr(adapter, _PLAIN_CONVOLUTION, [plain])  # in a list: no part of the adapter's weights
        unet.conv_in = wide


def detach(unet: nn.Module, adapter: SubjectAdapter) -> None:
    """Take the adapter off: the UNet computes exactly what it did before."""
    unet.position_net = None
    for name in adapter.config.blocks:
        del unet.get_submodule(name).fuser
    plain = getattr(adapter, _PLAIN_CONVOLUTION, None)
    if plain:
        unet.conv_in = plain.pop()


def object_arguments(patches: Tensor, boxes: Tensor, present: Tensor, locate_single: bool = True) -> dict[str, object]:
    """Return what "gligen" must be in ``cross_attention_kwargs``: the arguments of `ObjectTokens.forward`."""
    return {"patches": patches, "boxes": boxes, "present": present, "locate_single": locate_single}
