"""Numbers as people read them: shared by the table on the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

MISSING = "–"
LONGEST_LIST = 8
LONGEST_NAME = 30
MOST_DIGITS = 6
"""After the point of a measured value, however small its error."""
QUANTISED = {"nf4": "in NF4 with double quantisation", "int8": "in 8 bits"}
"""How a base is held that was quantised as it was read."""

FOLLOWS = {
    "inverse": "asked backwards",
    "two_hop": "in two hops",
    "sub_route": "parts of ways",
    "planned_route": "other ways",
    "unseen_route": "ways never shown",
    "walk": "walks",
    "cue": "events by parts",
}
"""How a question follows from what a memory knows."""


def held_in(quantization: str) -> str | None:
    """How a run's base is held, in words; None where it is as its files have it, in full."""
    if quantization == "none":
        return None
    return QUANTISED.get(quantization, f"in the codes of its own files, {quantization}")


def with_error(value: float, error: float = math.nan) -> str:
    """A measured value, rounded where its standard error begins: "0.783 ± 0.012",
    "1.23e-5 ± 4e-7". NaN reads as a dash."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value) or abs(value) >= 1e6:
        return f"{value:.3g}"
    tiny = 0 < abs(value) < 1e-3
    if math.isnan(error) or error <= 0:
        if tiny:
            return _exponent(value, 2)
        return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3f}"
    # The digit after the point at which the error begins: 2 for 0.03. Below 0, before the point.
    begins = -math.floor(math.log10(error))
    if tiny and begins > 3:
        digits = min(MOST_DIGITS, max(0, begins + math.floor(math.log10(abs(value)))))
        return f"{_exponent(value, digits)} ± {_exponent(error, 0)}"
    if begins > 4:
        return f"{value:.{min(MOST_DIGITS, begins)}f} ± {_exponent(error, 0)}"
    digits = min(4, max(0, 1 + begins))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def number(value: Any) -> str:
    """A setting: short for floats ("2e-4", "0.05"), as it stands for everything else."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _short(value)
    if isinstance(value, (list, tuple)):
        items = cast("list[Any]", value)
        shown = ", ".join(number(item) for item in items[:LONGEST_LIST])
        return shown if len(items) <= LONGEST_LIST else f"{shown}, ... ({len(items)} in all)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {number(item)}" for key, item in value.items()) or "none"  # pyright: ignore[reportUnknownVariableType]
    return str(value)


def count(value: int) -> str:
    """1,234 below ten thousand, then "22.7 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if abs(value) >= size:
            return f"{value / (10**3 if unit == 'k' else size):.3g} {unit}"
    return f"{value:,}"


def gib(count_of_bytes: float) -> str:
    """Bytes in MiB or GiB; a dash for 0, which stands for "not measured"."""
    if count_of_bytes <= 0:
        return MISSING
    return (
        f"{count_of_bytes / 2**30:.1f} GiB"
        if count_of_bytes >= 2**30
        else f"{count_of_bytes / 2**20:.0f} MiB"
    )


def duration(seconds: float) -> str:
    """ "42 s", "3 min 20 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def busy(seconds: float, cores_share: float) -> str:
    """What to add to a forecast for an idle machine while other processes use it; empty where none does.

    Args:
        seconds: how long it would take with this share of the cores.
        cores_share: the share of the cores that other processes leave, 0 to 1.
    """
    if cores_share >= 1:
        return ""
    return (
        f"on this machine when idle ({duration(seconds)} now: other processes have {1 - cores_share:.0%}"
        " of the cores)"
    )


def share(part: int, whole: int) -> str:
    """A percentage with two figures or more; a dash when the whole is not known."""
    if whole <= 0:
        return MISSING
    percent = 100 * part / whole
    return f"{percent:.2g}%" if percent < 10 else f"{percent:.0f}%"


def metric_words(name: str) -> str:
    """ "validation_token_accuracy" -> "validation token accuracy"."""
    return name.replace("_", " ")


def clipped(text: str) -> str:
    """The end of a long name: layers share their beginnings."""
    return text if len(text) <= LONGEST_NAME else f"…{text[1 - LONGEST_NAME :]}"


def _short(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-2 <= abs(value) < 1:
        return f"{value:.3g}"
    if 1 <= abs(value) < 1e4:
        return f"{value:.4g}"
    if 1e4 <= abs(value) < 1e6:
        return f"{value:.0f}"
    mantissa, _, exponent = _exponent(value, 2).partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{exponent}"


def _exponent(value: float, digits: int) -> str:
    """ "1.23e-5": `digits` digits after the point."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"
