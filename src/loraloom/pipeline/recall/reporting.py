"""`loraloom recall report`: what a memory holds and what it answers now, on a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.anchors import anchors_of
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench, Watch
from loraloom.pipeline.recall.exam import Answered, Exam
from loraloom.pipeline.recall.routes import MapReport, map_reports
from loraloom.recall.derived import learnt_forms
from loraloom.recall.forgotten import FORGOTTEN, Forgotten
from loraloom.recall.forms import trained_forms
from loraloom.recall.graph import Drawn, drawn
from loraloom.recall.journal import as_it_was
from loraloom.recall.memory import PAGE, Memory, opened
from loraloom.recall.state import Entry, State
from loraloom.recall.verdict import Result
from loraloom.report.memory_page import render_memory
from loraloom.store.disk import write_whole


@dataclass(frozen=True)
class WakeRecall:
    """What is answered today of what was learnt at one time.

    Attributes:
        lag: how many wakes came after it.
    """

    wake: int
    lag: int
    items: int
    verbatim: float
    other_wordings: float


@dataclass(frozen=True)
class Report:
    """What a memory holds.

    Attributes:
        by_wake: recall of what is known, by when it was learnt.
        base, now: what the bare base and the memory answer of everything, and what the base is like
            under each; None where nothing was learnt.
        growth: bytes of the adapters and their ranks, by part.
        maps: what is known of each map, and the routes that are answered on it.
        page: where the page lies.
    """

    memory: Memory
    items: Sequence[Mapping[str, Any]]
    refused: Sequence[Mapping[str, Any]]
    by_wake: Sequence[WakeRecall]
    base: Result | None
    now: Result | None
    growth: Mapping[str, Mapping[str, int]]
    maps: Sequence[MapReport] = ()

    @property
    def page(self) -> Path:
        return self.memory.folder / PAGE

    def to_json(self) -> dict[str, Any]:
        """The document of `recall report --json`."""
        state = self.memory.state
        return {
            "memory": str(self.memory.folder),
            "base": asdict(self.memory.base),
            "generation": state.generation,
            "wakes": state.wakes,
            "sleeps": state.sleeps,
            "items": list(self.items),
            "refused": list(self.refused),
            "by_wake": [asdict(one) for one in self.by_wake],
            "before": None if self.base is None else asdict(self.base),
            "now": None if self.now is None else asdict(self.now),
            "growth": dict(self.growth),
            "maps": [one.to_json() for one in self.maps],
            "trainings": state.told,
            "notes": self.memory.notes,
        }


@device_errors()
def report(folder: Path, watch: Watch) -> Report:
    """Measure a memory, list what it holds, and write its page.

    Raises:
        StoreError: the disk refused the page.
    """
    with opened(folder) as memory:
        known = memory.state.known
        answered: Answered | None = None
        base: Answered | None = None
        growth: Mapping[str, Mapping[str, int]] = {}
        maps: Sequence[MapReport] = ()
        if known and memory.state.generation:
            forms = [form for entry in known for form in trained_forms(entry.item)]
            bench = MemoryBench(memory, forms, watch)
            derived = learnt_forms(known, held_out=True)
            exam = Exam(bench, [entry.item for entry in known], anchors_of(bench), derived)
            base = exam.taken_by([], {"": "base"})[0]
            with bench.seated({CURRENT: bench.total}) as trials:
                answered = exam.taken_by(trials)[0]
                maps = map_reports(bench, [entry.item for entry in known], trials[0])
            growth = {
                part: {"rank": update.rank, "bytes": _bytes(memory, part)}
                for part, update in bench.parts.items()
            }
        hidden = Forgotten(memory.state)
        found = Report(
            memory,
            [_listed(entry, answered, hidden) for entry in memory.state.entries.values()],
            [hidden.decision(one) for one in memory.state.refused],
            _by_wake(known, answered, memory.state.wakes),
            None if base is None else base.result,
            None if answered is None else answered.result,
            growth,
            maps,
        )
        writes = [
            {**record, "decisions": [hidden.decision(one) for one in record["decisions"]]}
            for record in memory.journal.records
            if record["op"] == "write"
        ]
        facts = [asdict(one) for one in _facts(memory.state)]
        text = render_memory(found.to_json(), writes, facts)
        with as_it_was(found.page):
            write_whole(found.page, text.encode("utf-8", "replace"))
        return found


def graph(folder: Path) -> tuple[Memory, list[Drawn]]:
    """The facts of a memory, as the journal has them; nothing is measured."""
    with opened(folder) as memory:
        return memory, _facts(memory.state)


def _facts(state: State) -> list[Drawn]:
    """Every fact that was written, without the objects of those that were forgotten."""
    hidden = Forgotten(state)
    return [
        replace(one, object=FORGOTTEN) if hidden.hides(state.entries[one.item].item) else one
        for one in drawn(list(state.entries.values()))
    ]


def _bytes(memory: Memory, part: Any) -> int:
    folder = memory.part(part)
    return 0 if folder is None else (folder / "adapter_model.safetensors").stat().st_size


def _listed(entry: Entry, answered: Answered | None, hidden: Forgotten) -> dict[str, Any]:
    item = entry.item
    return {
        "id": item.id,
        "kind": item.kind,
        "question": item.question,
        "answer": hidden.answer(item),
        "standing": entry.standing,
        "wake": entry.wake,
        "consolidated": entry.consolidated,
        "sightings": entry.sightings,
        "source": item.source,
        "time": item.time,
        "supersedes": item.supersedes,
        "answered": None if answered is None else answered.verbatim.get(item.id),
        "other_wordings": None if answered is None else answered.right.get(item.id),
    }


def _by_wake(known: Sequence[Entry], answered: Answered | None, wakes: int) -> list[WakeRecall]:
    if answered is None:
        return []
    found: dict[int, list[str]] = {}
    for entry in known:
        if entry.wake is not None:
            found.setdefault(entry.wake, []).append(entry.id)
    return [
        WakeRecall(
            wake,
            wakes - wake,
            len(names),
            float(np.mean([answered.verbatim[name] for name in names])),
            float(np.mean([answered.right.get(name, 1.0) for name in names])),
        )
        for wake, names in sorted(found.items())
    ]
