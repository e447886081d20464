"""Ask every rule about a candidate, and put what they found in order: the first finding
is the cause, the rest may follow."""

from __future__ import annotations

from collections.abc import Iterable

from loraloom.diagnose.across import ACROSS
from loraloom.diagnose.already_preferred import NAME as ALREADY_PREFERRED
from loraloom.diagnose.case import Case
from loraloom.diagnose.data import DATA
from loraloom.diagnose.rules import RULES
from loraloom.diagnose.unlike_test import NAME as UNLIKE_TEST
from loraloom.records import Finding

LEVELS = ("fault", "warning", "note")
ORDER = (*DATA, ALREADY_PREFERRED, UNLIKE_TEST, *RULES, *ACROSS)
"""Names of all findings, causes before their effects."""


def diagnose(case: Case) -> tuple[Finding, ...]:
    """What is wrong with a candidate; nothing where nothing is."""
    return tuple(ranked(found for rule in RULES.values() if (found := rule(case)) is not None))


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Faults, warnings, notes; within a level by `ORDER`."""
    return sorted(findings, key=rank)


def rank(finding: Finding) -> tuple[int, int]:
    """The place of a finding; a name that this version does not know stands last in its level."""
    known = finding.name in ORDER
    return LEVELS.index(finding.level), ORDER.index(finding.name) if known else len(ORDER)
