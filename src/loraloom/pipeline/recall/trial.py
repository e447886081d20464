"""`loraloom recall bench`: what a base makes of invented sessions, by the commands that a person has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.errors import RequestError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.bench import MemoryBench, Watch, base_of_model
from loraloom.pipeline.recall.learning import learn
from loraloom.pipeline.recall.questionnaire import Marks, Questionnaire
from loraloom.pipeline.recall.sleeping import sleep
from loraloom.pipeline.recall.writing import write
from loraloom.recall.forms import Form
from loraloom.recall.memory import opened
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.workload import Workload, workload

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """What is answered at one time: by the bare base, after the sessions, after the sleep.

    Attributes:
        perplexity, known: of texts that the base wrote, and the share of its own answers still given.
        seconds: that it took to come here from the stage before.
    """

    name: str
    marks: Marks
    perplexity: float
    known: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        marks = self.marks
        return {
            "name": self.name,
            "verbatim": marks.share("verbatim"),
            "near": marks.share("near"),
            "far": marks.share("far"),
            "false_recall": marks.false_recall,
            "not_known": marks.not_known,
            "perplexity": self.perplexity,
            "known": self.known,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Trial:
    """A whole trial.

    Attributes:
        slept: what the journal says of the sleep.
    """

    made: Workload
    folder: Path
    stages: tuple[Stage, ...]
    slept: Record

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "seed": self.made.seed,
            "sessions": len(self.made.sessions),
            "items": len(self.made.items),
            "digest": self.made.digest,
            "stages": [stage.to_json() for stage in self.stages],
            "sleep": {name: self.slept[name] for name in ("committed", "reason", "replayed_rows")},
        }


@device_errors()
def trial(
    model: str, folder: Path, watch: Watch, *, items: int, sessions: int, seed: int, candidates: int = 1
) -> Trial:
    """Write and learn session by session, then sleep; ask everything before, between and after.

    Args:
        folder: where the memory is made.
        candidates: seeds that each `learn` trains at once.

    Raises:
        ModelError: the base cannot answer.
        RequestError: the folder is there already, or more is asked for than there are names.

        Nothing was started then.
    """
    if folder.exists():
        raise RequestError(f"`{folder}` is there already", next="--keep a folder that is not there yet")
    base_of_model(model)
    made = workload(seed, sessions=sessions, items=items)
    start = time.monotonic()
    records = in_sessions(folder, model, made, watch, candidates=candidates)
    learnt = time.monotonic()
    watch("asking everything")
    before, between = asked(folder, made, watch, base=True)
    asleep = time.monotonic()
    slept = sleep(folder, watch)
    assert slept is not None
    ended = time.monotonic()
    _, after = asked(folder, made, watch, base=False)
    first, last = records[0]["before"], slept.record
    now = last["after"] if last["committed"] else last["before"]
    assert before is not None
    stages = (
        Stage("base", before, first["perplexity"], first["known"], 0.0),
        Stage("learnt", between, last["before"]["perplexity"], last["before"]["known"], learnt - start),
        Stage("slept", after, now["perplexity"], now["known"], ended - asleep),
    )
    return Trial(made, folder, stages, last)


def in_sessions(
    folder: Path,
    model: str,
    made: Workload,
    watch: Watch,
    *,
    candidates: int = 1,
    recipe: Recipe = RECIPE,
    after: Callable[[int], None] = lambda number: None,
) -> list[Record]:
    """Write and learn one session after another; what the journal says of each.

    Args:
        after: called when a session is learnt, with its number from 1.
    """
    records: list[Record] = []
    for number, rows in enumerate(made.sessions, 1):
        watch(f"session {number} of {len(made.sessions)}")
        write(folder, model, [], rows, watch)
        records.append(learn(folder, watch, seeds=candidates, recipe=recipe).record)
        after(number)
    return records


def asked(folder: Path, made: Workload, watch: Watch, *, base: bool) -> tuple[Marks | None, Marks]:
    """What the base answers (None where it is not asked), and what the memory in a folder does."""
    with opened(folder) as memory:
        bench = MemoryBench(memory, [Form("", item.question, item.answer) for item in made.items], watch)
        put = Questionnaire(bench, made.questions, [item.answer for item in made.items])
        return put.marks(None) if base else None, put.marks(bench.total)
