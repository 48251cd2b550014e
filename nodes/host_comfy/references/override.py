"""The attention override of one model call: steers and records the references' attentions, passes all others on.

ComfyUI calls it in every attention with the function that it would have called. Families call that function in their
own ways: the mask by position or by name, heads in the channels or as an axis, fewer heads of keys than of queries,
fewer queries than keys. An override that was there before (a backend that the user chose) is that function for us.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

from ....core.attention import as_bias
from ....core.routing.call_layout import CallLayout, Stage
from ....core.routing.routing_map import in_picture, logit_map
from ....core.routing.steered_attention import SteeredAttention

POSITIONAL = ("mask", "attn_precision", "skip_reshape", "skip_output_reshape")  # of ComfyUI's attention functions
Forms = dict[int, SteeredAttention | None]  # of one layout, by the number of queries


@dataclass
class Override:
    """The ``optimized_attention_override`` of one call.

    Attributes:
        stages: the call's attentions in order.
        forms: of each stage; made before the call, outside of what is compiled.
        before: the override of another node, or None.
        records: chunks of the batch whose maps are taken, as slices; empty for none.
        part: of a regional conditioning its area and the (h, w) of the whole latent, else None.
        maps: those taken so far: (kind, map) of each recorded attention.
        fault: why nothing is steered any more in this call, or None.
    """

    stages: list[Stage]
    forms: list[Forms]
    before: Callable | None = None
    records: tuple[slice, ...] = ()
    part: tuple[tuple[int, ...], tuple[int, int]] | None = None
    maps: list[tuple[str, Tensor]] = field(default_factory=list)
    fault: str | None = None
    _at: int = 0
    _used: dict[int, int] = field(default_factory=dict)
    _sizes: set[int] = field(default_factory=set)

    def __call__(
        self, plain: Callable, query: Tensor, key: Tensor, value: Tensor, heads: int, *args, **kwargs
    ) -> Tensor:
        # which attention of the call this is, and whether it is ours
        run = plain if self.before is None else functools.partial(self.before, plain)
        named = {**kwargs, **dict(zip(POSITIONAL, args))}
        separate = named.get("skip_reshape", False)
        stage = self._stage(key.shape[2 if separate else 1])
        count = query.shape[2 if separate else 1]
        if stage is None or not self._fits(stage, count, named):
            return run(query, key, value, heads, *args, **kwargs)
        attention = self.forms[self._at][count]
        layout, records = stage.layout, self.records if stage.recorded else ()
        if attention is None and not records:
            return run(query, key, value, heads, *args, **kwargs)

        # record, steer, or both
        sides = (query, key, value) if separate else _separated(query, key, value, heads)
        if attention is None:
            if count == stage.size and layout is not None:  # a reference without queries answers to nothing
                self._take("logit", lambda rows: logit_map(sides[0][rows], sides[1][rows], layout), records)
            return run(query, key, value, heads, *args, **kwargs)
        out, shares = attention(
            *sides, _backend(run, heads, named), _additive(named.get("mask"), query.dtype), named.get("scale")
        )
        if shares is not None and layout is not None:
            self._take("mass", lambda rows: _as_maps(shares[rows], layout), records)
        return out if named.get("skip_output_reshape", False) else rearrange(out, "b h s d -> b s (h d)")

    def _stage(self, keys: int) -> Stage | None:
        """Find the next stage with so many keys; the last such, where one runs more often than it should."""
        self._sizes.add(keys)
        fitting = [at for at, stage in enumerate(self.stages) if stage.size == keys]
        if not fitting:
            return None
        unfinished = (at for at in fitting if at >= self._at and self._used.get(at, 0) < self.stages[at].count)
        self._at = next(unfinished, fitting[-1])
        self._used[self._at] = self._used.get(self._at, 0) + 1
        return self.stages[self._at]

    def _fits(self, stage: Stage, queries: int, named: dict) -> bool:
        """Whether this attention is one of ours, and laid out as computed."""
        if stage.layout is None or self.fault is not None:
            return False
        tokens = (named.get("transformer_options") or {}).get("reference_image_num_tokens")
        if tokens is not None and stage.tokens and tuple(tokens) != stage.tokens:
            self.fault = f"expected references of {list(stage.tokens)} tokens, the model has {list(tokens)}"
        elif queries not in self.forms[self._at]:
            self.fault = f"expected {stage.size} queries in its {stage.name}, the model has {queries}"
        return self.fault is None

    def _take(self, kind: str, make: Callable[[slice], Tensor], records: tuple[slice, ...]) -> None:
        maps = map(make, records)
        self.maps += [(kind, each if self.part is None else in_picture(each, *self.part)) for each in maps]

    @property
    def called(self) -> bool:
        """After the call: whether any attention came here."""
        return bool(self._sizes)

    @property
    def mismatch(self) -> str | None:
        """After the call: why it was not steered, or not all of it."""
        missing = [stage for stage in self.stages if stage.layout is not None and stage.size not in self._sizes]
        if self.fault is not None or not missing:
            return self.fault
        if not self.called:
            return (
                "another node's attention override took the place of ours, or its copy of the network (TeaCache) asks "
                "for none. Put that node before Keep References in Place, or leave it out"
            )
        return (
            f"expected {missing[0].size} tokens in its {missing[0].name}, the model has attentions of "
            f"{', '.join(map(str, sorted(self._sizes)))}"
        )


def _separated(query: Tensor, key: Tensor, value: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, S, H d) to (B, H, S, d); keys may have fewer heads of the same width."""
    width = query.shape[-1] // heads
    query, key, value = (rearrange(side, "b s (h d) -> b h s d", d=width) for side in (query, key, value))
    return query, key, value


def _backend(run: Callable, heads: int, named: dict) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]:
    """Wrap the attention that would have run, for separate heads and our mask.

    Its result has heads in the channels.
    """
    options = {name: value for name, value in named.items() if name not in ("mask", "skip_output_reshape")}

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        grouped = {"enable_gqa": True} if key.shape[1] != query.shape[1] else {}
        return run(query, key, value, heads, mask=mask, **{**options, **grouped, "skip_reshape": True})

    return attend


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Convert a bool mask, True attends, to numbers to add."""
    return mask if mask is None or mask.dtype != torch.bool else as_bias(mask, dtype)


def _as_maps(shares: Tensor, layout: CallLayout) -> Tensor:
    """(B, R, frames h w) to (B, R, h, w), frames averaged."""
    rows, columns = layout.grid
    return rearrange(shares, "b r (t h w) -> b r t h w", h=rows, w=columns).mean(dim=2)
