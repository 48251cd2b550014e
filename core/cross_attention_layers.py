"""The address book: every text cross-attention of a UNet, in the published order, in each host's spelling.

The published lists of projections follow diffusers' traversal: down blocks, up blocks, middle. On SDXL these are
70 sites: down.1 has 4, down.2 has 20, up.0 has 30, up.1 has 6, the middle 10.
"""

from __future__ import annotations

from dataclasses import dataclass

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class CrossAttentionLayer:
    """One text cross-attention.

    Attributes:
        diffusers: module path in a diffusers UNet, e.g. ``down_blocks.1.attentions.0.transformer_blocks.0.attn2``.
        comfy: block name, block number and transformer index in ComfyUI, e.g. ``("input", 4, 0)``.
        width: channels.
    """

    diffusers: str
    comfy: tuple[str, int, int]
    width: int

    @property
    def checkpoint(self) -> str:
        """Module path in a checkpoint file, e.g. ``input_blocks.4.1.transformer_blocks.0.attn2``."""
        block, number, index = self.comfy
        place = "middle_block.1" if block == "middle" else f"{block}_blocks.{number}.1"
        return f"{place}.transformer_blocks.{index}.attn2"


@dataclass(frozen=True)
class UNetSpec:
    """Positions and sizes of a UNet's transformers.

    Attributes:
        widths: channels of each level, the finest first.
        resnets: residual blocks of each level of the encoder (one more in the decoder).
        down: transformer depth of each residual block of the encoder, the finest level first.
        up: the same of the decoder, the coarsest level first.
        middle: transformer depth of the middle block.
        context_width: width of the text context, 2048 on SDXL.
    """

    widths: tuple[int, ...]
    resnets: tuple[int, ...]
    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    middle: int
    context_width: int

    @classmethod
    def of_depths(
        cls,
        widths: tuple[int, ...],
        resnets: int,
        depths: tuple[int, ...],
        context_width: int,
        middle: int | None = None,
    ) -> UNetSpec:
        """Return a UNet with one transformer depth for all residual blocks of a level; the middle's, if None, the last.

        A base in which layers were left out may have none in the middle: 0.
        """
        return cls(
            widths=widths,
            resnets=(resnets,) * len(widths),
            down=tuple((depth,) * resnets for depth in depths),
            up=tuple((depth,) * (resnets + 1) for depth in reversed(depths)),
            middle=depths[-1] if middle is None else middle,
            context_width=context_width,
        )

    def sites(self) -> tuple[CrossAttentionLayer, ...]:
        """All sites, in the published order."""
        return (*self._down(), *self._up(), *self._middle())

    def _down(self):
        block = 1  # block 0 is the first convolution
        for level, depths in enumerate(self.down):
            for resnet, depth in enumerate(depths):
                yield from _transformers(
                    f"down_blocks.{level}.attentions.{resnet}", ("input", block), depth, self.widths[level]
                )
                block += 1
            block += 1  # the downsampler

    def _up(self):
        block = 0
        for level, depths in enumerate(self.up):
            for resnet, depth in enumerate(depths):
                yield from _transformers(
                    f"up_blocks.{level}.attentions.{resnet}", ("output", block), depth, self.widths[-1 - level]
                )
                block += 1

    def _middle(self):
        yield from _transformers("mid_block.attentions.0", ("middle", 0), self.middle, self.widths[-1])


def _transformers(path: str, block: tuple[str, int], depth: int, width: int):
    for index in range(depth):
        yield CrossAttentionLayer(f"{path}.transformer_blocks.{index}.attn2", (*block, index), width)


SDXL = UNetSpec.of_depths((320, 640, 1280), 2, (0, 2, 10), 2048)
