"""The findings of a run in the order in which they are worth reading."""

from __future__ import annotations

from loraloom.diagnose.order import rank
from loraloom.records import Finding
from loraloom.store.result import RunResult


def findings(result: RunResult) -> list[tuple[str, Finding]]:
    """Findings of the run and of its trials, each with the trial it is about: faults
    first, causes before effects."""
    found = [("", finding) for finding in result.findings]
    found += [(trial.id, finding) for trial in result.trials for finding in trial.findings]
    return sorted(found, key=lambda item: rank(item[1]))
