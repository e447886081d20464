"""Every check, once, in the order in which they are told. A check is a function from a
`Subject` to a `CheckResult`."""

from __future__ import annotations

from importlib import import_module

from loraloom.pipeline.preflight.result import CheckResult, refused
from loraloom.pipeline.preflight.subject import Subject

CHECKS = (
    "labels",
    "stop",
    "template",
    "targets",
    "embeddings",
    "memory",
    "gradients",
    "precision",
    "bits",
    "deployment",
    "safety",
)
"""Modules of this package, each with a function `inspect`; imported when they are asked, since some
bring a trainer along."""

OF_JUDGED = ("balance",)
"""Further ones, of answers that were judged one by one (KTO)."""

BEFORE_TRAINING = ("labels", "stop", "template", "targets", "embeddings", "precision", "deployment")
"""Checks that need no pass through the model and whose faults nothing else refuses
before a run starts."""
OF_ROWS = ("labels", "stop", "template")
"""Those that ask no more than the rows and the tokenizer: a plan has time for them."""


def run_checks(subject: Subject) -> tuple[CheckResult, ...]:
    """The result of every check that there is for this request, in their order."""
    further = OF_JUDGED if subject.facts.data.judged else ()
    return tuple(run_check(name, subject) for name in (*CHECKS, *further))


def run_check(name: str, subject: Subject) -> CheckResult:
    """One check; where the program has already refused its matter, that refusal."""
    if name in subject.refused:
        return refused(name, subject.refused[name])
    return import_module(f"{__name__}.{name}").inspect(subject)


def refuse_faults(subject: Subject) -> None:
    """Say no to a request that would train the wrong thing, as `loraloom check` would.

    Raises:
        RequestError: the first fault.
    """
    for name in BEFORE_TRAINING:
        result = run_check(name, subject)
        if result.level == "fail":
            raise result.to_error()


def foretold(subject: Subject) -> tuple[str, ...]:
    """What `train` would refuse of the rows, as sentences for a plan, which refuses
    nothing that it can still plan for."""
    results = [run_check(name, subject) for name in OF_ROWS]
    return tuple(
        f"train will refuse this: {result.what} ({result.number}); {result.command}"
        for result in results
        if result.level == "fail"
    )
