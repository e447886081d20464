"""A way from one place to another on a named map, as a row of data gives it and as it is answered.

A path is places and moves in turn: ("a1", "east", "a2", "north", "b2"). Its answer says before each move
where one is and where one wants to go: "a1 to b2: east, a2 to b2: north, b2". So the model decides every
step from the words right before it, as it would the first step of a shorter way, and finds ways that it
was never shown; of an answer without that ("east a2, north b2") it learns each way by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from loraloom.errors import DataError

Path = tuple[str, ...]
"""Places and moves in turn, a place first and last."""
ROUTE_KEYS = ("map", "path")
QUESTION = "In {map}, how do I get from {start} to {goal}?"
WALK_QUESTION = "In {map}, I go from {start}: {moves}. Where do I come by?"
LONGEST_NAME = 80
"""Characters of a place, a move or a map."""


def route_question(map_name: str, start: str, goal: str) -> str:
    """How a route is asked for."""
    return QUESTION.format(map=map_name, start=start, goal=goal)


def route_answer(path: Path) -> str:
    """A path in words: "a1 to b2: east, a2 to b2: north, b2"."""
    goal = path[-1]
    return ", ".join([*(step_text(place, goal, move) for place, move, _ in steps(path)), goal])


def path_text(path: Path) -> str:
    """A path for people: "a1, east a2, north b2"."""
    return ", ".join([path[0], *(f"{move} {there}" for _, move, there in steps(path))])


def step_text(place: str, goal: str, move: str) -> str:
    """One step of an answer: where one is, where one wants to go, and the move."""
    return f"{place} to {goal}: {move}"


def walk_question(map_name: str, path: Path) -> str:
    """How a walk is asked for: by its start and its moves."""
    return WALK_QUESTION.format(map=map_name, start=path[0], moves=", ".join(path[1::2]))


def walk_answer(path: Path) -> str:
    """A walk without a goal in words: "a1: east, a2: north, b2"."""
    return ", ".join([*(f"{place}: {move}" for place, move, _ in steps(path)), path[-1]])


def steps(path: Path) -> list[tuple[str, str, str]]:
    """(place, move, next place) along a path."""
    return list(zip(path[::2], path[1::2], path[2::2], strict=False))


def read_route(origin: str, row: Mapping[str, Any]) -> tuple[str, Path]:
    """Map and path of a row.

    Args:
        row: its `path` is ["a1", "east", "a2"], or [["a1", "east"], ["a2"]].

    Raises:
        DataError: it has no map, or its path is none.
    """
    map_name = _name(origin, "map", row.get("map"))
    given = row.get("path")
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise _fault(origin, "`path` has to be a list", got=repr(given))
    parts: list[Any] = []
    for one in cast(Sequence[Any], given):
        parts += one if isinstance(one, list | tuple) else [one]
    path = tuple(_name(origin, "move" if i % 2 else "place", part) for i, part in enumerate(parts))
    if len(path) < 3 or len(path) % 2 == 0:
        raise _fault(
            origin,
            "a path is places and moves in turn, a place first and last",
            got=f"{len(path)} names: {', '.join(path) or 'none'}",
        )
    if both := sorted({*path[::2]} & {*path[1::2]}):
        raise _fault(
            origin,
            f"`{both[0]}` stands where a place does and where a move does: two places or two moves in"
            " a row?",
            got=", ".join(path),
        )
    if path[0] == path[-1]:
        raise _fault(origin, f"the path ends where it begins, at `{path[0]}`")
    return map_name, path


def check_steps(
    routes: Iterable[tuple[str, str, Path]], known: Iterable[tuple[str, str, Path]] = ()
) -> None:
    """See that every move from a place leads to one place.

    Args:
        routes: (origin, map, path) of what is written now; `known`: of what is kept.

    Raises:
        DataError: a step leads elsewhere than an earlier one from the same place by the same move.
    """
    leads: dict[tuple[str, str, str], tuple[str, str]] = {}
    for origin, map_name, path in known:
        for place, move, there in steps(path):
            leads[map_name, place, move] = there, origin
    for origin, map_name, path in routes:
        for place, move, there in steps(path):
            before, said_by = leads.setdefault((map_name, place, move), (there, origin))
            if before != there:
                raise DataError(
                    f"on the map {map_name}, `{move}` from `{place}` leads to two places",
                    where=origin,
                    got=f"`{before}` ({said_by}) and `{there}`",
                    need="one of them: a move from a place leads to one place",
                    next="correct the row, or forget the item that no longer holds; nothing was written",
                )


def _name(origin: str, what: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _fault(origin, f"a {what} without a name", got=repr(value))
    if "," in value or len(value) > LONGEST_NAME:
        need = f"at most {LONGEST_NAME} characters, no comma: commas part the steps of a route"
        raise _fault(origin, f"a {what} cannot be called `{value[:LONGEST_NAME]}`", need=need)
    return " ".join(value.split())


def _fault(origin: str, what: str, *, got: str | None = None, need: str | None = None) -> DataError:
    return DataError(
        what,
        where=origin,
        got=got,
        need=need or '"map": "Harbour", "path": ["a1", "east", "a2", "north", "b2"]',
        next="correct the row; nothing was written",
    )
