"""Every check, once, in the order in which they are told. A check is a function from a `Subject` to a `CheckResult`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loraloom.pipeline.preflight import (
    deployment,
    embeddings,
    gradients,
    labels,
    memory,
    precision,
    safety,
    stop,
    targets,
    template,
)
from loraloom.pipeline.preflight.result import CheckResult, refused
from loraloom.pipeline.preflight.subject import Subject

Check = Callable[[Subject], CheckResult]

CHECKS: Mapping[str, Check] = {
    module.NAME: module.inspect
    for module in (labels, stop, template, targets, embeddings, memory, gradients, precision, deployment, safety)
}

BEFORE_TRAINING = ("labels", "stop", "template", "targets", "embeddings", "precision", "deployment")
"""Checks that need no pass through the model and whose faults nothing else refuses before a run starts."""


def run_checks(subject: Subject) -> tuple[CheckResult, ...]:
    """The result of every check, in their order."""
    return tuple(run_check(name, subject) for name in CHECKS)


def run_check(name: str, subject: Subject) -> CheckResult:
    """One check; where the program has already refused its matter, that refusal."""
    if name in subject.refused:
        return refused(name, subject.refused[name])
    return CHECKS[name](subject)


def refuse_faults(subject: Subject) -> None:
    """Say no to a request that would train the wrong thing, as `loraloom check` would.

    Raises:
        RequestError: the first fault.
    """
    for name in BEFORE_TRAINING:
        result = run_check(name, subject)
        if result.level == "fail":
            raise result.to_error()
