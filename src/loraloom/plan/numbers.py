"""Powers of two, and numbers as people read them."""

from __future__ import annotations

import math


def power_of_two_above(number: float) -> int:
    """The smallest power of two that is at least `number`."""
    return 2 ** max(0, math.ceil(math.log2(max(1.0, number))))


def power_of_two_below(number: float) -> int:
    """The largest power of two that is at most `number`, and at least 1."""
    return 2 ** max(0, math.floor(math.log2(max(1.0, number))))


def count(number: float) -> str:
    """A count as people read it: 1,204 or 1.2M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,.0f}"


def share_text(share: float) -> str:
    """How much longer something takes, as people read it: 17%, under 1%."""
    return "under 1%" if 0 < share < 0.01 else f"{share:.0%}"


def bytes_text(number: float) -> str:
    """Bytes as people read them: 1.4 GiB, 320 MiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
