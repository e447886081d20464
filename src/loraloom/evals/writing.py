"""What a model writes for rows of data: the prompt of each row, what should follow it, and what does."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from loraloom.data.rows import IGNORED, Row
from loraloom.records import Task

PROMPT_SHARE = 2
"""Of a plain text the first 1 / PROMPT_SHARE is the prompt."""
BATCH = 16
"""Prompts that are continued together."""


@dataclass(frozen=True)
class Exercise:
    """Token ids of one prompt and of what should follow."""

    prompt: tuple[int, ...]
    wanted: tuple[int, ...]


def exercise(row: Row, task: Task) -> Exercise:
    """The first thing that is learnt in `row`, and all that stands before it.

    Of a conversation that is the first answer. A plain text has nothing that is only
    read, so its first half is the prompt.
    """
    if task == "seq2seq_lm":
        return Exercise(tuple(row.input_ids.tolist()), tuple(row.labels[row.labels != IGNORED].tolist()))
    learnt = row.labels != IGNORED
    start = int(np.argmax(learnt)) if learnt.any() else len(learnt)
    if start <= 1:
        start = max(1, len(learnt) // PROMPT_SHARE)
    silent = np.flatnonzero(~learnt[start:])
    end = start + int(silent[0]) if len(silent) else len(learnt)
    return Exercise(tuple(row.input_ids[:start].tolist()), tuple(row.input_ids[start:end].tolist()))


def written(
    model: Any,
    exercises: Sequence[Exercise],
    tokenizer: Any,
    *,
    task: Task,
    pad_id: int,
    max_new_tokens: int,
) -> list[str]:
    """What `model` (plain or PEFT, in eval mode) writes for each prompt, always taking
    the likeliest token.

    Prompts of equal length go together, so that none is padded and each reads what it would read alone.
    """
    texts = [""] * len(exercises)
    for chosen in of_one_length([exercise.prompt for exercise in exercises]):
        prompts = [exercises[i].prompt for i in chosen]
        new = continuations(
            model, prompts, tokenizer, task=task, pad_id=pad_id, max_new_tokens=max_new_tokens
        )
        for place, text in zip(chosen, new, strict=True):
            texts[place] = text
    return texts


def of_one_length(prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of prompts, shortest first, in lots of one length that are continued together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for _, same in groupby(order, key=lambda i: len(prompts[i])):
        places = list(same)
        yield from (places[start : start + BATCH] for start in range(0, len(places), BATCH))


@torch.no_grad()
def continuations(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    *,
    task: Task,
    pad_id: int,
    max_new_tokens: int,
    temperature: float = 0.0,
) -> list[str]:
    """What `model` writes after prompts (token ids) of one length; nothing where it has
    no positions left for it.

    Args:
        temperature: 0 always takes the likeliest token; above, the model's own
            generation_config.json says how to sample.
    """
    length = len(prompts[0])
    room = room_for(model, task, length, max_new_tokens)
    if room <= 0:
        return [""] * len(prompts)
    out = generated(model, prompts, tokenizer, pad_id, room, temperature).sequences
    new = out if task == "seq2seq_lm" else out[:, length:]
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in new]


def room_for(model: Any, task: Task, length: int, max_new_tokens: int) -> int:
    """Tokens that may follow a prompt of `length` tokens."""
    limit = position_limit(model, task)
    return max_new_tokens if limit is None else min(max_new_tokens, limit - length)


def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    pad_id: int,
    room: int,
    temperature: float,
    **more: Any,
) -> Any:
    """What `model.generate` returns for prompts of one length. `more` goes to it as it is."""
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    )
    inputs = torch.tensor(prompts, device=model.device)
    with contextlib.nullcontext() if temperature > 0 else _likeliest(model):
        return model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=room,
            pad_token_id=pad_id,
            eos_token_id=stop_ids(model, tokenizer) or None,
            return_dict_in_generate=True,
            **sampling,
            **more,
        )


@contextlib.contextmanager
def _likeliest(model: Any) -> Generator[None]:
    """Of the model's generation_config only the ids of special tokens count.

    Many ask for beams, a penalty on repetition or a least length, and then it is
    another token that is taken.
    """
    from transformers import GenerationConfig

    owner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = owner.generation_config
    ids = {
        name: value
        for name, value in own.to_dict().items()
        if name.endswith("_token_id") and value is not None
    }
    owner.generation_config = GenerationConfig(**ids)
    try:
        yield
    finally:
        owner.generation_config = own


def position_limit(model: Any, task: Task) -> int | None:
    """Tokens that prompt and answer may have together; None where there is no bound, or
    each has its own."""
    return None if task == "seq2seq_lm" else getattr(model.config, "max_position_embeddings", None)


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a text: the tokenizer's, and those that the model itself names beside it."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    own = [] if found is None else list(found) if isinstance(found, (list, tuple)) else [found]
    return sorted({tokenizer.eos_token_id, *own} - {None})
