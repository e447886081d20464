"""`loraloom recall learn`: what was written and not yet learnt goes into the fast adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloom.errors import RequestError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.bench import MemoryBench, Watch
from loraloom.pipeline.recall.settle import rebuilt
from loraloom.pipeline.recall.update import Update
from loraloom.pipeline.recall.wake import wake
from loraloom.recall.forms import trained_forms
from loraloom.recall.graph import built_upon
from loraloom.recall.memory import Memory, Part, opened
from loraloom.recall.recipe import RECIPE, Recipe

SEEDS = 2
"""That are learnt at once; the better one is kept."""

Writers = Mapping[Part, Callable[[Path], None]]
"""What writes each adapter of a generation into a folder."""


@dataclass(frozen=True)
class Trained:
    """What a training of a memory did, for people and for `--json`."""

    memory: Memory
    record: Mapping[str, Any]


@device_errors()
def learn(
    folder: Path,
    watch: Watch,
    *,
    seeds: int = SEEDS,
    rebuild: bool = False,
    recipe: Recipe = RECIPE,
) -> Trained:
    """Learn what waits, and commit a new generation.

    Args:
        seeds: candidates that train at once.
        rebuild: train everything anew from the journal, into a slow adapter and no fast one.

    Raises:
        RequestError: there is nothing to learn.
    """
    with opened(folder, writes=True) as memory:
        state = memory.state
        new = list(state.kept if rebuild else state.unlearnt)
        if not new:
            raise RequestError(
                "there is nothing to learn",
                where=str(folder),
                got=f"{len(state.known):,} items, all of them learnt",
                next=f"loraloom recall write {folder} --data items.jsonl",
            )
        forms = [form for entry in new for form in trained_forms(entry.item)]
        bench = MemoryBench(memory, forms, watch)
        if rebuild:
            made = rebuilt(bench, new, seeds=seeds, recipe=recipe)
            writers: Writers = {"slow": bench.writer(made.update)}
            about: dict[str, Any] = {
                "rebuilt": True,
                "composed": built_upon(new),
                "after": asdict(made.after.result),
            }
            losses = made.after.losses
        else:
            learnt = wake(bench, new, state.known, bench.parts, candidates=seeds, recipe=recipe)
            writers = writers_of(bench, learnt.total)
            about = {
                "rebuilt": False,
                "steps": learnt.steps,
                "planned_steps": learnt.planned,
                "tokens": learnt.tokens,
                "before": asdict(learnt.before.result),
                "after": asdict(learnt.after.result),
                "candidates": [asdict(one.result) for one in learnt.candidates],
                "unsure": [entry.id for entry in new if not learnt.after.verbatim[entry.id]],
            }
            losses = learnt.after.losses
        record = {"op": "learn", "learnt": [entry.id for entry in new], "losses": losses, **about}
        memory.commit(writers, record)
        return Trained(memory, memory.journal.records[-1])


def writers_of(bench: MemoryBench, total: Update) -> Writers:
    """What writes slow and fast, of which `total` is both."""
    slow = bench.parts.get("slow")
    if slow is None:
        return {"fast": bench.writer(total)}
    if total.rank == slow.rank:
        return {"slow": bench.writer(total)}
    first, rest = total.parts(slow.rank)
    return {"slow": bench.writer(first), "fast": bench.writer(rest)}
