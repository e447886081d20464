"""How goals and presets change what the rules say: a small function for each setting. The reason of
what it gives names the goal or the preset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from loraloom.plan.case import Case
from loraloom.records import Advice, Grade


@dataclass(frozen=True)
class Bent:
    """What a bend makes of a rule's advice. Where `range` is None the rule's own stands."""

    value: Any
    why: str
    source: str
    grade: Grade
    range: tuple[Any, ...] | None = None


Bend = Callable[[Case, Advice], Bent | None]
"""From the rule's advice to another; None leaves it alone."""


@dataclass(frozen=True)
class Lean:
    """A named way to lean: what it is for, and what it does to which setting."""

    says: str
    bends: Mapping[str, Bend]


def bent(advice: Advice, name: str, bend: Bend | None, case: Case) -> Advice:
    """`advice` after one bend. The reason says who bent it and what the value was before.

    Args:
        name: who bends, as a person reads it: "goal retain", "preset sentiment".
    """
    made = bend(case, advice) if bend else None
    if made is None:
        return advice
    if made.value == advice.value:
        # The evidence is still the rule's own: goal or preset only comment on it.
        return replace(advice, reason=f"{advice.reason}; {name}: {made.why}")
    return Advice(
        made.value,
        f"{name}: {made.why}; without it {words(advice.value)}",
        made.source,
        _holding(made.range or advice.range, made.value),
        made.grade,
    )


def _holding(offered: tuple[Any, ...] | None, value: Any) -> tuple[Any, ...] | None:
    """A range of numbers, widened where it leaves out the value itself."""
    if not offered or not all(_is_number(end) for end in (*offered, value)):
        return offered
    if min(offered) <= value <= max(offered):
        return offered
    # Two numbers are the ends of a range, more are choices.
    if len(offered) > 2:
        return tuple(sorted({*offered, value}))
    return (min(*offered, value), max(*offered, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def words(value: Any) -> str:
    """A value inside a sentence."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# What most bends are made of


def to(
    value: Any, why: str, source: str, grade: Grade = "C", range: tuple[Any, ...] | None = None
) -> Bend:
    """Always this value."""
    return lambda case, advice: Bent(value, why, source, grade, range)


def says(why: str) -> Bend:
    """The rule's value, with a word on why it stays."""
    return lambda case, advice: Bent(advice.value, why, advice.source, advice.grade or "C")


def at_most(limit: float, why: str, source: str, grade: Grade = "C") -> Bend:
    """No more than `limit`; a value that already is stays as it is."""
    return lambda case, advice: Bent(limit, why, source, grade) if advice.value > limit else None
