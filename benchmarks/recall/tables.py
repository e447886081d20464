"""Tables of what `run.py` found, and comparisons in pairs over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
LEVEL = 0.95
RATHER_MORE = 2.0
"""Times as much: beyond this only the difference says anything."""
Part = Mapping[str, Any]
SHOWN = ("verbatim", "near", "far", "first_session", "false_recall", "not_known")
KINDS = ("stories", "sums", "encyclopedia")


def tables(result: Mapping[str, Any]) -> str:
    """All of them, as README.md has them."""
    parts = result["parts"]
    base = {part["seed"]: part["stages"]["base"]["base"] for part in of(parts, "no memory")}
    pieces = [methods_table(parts, base), against_ours(parts), sessions_table(parts)]
    if result["ablations"]:
        pieces.append(methods_table(result["ablations"], base))
    pieces += [f"search: {result['search']}", *(f"control: {kept(one)}" for one in result["controls"])]
    return "\n\n".join(pieces)


def of(parts: Sequence[Part], method: str) -> list[Part]:
    """Those of one method."""
    return [part for part in parts if part["method"] == method]


def staged(parts: Sequence[Part]) -> dict[str, list[tuple[Part, Mapping[str, Any]]]]:
    """Parts with one of their stages, by the name that a reader sees: of a method with one stage, its
    own."""
    found: dict[str, list[tuple[Part, Mapping[str, Any]]]] = {}
    for part in parts:
        names = list(part["stages"])
        for name in names:
            shown = f"{part['method']}, {name}" if len(names) > 1 else part["method"]
            found.setdefault(shown, []).append((part, part["stages"][name]))
    return found


def methods_table(parts: Sequence[Part], base: Mapping[int, Mapping[str, float]]) -> str:
    """Means over seeds; how much perplexity rose and known facts fell, of the bare base's."""
    lines = [
        "| method | seeds | verbatim | near | far | first session | false recall | not known"
        " | perplexity: stories, sums, encyclopedia | known facts, points | MiB | million tokens"
        " | core-s |",
        "| --- " * 13 + "|",
    ]
    for name, found in staged(parts).items():
        shares = " | ".join(f"{mean(stage[key] for _, stage in found):.3f}" for key in SHOWN)
        first = next(iter(base.values()), None)
        cost = "| |" if first is None else _cost(found, base, first)
        size, tokens, seconds = (
            mean(part[key] for part, _ in found) for key in ("adapter_bytes", "tokens", "core_seconds")
        )
        lines.append(
            f"| {name} | {len(found)} | {shares} {cost} {size / 2**20:.1f} | {tokens / 1e6:.2f}"
            f" | {seconds:.0f} |"
        )
    return "\n".join(lines)


def _cost(
    found: Sequence[tuple[Part, Mapping[str, Any]]],
    base: Mapping[int, Mapping[str, float]],
    first: Mapping[str, float],
) -> str:
    pairs = [(stage["base"], base.get(part["seed"], first)) for part, stage in found]
    rises = [f"{mean(now[kind] / was[kind] - 1 for now, was in pairs):+.1%}" for kind in KINDS]
    known = mean(now["known"] - was["known"] for now, was in pairs)
    return f"| {', '.join(rises)} | {100 * known:+.1f} |"


def against_ours(parts: Sequence[Part]) -> str:
    """Ours after its sleep, without the router, minus each other, in pairs over items, with an interval
    by the bootstrap; and ours as a share of it."""
    ours = of(parts, "ours")
    lines = ["| ours minus | seeds | verbatim | near | far |", "| --- " * 5 + "|"]
    for name, found in staged([part for part in parts if part["method"] != "ours"]).items():
        theirs = {part["seed"]: stage for part, stage in found}
        shared = [part for part in ours if part["seed"] in theirs]
        if not shared:
            continue
        cells: list[str] = []
        for way in ("verbatim", "near", "far"):
            differences = np.concatenate(
                [
                    per_item(part["stages"]["slept"], way) - per_item(theirs[part["seed"]], way)
                    for part in shared
                ]
            )
            low, high = interval(differences)
            share = mean(part["stages"]["slept"][way] for part in shared) / max(
                1e-9, mean(theirs[part["seed"]][way] for part in shared)
            )
            times = f", {share:.2f} times" if share < RATHER_MORE else ""
            cells.append(f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f}){times}")
        lines.append(f"| {name} | {len(shared)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def per_item(stage: Mapping[str, Any], way: str) -> NDArray[np.float64]:
    """Share of each item's questions of one way that were right; every item has equally many."""
    digits = np.array([int(digit) for digit in stage["right"][way]], dtype=np.float64)
    return digits.reshape(len(stage["right"]["verbatim"]), -1).mean(1)


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences (Efron 1979)."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(differences), size=(DRAWS, len(differences)))
    means = differences[draws].mean(1)
    return float(np.quantile(means, (1 - LEVEL) / 2)), float(np.quantile(means, (1 + LEVEL) / 2))


def sessions_table(parts: Sequence[Part]) -> str:
    """Recall as written of what was learnt so many sessions ago, mean over seeds and sessions."""
    found = {name: one for name in ("naive", "replay", "elastic", "ours") if (one := of(parts, name))}
    if not found:
        return ""
    longest = max(len(part["by_session"]) for one in found.values() for part in one)
    lines = [f"| sessions ago | {' | '.join(found)} |", "| --- " * (len(found) + 1) + "|"]
    for lag in range(longest):
        cells = [
            f"{mean(row[-1 - lag] for part in one for row in part['by_session'] if len(row) > lag):.2f}"
            for one in found.values()
        ]
        lines.append(f"| {lag} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kept(control: Part) -> dict[str, Any]:
    """What a control found."""
    stage = next(iter(control["stages"].values()))
    names = (
        "zeros_move_logits_by",
        "what_was_learnt_moves_them_by",
        "zeros_write_what_the_base_does",
        "answers_of_others_that_were_taught",
        "chance",
    )
    return {name: control[name] for name in names} | {"true_answers": stage["verbatim"]}


def mean(values: Any) -> float:
    """Of numbers; nan of none."""
    found = list(values)
    return float(np.mean(found)) if found else float("nan")
