"""How large the race at the end of a search is: the few best settings, each over several seeds."""

from __future__ import annotations

import math

SIZES = ((4, 2), (16, 3), (32, 4), (math.inf, 5))
"""Candidates up to which so many of their settings race."""


def finalists_of(trials: int) -> int:
    """Settings that race after a search of so many candidates, the plan's own among them."""
    return next(count for limit, count in SIZES if trials <= limit)


def seeds_of(trials: int) -> int:
    """Seeds over which each finalist is trained anew where nobody says: two after the
    smallest search, else three."""
    return 2 if trials <= SIZES[0][0] else 3


def race_runs(trials: int, seeds: int) -> int:
    """Candidates that a race trains anew; with one seed it only scores what is there."""
    return finalists_of(trials) * seeds if seeds > 1 and trials > 1 else 0
