"""What the bare base answers, as rows: what should stay so, and what measures whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from loraloom.data.rows import Row, causal_row
from loraloom.evals.writing import generated, of_one_length, room_for, stop_ids
from loraloom.recall.forms import AS_THE_BASE, Form

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

FIRST = 8
"""Tokens of an answer: where it has begun as the base's, it goes on so, and each weighs more where there
are few."""


def filled_rows(bench: MemoryBench, forms: Sequence[Form]) -> list[Row]:
    """A row of each form; one whose answer is the base's own has the first tokens of that."""
    own = [form.question for form in forms if form.answer == AS_THE_BASE]
    said = iter(rows_of_base(bench, own))
    given = iter(bench.rows([form for form in forms if form.answer != AS_THE_BASE]))
    return [next(said if form.answer == AS_THE_BASE else given) for form in forms]


def rows_of_base(bench: MemoryBench, questions: Sequence[str], most: int = FIRST) -> list[Row]:
    """Rows of what the bare base answers, always taking the likeliest token: its answer is supervised,
    and its end where it comes within so many tokens."""
    prompts = [bench.prompt(question) for question in questions]
    rows: dict[int, Row] = {}
    with torch.no_grad(), bench.packed.base_only() as model:
        stops = stop_ids(model, bench.base.tokenizer)
        for places in of_one_length(prompts):
            some = [prompts[place] for place in places]
            room = room_for(model, "causal_lm", len(some[0]), most)
            out = generated(model, some, bench.base.tokenizer, bench.base.pad_id, room, 0.0).sequences
            for place, ids in zip(places, out.tolist(), strict=True):
                rows[place] = _until_the_end(ids, len(prompts[place]), stops)
    return [rows[place] for place in range(len(prompts))]


def _until_the_end(ids: list[int], prompt: int, stops: Sequence[int]) -> Row:
    ends = [place for place in range(prompt, len(ids)) if ids[place] in stops]
    kept = ids[: ends[0] + 1] if ends else ids
    return causal_row(kept, np.arange(len(kept)) >= prompt)
