"""`loraloom recall write`: items through the gate and into the journal. Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loraloom.data.batches import collate
from loraloom.data.load import load_table
from loraloom.data.rows import Row
from loraloom.errors import RequestError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench, Watch, base_of_model
from loraloom.recall.forms import Form
from loraloom.recall.gate import Decision, Seen, Vectors, decided
from loraloom.recall.items import MemoryItem, check_maps, items_of
from loraloom.recall.journal import now
from loraloom.recall.memory import Memory, opened

VECTOR_ROWS = 64
"""Questions that are read together for their keys."""


@device_errors()
def write(
    folder: Path,
    model: str | None,
    data: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    watch: Watch,
    *,
    write_rate: float | None = None,
    dry_run: bool = False,
) -> tuple[Memory, list[Decision]]:
    """Let the gate decide of each item, and keep what it says.

    Args:
        model: the base of a memory that is not there yet; of one that is, it may be left out.
        data: files of items.
        rows: items beside those.
        write_rate: share of what was ever seen that should be written; None writes all that is new.
        dry_run: say what would be written, and write nothing.

    Raises:
        RequestError: an item cannot be used; nothing was written.
    """
    if write_rate is not None and not 0 < write_rate <= 1:
        raise RequestError(f"--write-rate is {write_rate:g}", need="above 0, at most 1")
    items = items_of([*_rows_of_files(data), *(("the command line", row) for row in rows)], now())
    base = None if model is None else base_of_model(model)
    with opened(folder, base, writes=not dry_run) as memory:
        bench = MemoryBench(memory, [_form(item) for item in items], watch)
        watch(f"looking at {len(items):,} items")
        kept = [entry.item for entry in memory.state.kept]
        check_maps(items, kept)
        stored, mean = stored_vectors(bench, kept)
        decisions = decided(
            _seen(bench, items, mean),
            memory.state,
            stored,
            guessing=math.log(bench.base.model.config.get_text_config().vocab_size),
            write_rate=write_rate,
        )
        if not dry_run:
            memory.record({"op": "write", "decisions": [asdict(one) for one in decisions]})
        return memory, decisions


def _rows_of_files(data: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    if not data:
        return []
    table = load_table(data)
    return [
        (table.origin(i), {key: value for key, value in row.items() if value is not None})
        for i, row in enumerate(table.rows)
    ]


def _seen(bench: MemoryBench, items: Sequence[MemoryItem], mean: NDArray[np.float32]) -> list[Seen]:
    rows = bench.rows([_form(item) for item in items])
    with bench.seated({CURRENT: bench.total}) as trials:
        sums = next(iter(bench.sums(rows, trials).values()))
    vectors = normal(raw_vectors(bench, [item.question for item in items]) - mean)
    losses = sums.loss / sums.weight
    right = sums.correct == sums.weight
    return [
        Seen(item, float(loss), bool(fine), vector)
        for item, loss, fine, vector in zip(items, losses, right, vectors, strict=True)
    ]


def _form(item: MemoryItem) -> Form:
    return Form(item.id, item.question, item.answer)


# -- keys ----------------------------------------------------------------------------------------------


def stored_vectors(
    bench: MemoryBench, items: Sequence[MemoryItem]
) -> tuple[Vectors, NDArray[np.float32]]:
    """Keys of the stored questions, [items, D], and the mean that they are measured from, [D].

    The mean is that of texts which have nothing to do with the memory: hidden states of all texts point
    the same way to a large part.
    """
    mean = raw_vectors(bench, COMMON).mean(0)
    raw = raw_vectors(bench, [item.question for item in items])
    return normal(raw - mean), mean


def normal(vectors_ND: NDArray[np.float32]) -> Vectors:
    """The same directions, of length 1."""
    return vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=-1, keepdims=True), 1e-9)


@torch.no_grad()
def raw_vectors(bench: MemoryBench, texts: Sequence[str]) -> NDArray[np.float32]:
    """The base's hidden states after its middle block, averaged over the tokens of each text, [N, D]."""
    width = bench.base.model.config.get_text_config().hidden_size
    found = np.zeros((len(texts), width), dtype=np.float32)
    tokenizer = bench.base.tokenizer
    rows = [
        Row(ids, ids)
        for text in texts
        for ids in [np.array(tokenizer([text], add_special_tokens=False)["input_ids"][0], np.int32)]
    ]
    order = sorted((i for i in range(len(rows)) if len(rows[i])), key=lambda i: len(rows[i]))
    for start in range(0, len(order), VECTOR_ROWS):
        chosen = order[start : start + VECTOR_ROWS]
        batch = collate([rows[i] for i in chosen], bench.base.pad_id, "causal_lm").to(
            bench.packed.device
        )
        with bench.packed.base_only() as model:
            states = model(input_ids=batch.input_ids, output_hidden_states=True, use_cache=False)
        hidden_BTD = states.hidden_states[len(states.hidden_states) // 2].float()
        mask_BT1 = batch.attention_mask[..., None]
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        found[chosen] = mean_BD.cpu().numpy()
    return found


COMMON = (
    "What is the weather like today?",
    "How do I make a cup of tea?",
    "Who was the first king?",
    "Where is the nearest shop?",
    "When does the train leave?",
    "Tell me a story about a dog.",
    "Why is the sky blue?",
    "Which of these is the largest?",
    "What did the boy say to his mother?",
    "Name three kinds of fruit.",
)
