"""`loraloom recall write`: items through the gate and into the journal. Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loraloom.data.load import load_table
from loraloom.errors import RequestError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench, Watch, base_of_model
from loraloom.pipeline.recall.keys import scope_vectors
from loraloom.recall.corrections import check_corrections
from loraloom.recall.forms import Form
from loraloom.recall.gate import Decision, Seen, decided
from loraloom.recall.items import MemoryItem, check_maps, items_of
from loraloom.recall.journal import now
from loraloom.recall.lexicon import EVERYDAY
from loraloom.recall.memory import Memory, opened


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
        write_rate: share of what is seen that should be written; None writes all that is new.
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
        check_corrections(items, memory.state, str(folder))
        decisions = decided(
            _seen(bench, items),
            memory.state,
            scope_vectors(bench, [item.question for item in kept]),
            scope_vectors(bench, EVERYDAY),
            guessing=math.log(bench.base.model.config.get_text_config().vocab_size),
            write_rate=write_rate,
        )
        if not dry_run:
            memory.record({"op": "write", "decisions": [asdict(one) for one in decisions]})
            bench.states.keep()
        return memory, decisions


def _rows_of_files(data: Sequence[str]) -> list[tuple[str, Mapping[str, Any]]]:
    if not data:
        return []
    table = load_table(data)
    return [
        (table.origin(i), {key: value for key, value in row.items() if value is not None})
        for i, row in enumerate(table.rows)
    ]


def _seen(bench: MemoryBench, items: Sequence[MemoryItem]) -> list[Seen]:
    rows = bench.rows([_form(item) for item in items])
    with bench.seated({CURRENT: bench.total}) as trials:
        sums = next(iter(bench.sums(rows, trials).values()))
    vectors = scope_vectors(bench, [item.question for item in items])
    losses = sums.loss / sums.weight
    right = sums.correct == sums.weight
    return [
        Seen(item, float(loss), bool(fine), vector)
        for item, loss, fine, vector in zip(items, losses, right, vectors, strict=True)
    ]


def _form(item: MemoryItem) -> Form:
    return Form(item.id, item.question, item.answer)
