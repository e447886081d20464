"""What a classifier gives to each class, for rows of any length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loraloom.data.batches import collate
from loraloom.data.joined import padded_tokens
from loraloom.data.rows import Example, Row

TOKENS_A_PASS = 8192
ROWS_A_PASS = 256


def by_length(rows: Sequence[Example]) -> Iterator[list[int]]:
    """Numbers of rows, shortest rows first, in lots that fill a pass and need little padding."""
    order = sorted(range(len(rows)), key=lambda i: padded_tokens(rows[i]))
    start = 0
    while start < len(order):
        longest = padded_tokens(rows[order[min(start + 64, len(order) - 1)]])
        size = min(max(1, TOKENS_A_PASS // max(1, longest)), ROWS_A_PASS)
        yield order[start : start + size]
        start += size


@torch.no_grad()
def class_probabilities(
    model: Any, rows: Sequence[Row], pad_id: int, tick: Callable[[int], object] = lambda rows: None
) -> NDArray[np.float32]:
    """Probability of each class for each row, [rows, classes], in the order of the rows.

    Args:
        model: a classifier in eval mode, plain or PEFT's.
        tick: told how many rows are done, pass by pass.
    """
    options = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    found = np.zeros((len(rows), int(model.config.num_labels)), dtype=np.float32)
    for chosen in by_length(rows):
        batch = collate([rows[i] for i in chosen], pad_id, "seq_cls").to(model.device)
        logits = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), **options
        ).logits
        found[chosen] = logits.float().softmax(-1).cpu().numpy()
        tick(len(chosen))
    return found
