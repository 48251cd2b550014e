"""Prompts with their clauses as token ids, and where each subject's words stand among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.subject.fused_prompt import fused_prompt, placeholder_positions

from ..common.errors import UserErrors, first_few
from ..config.subject import AdapterConfig
from ..host_diffusers.fused_text import LENGTH, PromptTokens
from .prompt_spans import token_spans
from .subject_scenes import SubjectScene

_MOST = 10  # faults that are spelled out


@dataclass(frozen=True, eq=False)
class PromptRow:
    """One prompt.

    Attributes:
        prompt: its words, clauses included.
        ids: for each text encoder (77,).
        placeholders: (S,) positions of the subjects' placeholders; -1 where words are not fused.
        labels: (S,) position of the last token of each label; -1 where the prompt does not have it.
    """

    prompt: str
    ids: tuple[Tensor, ...]
    placeholders: Tensor
    labels: Tensor


def prompt_rows(scenes: Sequence[SubjectScene], tokens: PromptTokens, adapter: AdapterConfig) -> list[PromptRow]:
    """Tokenise every row's prompt; where it is too long for its clauses, the caption's last words are left out.

    Raises:
        UserErrors: prompts of which a word has the placeholder's token in it.
    """
    prompts = [_fitting(scene, tokens, adapter) for scene in scenes]
    ids = tokens.ids(prompts)
    rows, faults = [], []
    for index, (scene, prompt) in enumerate(zip(scenes, prompts)):
        row_ids = tuple(of_encoder[index].clone() for of_encoder in ids)
        if adapter.fused_words:
            positions = placeholder_positions(row_ids[0].tolist(), tokens.placeholder)
            if len(positions) != len(scene.names):
                faults.append(
                    f"{scene.name}: a word of its prompt {scene.prompt!r} has the placeholder's token in it. Choose "
                    "another adapter.placeholder."
                )
            placeholders = torch.tensor(positions[-len(scene.names) :])
            labels = placeholders - tokens.tokens_between
        else:
            placeholders = torch.full((len(scene.names),), -1)
            spans = token_spans(prompt, scene.names, tokens.count_tokens)
            labels = torch.tensor([span[1] - 1 if span and span[1] < LENGTH else -1 for span in spans])
        rows.append(PromptRow(prompt, row_ids, placeholders, labels))
    if faults:
        raise UserErrors(first_few(faults, _MOST))
    return rows


def _fitting(scene: SubjectScene, tokens: PromptTokens, adapter: AdapterConfig) -> str:
    words = scene.prompt.split()
    while True:
        caption = " ".join(words)
        whole = fused_prompt(caption, scene.names, adapter.placeholder) if adapter.fused_words else caption
        if tokens.count_tokens(whole) <= LENGTH - 2 or not words:
            return whole
        words.pop()
