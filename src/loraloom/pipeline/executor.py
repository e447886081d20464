"""Where the candidates of a run are trained."""

from __future__ import annotations

from loraloom.execute import Executor
from loraloom.execute.inline import Inline
from loraloom.pipeline.examine import Examiner
from loraloom.pipeline.workbench import Workbench
from loraloom.train.worker import Worker


def executor_of(bench: Workbench) -> Executor:
    """The executor of a run that trains on this bench."""
    return Inline(Worker("inline", bench.trainer, bench.save, Examiner(bench).examine))
