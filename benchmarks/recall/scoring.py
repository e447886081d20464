"""What is measured of every method, in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from base_tasks import base_tasks

from loraloom.pipeline.recall.bench import MemoryBench
from loraloom.pipeline.recall.questionnaire import Marks, Questionnaire
from loraloom.pipeline.recall.update import Update, read_update
from loraloom.recall.forms import Form
from loraloom.recall.memory import opened
from loraloom.recall.router import Router
from loraloom.recall.workload import Workload

WAYS = ("verbatim", "near", "far", "unseen", "unseen near", "unseen far")


def quiet(sentence: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Routed:
    """An update that answers what the router finds in the memory; the bare base answers the rest."""

    update: Update
    router: Router


Answering = Update | Routed | Marks | None
"""What gives answers; None is the bare base, marks are answers that were given already."""


class Scorer:
    """A workload's questions and the base's own tasks, put to updates.

    Args:
        folder: of a memory over the base.
    """

    def __init__(self, folder: Path, made: Workload, shared: Path) -> None:
        self.made = made
        with opened(folder) as memory:
            forms = [Form("", item.question, item.answer) for item in made.items]
            self.bench = MemoryBench(memory, forms, quiet)
        self.put = Questionnaire(self.bench, made.questions, [item.answer for item in made.items])
        self.tasks = base_tasks(self.bench, shared)

    def total(self, folder: Path) -> Update | None:
        """What a memory has learnt, both adapters together."""
        with opened(folder) as memory:
            parts = [memory.part("slow"), memory.part("fast")]
        found = [read_update(part) for part in parts if part is not None]
        if not found:
            return None
        return found[0] if len(found) == 1 else found[0].beside(found[1])

    def scored(self, answering: Answering) -> dict[str, Any]:
        """Everything; the base's own tasks are the bare base's where nothing was learnt."""
        router = None
        if isinstance(answering, Marks):
            marks, update = answering, None
        elif isinstance(answering, Routed):
            marks, update, router = self._routed(answering), answering.update, answering.router
        else:
            marks, update = self.put.marks(answering), answering
        of_base = self.tasks.measured(self.bench, update, router)
        return scores(self.made, marks) | {"base": of_base}

    def _routed(self, routed: Routed) -> Marks:
        own, base = self.put.marks(routed.update), self.put.marks(None)
        remembered = [routed.router.route(one.question).remembered for one in own.questions]
        return Marks(
            own.questions,
            np.where(remembered, own.right, base.right),
            np.where(remembered, own.stored, base.stored),
        )

    def routed(self, folder: Path) -> Routed:
        """A memory as `recall ask` answers by it."""
        update = self.total(folder)
        assert update is not None
        with opened(folder) as memory:
            return Routed(update, Router.of(memory.state))

    def by_session(self, update: Update | None, sessions: int) -> list[float]:
        """Recall as written of each of the first sessions."""
        part = self.made.until(sessions)
        asked = [one for one in part.questions if one.way == "verbatim"]
        put = Questionnaire(self.bench, asked, [item.answer for item in part.items])
        right = put.marks(update).right
        return [float(right[place].mean()) for place in np.split(np.arange(len(right)), sessions)]


def scores(made: Workload, marks: Marks) -> dict[str, Any]:
    """Shares, and every single mark as a digit, for comparisons in pairs."""
    digits = {
        way: "".join(
            str(int(right))
            for one, right in zip(marks.questions, marks.right, strict=True)
            if one.way == way
        )
        for way in WAYS
    }
    first = [made.session_of(one.item) == 0 and one.way == "verbatim" for one in marks.questions]
    return {
        **{way: marks.share(way) for way in ("verbatim", "near", "far")},
        "first_session": float(marks.right[first].mean()),
        "false_recall": marks.false_recall,
        "not_known": marks.not_known,
        "false_recall_by_way": {
            way: float(marks.stored[[one.way == way for one in marks.questions]].mean())
            for way in WAYS[3:]
        },
        "right": digits,
    }
