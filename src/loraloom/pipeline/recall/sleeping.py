"""`loraloom recall sleep`: what was learnt is settled in the slow adapter, or nothing changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from loraloom.errors import RequestError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.bench import MemoryBench, Watch
from loraloom.pipeline.recall.learning import Trained
from loraloom.pipeline.recall.settle import settled
from loraloom.recall.forms import trained_forms
from loraloom.recall.graph import built_upon
from loraloom.recall.memory import opened
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.verdict import worse


@device_errors()
def sleep(folder: Path, watch: Watch, *, recipe: Recipe = RECIPE) -> Trained | None:
    """Settle what was learnt; None where everything is settled already, and nothing is done.

    Raises:
        RequestError: nothing was learnt, so that nothing could be replayed.
    """
    with opened(folder, writes=True) as memory:
        known = memory.state.known
        if not known:
            waiting = len(memory.state.unlearnt)
            raise RequestError(
                "0 items would be replayed, and a sleep that replays nothing settles nothing",
                where=str(folder),
                got=f"{waiting:,} items that are written and not learnt" if waiting else "no items",
                next=f"loraloom recall learn {folder}" if waiting else "write some first",
            )
        composed = built_upon(known)
        to_build = any(not memory.state.entries[name].composed for name in composed)
        settled_all = memory.part("fast") is None and all(entry.consolidated for entry in known)
        if settled_all and not to_build:
            return None
        forms = [form for entry in known for form in trained_forms(entry.item)]
        bench = MemoryBench(memory, forms, watch)
        total = bench.total
        assert total is not None
        made = settled(bench, known, total, recipe)
        reason = worse(made.after.result, made.before.result)
        record = {
            "op": "sleep",
            "committed": reason is None,
            "reason": reason,
            "replayed": [entry.id for entry in known],
            "composed": composed,
            "replayed_rows": made.replayed,
            "steps": made.steps,
            "tokens": made.tokens,
            "losses": made.after.losses if reason is None else made.before.losses,
            "before": asdict(made.before.result),
            "after": asdict(made.after.result),
            "candidates": [asdict(one.result) for one in made.candidates],
        }
        if reason is None:
            memory.commit({"slow": bench.writer(made.update)}, record)
        else:
            memory.record(record)
        return Trained(memory, memory.journal.records[-1])
