"""How much of the way from the tools' defaults to the best that a search found the plan goes alone, and
whether it ever loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from measured_arms import BEST, PLAN
from tool_defaults import TOOLS

from loraloom.records import Score
from loraloom.search.compare import average, mean_cost, seeds_difference

DEFAULTS = tuple(tool.name for tool in TOOLS)
TARGETS = {"mean_share": 0.6, "worst_errors_behind": 1.0}
ROUNDING = 1e-9
"""Of sums of row costs: no gap is smaller."""


def gaps(scores: Mapping[str, Sequence[Score]]) -> dict[str, Any]:
    """Shares and paired differences of one task. Costs are less-is-better, so a gap
    above 0 is room for the plan.

    `behind_best_default` is the plan's cost minus that of the best of the three (best on the test split
    itself, which favours them), over the same seeds and rows; `errors` is that difference in standard
    errors of its own.
    """
    costs = {arm: mean_cost(average(own)) for arm, own in scores.items()}
    mean_default = sum(costs[tool] for tool in DEFAULTS) / len(DEFAULTS)
    best_default = min(DEFAULTS, key=lambda tool: costs[tool])
    return {
        "mean_default_cost": round(mean_default, 5),
        "gap": round(mean_default - costs[BEST], 5),
        "share": share(mean_default, costs),
        "share_against": {tool: share(costs[tool], costs) for tool in DEFAULTS},
        "best_default": best_default,
        "behind_best_default": _behind(scores[PLAN], scores[best_default]),
        "behind_best_of_searched": _behind(scores[PLAN], scores[BEST]),
    }


def share(start: float, costs: Mapping[str, float]) -> float | None:
    """Of the way from `start` to the best of the search, the part that the plan goes;
    None where the search found no way."""
    gap = start - costs[BEST]
    return round((start - costs[PLAN]) / gap, 4) if gap > ROUNDING else None


def verdict(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The promises, over all tasks that were measured."""
    shares = [task["gaps"]["share"] for task in tasks.values() if task["gaps"]["share"] is not None]
    mean = round(sum(shares) / len(shares), 4) if shares else None
    worst = max((task["gaps"]["behind_best_default"]["errors"] for task in tasks.values()), default=None)
    least, most = TARGETS["mean_share"], TARGETS["worst_errors_behind"]
    return {
        "mean_share": {"target": least, "reached": mean, "met": mean is not None and mean >= least},
        "worst_errors_behind": {
            "target": most,
            "reached": worst,
            "met": worst is not None and worst <= most,
        },
    }


def _behind(ours: Sequence[Score], theirs: Sequence[Score]) -> dict[str, float]:
    found = seeds_difference(ours, theirs)
    errors = found.mean / found.se if found.se > 0 else 0.0
    return {"mean": round(found.mean, 5), "se": round(found.se, 5), "errors": round(errors, 2)}
