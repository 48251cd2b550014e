"""Subject-Diffusion's modules on a diffusers UNet, put on and taken off again (arXiv:2307.11410).

diffusers' transformer blocks call ``self.fuser`` between self- and cross-attention, and its UNet calls
``self.position_net``, wherever ``cross_attention_kwargs`` has "gligen". Both are only attributes, so attaching a module
to a plain UNet replaces no method:

    unet(noisy_and_mask, t, text, cross_attention_kwargs={"gligen": object_arguments(patches, boxes, present)})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from core.subject.blocks import ALL, are_chosen, chosen_blocks
from core.subject.files import SubjectAdapter, SubjectAdapterConfig, load_subject_adapter

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
    which: str = ALL,
) -> SubjectAdapterConfig:
    """Size a fresh adapter for a UNet as the published one is: hidden widths are the context's and the embedding's."""
    blocks = chosen_blocks(block_names(unet), which)
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
        input_channels=unet.config.in_channels + 1,
        max_subjects=max_subjects,
        base=base,
    )


class _PassThrough(nn.Module):
    """The adapter of a block that has none."""

    def forward(self, x: Tensor, objects: object) -> Tensor:
        return x


def attach(unet: nn.Module, adapter: SubjectAdapter, location: bool = True) -> None:
    """Put an adapter on a UNet, in place.

    Args:
        unet: diffusers', as it was trained.
        adapter: its ``proj`` becomes the UNet's ``position_net``, its ``fusers`` the blocks' ``fuser``.
        location: whether the input convolution gets a channel more, of zeros, for the mask.

    Raises:
        ValueError: blocks that are not the adapter's, or something attached already.
    """
    blocks = block_names(unet)
    adapter_blocks = adapter.config.blocks
    if not are_chosen(adapter_blocks, blocks):
        raise ValueError(
            f"adapter: made for {len(adapter_blocks)} blocks, the UNet has {len(blocks)}, or of "
            "other names or widths. Use the base that it was made for."
        )
    if getattr(unet, "position_net", None) is not None:
        raise ValueError("unet: it has a position_net already (GLIGEN, or an adapter that was not detached).")
    unet.position_net = adapter.proj
    for name in blocks:
        unet.get_submodule(name).fuser = _PassThrough()  # diffusers asks every block for one
    for name, fuser in zip(adapter_blocks, adapter.fusers):
        unet.get_submodule(name).fuser = fuser
    if location:
        plain = unet.conv_in
        wide = nn.Conv2d(
            plain.in_channels + 1,
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
    for name in block_names(unet):
        del unet.get_submodule(name).fuser
    plain = getattr(adapter, _PLAIN_CONVOLUTION, None)
    if plain:
        unet.conv_in = plain.pop()


def object_arguments(
    patches: Tensor, boxes: Tensor, present: Tensor, locate_single: bool = True, acting: Tensor | None = None
) -> dict[str, object]:
    """Collect what "gligen" must be in ``cross_attention_kwargs``: the arguments of `ObjectTokens.forward`."""
    arguments = {"patches": patches, "boxes": boxes, "present": present, "locate_single": locate_single}
    return arguments if acting is None else arguments | {"acting": acting}


def trained_in_base(unet: nn.Module, config: SubjectAdapterConfig) -> dict[str, nn.Parameter]:
    """List the base's own parameters that a file trains, by the file's keys; the adapter must be attached."""
    trained = {
        f"unet.{block}.attn2.{name}.weight": unet.get_submodule(f"{block}.attn2.{name}").weight
        for block in config.blocks
        for name in ("to_k", "to_v")
    }
    if config.input_channels:
        trained |= {"unet.conv_in.weight": unet.conv_in.weight, "unet.conv_in.bias": unet.conv_in.bias}
    return trained


def put_on(unet: nn.Module, path: str | Path) -> tuple[SubjectAdapter, dict[str, Tensor], Callable[[], None]]:
    """Put a file on a UNet: its adapter, and what it trains of the UNet.

    Returns:
        The adapter, the file's tensors by key (the text encoders' are not applied here), and `take_off`, which
        restores the UNet exactly.

    Raises:
        ValueError: unreadable, or made for another base.
    """
    state, config = load_subject_adapter(path)
    if config.input_channels not in (0, unet.config.in_channels + 1):
        raise ValueError(
            f"{Path(path).name}: made for latents of {config.input_channels - 1} channels, the UNet reads "
            f"{unet.config.in_channels}. Use the base that it was made for."
        )
    adapter = SubjectAdapter(config)
    adapter.load(state)
    adapter.to(next(unet.parameters()).device).eval().requires_grad_(False)
    attach(unet, adapter, location=bool(config.input_channels))
    keep = _copy_into(trained_in_base(unet, config), state)

    def take_off() -> None:
        _copy_into(trained_in_base(unet, replace(config, input_channels=0)), keep)
        detach(unet, adapter)

    return adapter, state, take_off


@torch.no_grad()
def _copy_into(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set parameters that a state has; returns what they were."""
    originals = {}
    for key, parameter in parameters.items():
        if key in state:
            originals[key] = parameter.detach().clone()
            parameter.copy_(state[key])
    return originals
