"""DreamO's step as its ComfyUI port takes it: Flux's forward written out again, with one line added.

Our own words for what ToTheBeginning/ComfyUI-DreamO does (references concatenated to the image tokens, one embedding
for all of them added after the input projection, positions made in the compute dtype), on ComfyUI's own layers. It is
what ours is measured against, to the bit and to the millisecond; nothing of the pack uses it.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def published_step(
    network,
    x: Tensor,
    time: Tensor,
    context: Tensor,
    y: Tensor,
    guidance: Tensor,
    references: list[Tensor],
    task: Tensor,
    index: Tensor,
) -> Tensor:
    """One call of a ComfyUI Flux with references 1, 2, ... in latents as the model sees them."""
    from comfy.ldm.flux.layers import timestep_embedding

    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    tokens, ids = [_tokens(x)], [_ids(rows, columns, 0, 0, x)]
    embedding = [task[1].expand(rows * columns, -1)]
    top, left = rows, columns
    for number, reference in enumerate(references, start=1):
        height, width = reference.shape[-2] // 2, reference.shape[-1] // 2
        tokens.append(_tokens(reference))
        ids.append(_ids(height, width, top, left, x))
        embedding.append((task[0] + index[number]).expand(height * width, -1))
        top, left = top + height, left + width
    img = network.img_in(torch.cat(tokens, dim=1))
    img = img + torch.cat(embedding)[None].to(img)
    txt = network.txt_in(context)
    vec = network.time_in(timestep_embedding(time, 256).to(img.dtype))
    vec = vec + network.guidance_in(timestep_embedding(guidance, 256).to(img.dtype))
    vec = vec + network.vector_in(y)
    places = torch.cat((torch.zeros(context.shape[1], 3).to(x), *ids))[None].expand(x.shape[0], -1, -1)
    rotary = network.pe_embedder(places)
    for block in network.double_blocks:
        img, txt = block(img=img, txt=txt, vec=vec, pe=rotary)
    both = torch.cat((txt, img), dim=1)
    for block in network.single_blocks:
        both = block(both, vec=vec, pe=rotary)
    out = network.final_layer(both[:, txt.shape[1] :], vec)[:, : rows * columns]
    return rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=2, q=2)


def _tokens(latent: Tensor) -> Tensor:
    return rearrange(latent, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def _ids(rows: int, columns: int, top: int, left: int, like: Tensor) -> Tensor:
    """(rows * columns, 3) in the compute dtype."""
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] = torch.arange(top, top + rows)[:, None]
    ids[..., 2] = torch.arange(left, left + columns)
    return ids.flatten(0, 1).to(like)
