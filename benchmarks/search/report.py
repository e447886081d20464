"""The result in words: one page over all tasks, and everything that is known of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contestants import CAREFUL, FLOAT32, INFORMED, LORALOOM, MEDIAN, RACED, RANDOM
from judge import BINS, Judged, Shortest, pooled, shortest, times_sooner

GOAL = 12.0
"""Times sooner than sequential random search."""
RELIABLE = (0.5, 0.75, 0.9)
"""Shares of searches that declare a winner within the target."""
MAIN = (RANDOM, RANDOM + FLOAT32, MEDIAN, CAREFUL, CAREFUL + RACED, LORALOOM, LORALOOM + RACED, INFORMED)
ERRORS_AT = "32"
"""Candidates of the searches whose errors the page shows."""


def sooner(searches: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By share and name, the shortest search that is so reliable, and how many times sooner that is than
    random search and Optuna, with Trainer both; null for never."""
    judged = {
        name: {int(size): Judged.of_plain(one) for size, one in sizes.items()}
        for name, sizes in searches.items()
    }
    found: dict[str, dict[str, Any]] = {}
    for share in RELIABLE:
        able = {name: shortest(sizes, share) for name, sizes in judged.items()}
        random, median = able.get(RANDOM), able.get(MEDIAN)
        found[str(share)] = {name: _sooner(one, random, median) for name, one in able.items()}
    return found


def _sooner(
    one: Shortest | None, random: Shortest | None, median: Shortest | None
) -> dict[str, Any] | None:
    if one is None:
        return None
    times = {"over_random": times_sooner(random, one), "over_optuna": times_sooner(median, one)}
    return {"candidates": one.trials, "seconds": one.seconds, **times}


def page(result: Mapping[str, Any]) -> str:
    """All tasks: how much sooner, what was decided wrongly, what was said and came
    true, and searches for real."""
    tasks: Mapping[str, Any] = result["tasks"]
    lines = [_task_line(name, task) for name, task in tasks.items()]
    lines += [
        "",
        (
            "The shortest search of which so many declare a winner within the target: seconds"
            " (candidates; times sooner than"
        ),
    ]
    lines += [f"sequential random, goal {GOAL:g}, and than Optuna, both with Trainer):", ""]
    lines += _table(["hit by", "task", *MAIN], _sooner_rows(tasks))
    lines += [
        "",
        f"Errors, with {ERRORS_AT} candidates:",
        "",
        *_table(["task", "search", *COLUMNS], _error_rows(tasks)),
    ]
    lines += [
        "",
        "Said of winners by a race, that they are better than the plan's setting, and true of so many:",
        "",
    ]
    lines += _table(["task", "search", *(f"from {low:.0%}" for low in BINS)], _said_rows(tasks))
    lines += [
        "",
        "Searched for real:",
        "",
        *_table(["task", "search", "seconds", "replayed", "share"], _live_rows(result)),
    ]
    return "\n".join(lines)


def task_page(result: Mapping[str, Any], name: str) -> str:
    """Every search with every number of candidates."""
    task = result["tasks"][name]
    rows = [
        [search, size, _times(one["target"]), *_errors(one)]
        for search, sizes in task["searches"].items()
        for size, one in sizes.items()
    ]
    peaks = ", ".join(
        f"{way} {size / 1e6:.0f} MB" for way, size in result["clock"][name]["peaks"].items()
    )
    table = _table(["search", "candidates", "to the target, s", *COLUMNS], rows)
    return "\n".join(
        [_task_line(name, task), "", *table, "", f"peak memory above the loaded base: {peaks}"]
    )


def _task_line(name: str, task: Mapping[str, Any]) -> str:
    return (
        f"{name}: {task['good_settings']} of {task['settings']} settings are within the target; the"
        f" plan's own goes {task['share_of_default']:.1%} of the way"
    )


def _sooner_rows(tasks: Mapping[str, Any]) -> Iterable[list[str]]:
    for share in RELIABLE:
        for task, one in tasks.items():
            found = one["sooner"][str(share)]
            yield [f"{share:.0%}", task, *(_sooner_cell(name, found) for name in MAIN)]


def _sooner_cell(name: str, found: Mapping[str, Any]) -> str:
    if name not in found:
        return ""
    one = found[name]
    if one is None:
        return "never"
    times = "" if name == RANDOM else f"; {_factor(one['over_random'])}, {_factor(one['over_optuna'])}"
    return f"{one['seconds']:.1f} ({one['candidates']}{times})"


COLUMNS = ("to the winner, s", "hit", "cut", "false prunes", "best lost", "false winners", "regret")


def _errors(one: Mapping[str, Any]) -> list[str]:
    false = "" if one["false_prunes"] is None else f"{one['false_prunes']:.1%}"
    return [
        _times(one["whole"]),
        f"{one['hit']:.0%}",
        f"{one['cut']:.1f}",
        false,
        f"{one['lost']:.0%}",
        f"{one['false_winners']:.0%}",
        f"{one['regret']:.1%}",
    ]


def _error_rows(tasks: Mapping[str, Any]) -> Iterable[list[str]]:
    for task, one in tasks.items():
        for name in MAIN:
            found = one["searches"].get(name, {}).get(ERRORS_AT)
            if found and name != RANDOM + FLOAT32:
                yield [task, name, *_errors(found)]


def _said_rows(tasks: Mapping[str, Any]) -> Iterable[list[str]]:
    for name in (CAREFUL + RACED, LORALOOM + RACED):
        by_task = {
            task: [found["said"] for found in one["searches"].get(name, {}).values()]
            for task, one in tasks.items()
        }
        for task, bins in {
            **by_task,
            "all": [each for many in by_task.values() for each in many],
        }.items():
            cells = [
                f"{said:.0%}: {true:.0%} of {count}" if count else ""
                for count, said, true in pooled(bins)
            ]
            if cells:
                yield [task, name, *cells]


def _live_rows(result: Mapping[str, Any]) -> Iterable[list[str]]:
    """Medians over the repeats."""
    for task in result["tasks"]:
        repeats: Sequence[Mapping[str, Any]] = result["live"].get(task, [])
        for way in dict.fromkeys(one["way"] for one in repeats):
            seconds, replayed, share = (
                sorted(one[key] for one in repeats if one["way"] == way)
                for key in ("seconds", "replayed_seconds", "share")
            )
            middle = len(seconds) // 2
            yield [
                task,
                way,
                f"{seconds[middle]:.1f}",
                f"{replayed[middle]:.1f}",
                f"{share[middle]:.1%}",
            ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), "|" + " --- |" * len(head), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _times(three: Sequence[float | None]) -> str:
    low, middle, high = ("never" if value is None else f"{value:.1f}" for value in three)
    return f"{middle} ({low} to {high})"


def _factor(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
