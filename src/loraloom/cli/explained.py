"""Settings in words: one at length for `plan --explain`, and what a range or a search space offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from loraloom.cli.screen import WIDEST, plain_console
from loraloom.report.words import number

if TYPE_CHECKING:
    from loraloom.plan.common_advice.item import Item
    from loraloom.plan.explain import Explanation
    from loraloom.records import Advice


def show_explanation(found: Explanation) -> dict[str, Any]:
    """All that is known of one setting. Returns the document of --json."""
    console = plain_console()
    console.print(Text(found.key, style="bold"))
    for title, lines in _blocks(found):
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            console.print(
                Padding(Text(line), (0, 0, 0, 2), expand=False), width=min(console.width, WIDEST)
            )
    return found.to_json()


def range_words(offered: Sequence[Any] | None) -> str:
    """What is worth trying: "8 to 128", or the choices; empty where there is nothing to choose."""
    if not offered or len(offered) < 2:
        return ""
    if len(offered) == 2 and all(
        isinstance(end, int | float) and not isinstance(end, bool) for end in offered
    ):
        low, high = offered
        return "" if low == high else f"{number(low)} to {number(high)}"
    return ", ".join(number(choice) for choice in offered)


def space_words(space: Mapping[str, Any]) -> Iterator[str]:
    """A search space, one dimension a line."""
    longest = max(map(len, space), default=0)
    for key, dimension in space.items():
        yield f"{key.ljust(longest)}  {dimension_words(dimension)}"


def dimension_words(dimension: Any) -> str:
    """What a search draws from: "2e-4 to 3e-3 (log)", or the choices."""
    if isinstance(dimension, Mapping):
        words = (  # pyright: ignore[reportUnknownArgumentType]
            f"{number(dimension['low'])} to {number(dimension['high'])}"
        )
        return words + (" (log)" if dimension.get("log") else "")
    return ", ".join(number(choice) for choice in dimension)


def _blocks(found: Explanation) -> Iterator[tuple[str, list[str]]]:
    about = found.about
    yield "What it does", [about.does, f"It takes {found.takes}."]
    if found.advice:
        yield "Here", _advice(found.advice)
    if found.left_open:
        yield "Left open", _advice(found.left_open)
    yield "Our rule", [about.rule]
    yield "What is known", [about.evidence]
    if found.bent_by:
        yield "Who may change it", [", ".join(found.bent_by)]
    if found.common_advice:
        yield (
            "What is commonly advised",
            [_common(item) for item in found.common_advice],
        )
    if about.tools:
        yield "Defaults elsewhere", [f"{tool}: {default}" for tool, default in about.tools.items()]


def _advice(advice: Advice) -> list[str]:
    told = [number(advice.value), f"because {advice.reason}", f"source: {advice.source}"]
    if advice.grade:
        told.append(f"grade {advice.grade}: {GRADES[advice.grade]}")
    offered = range_words(advice.range)
    return [*told, f"worth trying: {offered}"] if offered else told


def _common(item: Item) -> str:
    against = "not compared" if item.untested else item.overruled
    followed = f"Not followed ({against})" if against else "Followed"
    return f"{item.says} {followed}: {item.because}"


GRADES: Mapping[str, str] = {
    "A": "raw data or code",
    "B": "the text of a paper",
    "C": "a vendor or a second hand",
    "M": "derived here: try it before you trust it",
}
