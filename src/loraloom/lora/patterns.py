"""Patterns for the names of modules, as configs hold them: tried in a process that can
be ended before they are used here.

A pattern can be written, on purpose or by a slip, to take longer than the universe has lasted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache

MATCH_SECONDS = 3
"""For all patterns on all modules of a model; patterns that end at all need thousandths."""
_PLAIN = re.compile(r"[\w.\-]*")
_MATCHER = (
    "import json, re, sys\n"
    "patterns, names = json.load(sys.stdin)\n"
    "for pattern in patterns:\n"
    "    for name in names:\n"
    "        re.fullmatch(pattern, name), re.match(rf'(.*\\.)?({pattern})$', name)\n"
)
"""The two ways in which PEFT matches a pattern; ours are of the same kinds."""


def is_plain(pattern: str) -> bool:
    """Whether it is a name or a path, with nothing in it that could take long."""
    return _PLAIN.fullmatch(pattern) is not None


def fault_of(patterns: Iterable[str], names: Sequence[str]) -> str | None:
    """Why patterns cannot be matched with these names: what is wrong, or that there is
    no end of it; None if they can."""
    doubtful = tuple(pattern for pattern in patterns if not is_plain(pattern))
    return _tried(doubtful, tuple(names)) if doubtful else None


@cache
def _tried(patterns: tuple[str, ...], names: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER],
            input=json.dumps([patterns, names]),
            text=True,
            capture_output=True,
            timeout=MATCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {MATCH_SECONDS} seconds"
    return (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else None
