"""The first sentences of the page: which adapter, how much better than what, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from loraloom.records import Trial
from loraloom.report.table import on_split
from loraloom.report.words import MISSING, count, metric_words, share, with_error
from loraloom.store.result import RunResult

Z_95 = 1.96

Certainty = Literal["clear", "noise", "unknown"]


@dataclass(frozen=True)
class Gain:
    """One score against another. `difference` is positive when the first is better,
    whatever the direction."""

    difference: float
    error: float
    """Standard error of the difference, NaN where either score has none."""
    relative: float
    certainty: Certainty
    """Whether the 95% interval of the difference leaves out 0."""

    @property
    def interval(self) -> tuple[float, float]:
        return self.difference - Z_95 * self.error, self.difference + Z_95 * self.error


@dataclass(frozen=True)
class Fact:
    """One figure under the headline."""

    label: str
    value: str
    note: str = ""
    certainty: Certainty | None = None


@dataclass(frozen=True)
class Headline:
    title: str
    support: tuple[str, ...]
    facts: tuple[Fact, ...]


def gain(value: float, error: float, other: float, other_error: float, direction: str) -> Gain:
    """How much better `value` is than `other`.

    The two errors are added as if the scores were independent. Scores of one set of rows are correlated,
    so the true error of their difference is usually smaller: this interval is careful, not sharp.
    """
    difference = other - value if direction == "minimize" else value - other
    combined = math.hypot(error, other_error)
    if math.isnan(combined) or math.isnan(difference):
        certainty: Certainty = "unknown"
    else:
        certainty = "clear" if abs(difference) > Z_95 * combined else "noise"
    return Gain(difference, combined, difference / abs(other) if other else math.nan, certainty)


def headline(result: RunResult) -> Headline:
    """What the page says first. Scores on rows that the search never saw come before
    those that it chose by."""
    best = result.trial(result.best)
    if best is None or math.isnan(result.value(best)):
        return Headline(_no_winner(result), tuple(filter(None, [result.verdict])), _counts(result))
    metric = _judged_by(result, best)
    base = _gain(result, best, metric, None)
    default = result.trial(result.default)
    own = _gain(result, best, metric, default) if default and default.id != best.id else None
    begun = f"{best.id} was made by hand and began with the best weights of {best.parent}: its settings"
    support = [
        f"{begun} alone do not give it." if best.warm else "",
        _against_default(result, best, default, own, metric),
        _sureness(result, own),
        _judged_where(result, metric),
    ]
    facts = [
        Fact(
            f"{metric_words(metric)} of {best.id}",
            with_error(*_score(best.metrics, metric)),
            "lower is better" if _lower(result) else "higher is better",
        ),
        *_against_initial(result, best, metric),
        _fact("against the bare base", result, base, result.baseline, metric),
        *_by_source(best, metric),
        *_drift(result, best),
        _fact("against the plan's own setting", result, own, default.metrics if default else {}, metric),
        Fact(
            "parameters trained",
            count(best.trainable_parameters),
            (
                f"{share(best.trainable_parameters, result.base_parameters)} of the base"
                if result.base_parameters
                else ""
            ),
        ),
    ]
    return Headline(
        _title(result, best, base, metric),
        tuple(line for line in support if line),
        tuple(fact for fact in facts if fact.value not in (MISSING, "0")),
    )


def _title(result: RunResult, best: Trial, base: Gain | None, metric: str) -> str:
    ended = "is kept" if result.significant is False else "wins"
    lead = {"completed": ended, "running": "leads so far", "failed": "led when the run failed"}.get(
        result.status, "led when it stopped"
    )
    subject = "The adapter" if len(result.trials) == 1 else f"{best.id} {lead}"
    joint = " reaches" if len(result.trials) == 1 else ":"
    if base is None:
        return f"{subject}{joint} {metric_words(metric)} {with_error(*_score(best.metrics, metric))}."
    amount = _amount(result, base)
    if base.certainty == "noise":
        return (
            f"{subject}{joint} {metric_words(metric)} {amount} than the bare base, which is within the"
            " noise."
        )
    if base.difference <= 0:
        return f"{subject}{joint} {metric_words(metric)} {amount} than the bare base: it does not help."
    return f"{subject}{joint} {metric_words(metric)} {amount} than the bare base."


def _against_default(
    result: RunResult, best: Trial, default: Trial | None, own: Gain | None, metric: str
) -> str:
    if default is None:
        return ""
    if default.id == best.id:
        return (
            "The winner is the plan's own setting: no other candidate did better."
            if len(result.trials) > 1
            else ""
        )
    if own is None:
        return ""
    scored = with_error(*_score(default.metrics, metric))
    return (
        f"Its {metric_words(metric)} is {_amount(result, own)} than that of the plan's own setting,"
        f" {default.id} ({scored})."
    )


def _sureness(result: RunResult, own: Gain | None) -> str:
    if result.verdict:
        return result.verdict
    if own is None or own.certainty == "unknown":
        return ""
    low, high = own.interval
    span = f"95% interval of the gain over it: {low:+.3g} to {high:+.3g}"
    if own.certainty == "clear":
        return f"That difference is larger than the noise of the measurement ({span})."
    return f"That difference is within the noise of the measurement ({span}): either would do."


def _judged_where(result: RunResult, metric: str) -> str:
    if metric == on_split(result.metric, "test") != result.metric:
        return "Measured on the test split, which the search never saw."
    if metric != result.metric:
        return (
            "Measured on validation rows that were kept from the search and decided between its"
            " finalists alone."
        )
    if len(result.trials) > 1:
        return (
            f"Measured on the split that also chose it out of {len(result.trials)} candidates: expect a"
            " little less on new rows."
        )
    return ""


def _no_winner(result: RunResult) -> str:
    done = [trial for trial in result.ranked() if trial.status == "completed"]
    if done:
        finished = f"{done[0].id} leads so far" if len(done) > 1 else f"{done[0].id} alone has finished"
        before = (
            "The run is going on" if result.status == "running" else "The run stopped before it chose"
        )
        return f"{before}: {finished}."
    if result.status == "running":
        return "The run is going on: no candidate has finished yet."
    if not result.trials:
        return "The run ended before its first candidate began."
    return "No candidate finished, so there is no adapter to keep."


def _counts(result: RunResult) -> tuple[Fact, ...]:
    statuses = [trial.status for trial in result.trials]
    return tuple(Fact(status, str(statuses.count(status))) for status in dict.fromkeys(statuses))


def _judged_by(result: RunResult, best: Trial) -> str:
    default = result.trial(result.default)
    others = {**(default.metrics if default else {}), **result.baseline}
    kept_back = (on_split(result.metric, split) for split in ("test", "confirm"))
    return next(
        (metric for metric in kept_back if metric in best.metrics and metric in others), result.metric
    )


def _gain(result: RunResult, best: Trial, metric: str, other: Trial | None) -> Gain | None:
    there = result.baseline if other is None else other.metrics
    if math.isnan(there.get(metric, math.nan)):
        return None
    return gain(*_score(best.metrics, metric), *_score(there, metric), result.direction)


def _fact(
    label: str, result: RunResult, found: Gain | None, other: Mapping[str, float], metric: str
) -> Fact:
    if found is None:
        return Fact(label, MISSING)
    notes = {
        "clear": "beyond the noise",
        "noise": "within the noise",
        "unknown": "no standard error known",
    }
    note = f"{with_error(*_score(other, metric))} there; {notes[found.certainty]}"
    return Fact(label, _signed(result, found), note, found.certainty)


def _against_initial(result: RunResult, best: Trial, metric: str) -> list[Fact]:
    """Against the adapter that the run began with, where it did and that was scored."""
    before = result.initial.get("metrics", {})
    if metric not in before:
        return []
    found = gain(*_score(best.metrics, metric), *_score(before, metric), result.direction)
    return [_fact(f"against {result.initial['adapter']}", result, found, before, metric)]


def _by_source(best: Trial, metric: str) -> list[Fact]:
    """The same on the rows of each source, where several are mixed."""
    start = f"{metric}/"
    names = [name for name in best.metrics if name.startswith(start) and not name.endswith("_se")]
    return [
        Fact(f"on {name.removeprefix(start)}", with_error(*_score(best.metrics, name)), "its rows alone")
        for name in names
    ]


def _drift(result: RunResult, best: Trial) -> list[Fact]:
    """What it cost elsewhere: rows to retain, and what it writes beside what it wrote before."""
    before = result.initial.get("adapter", "the bare base")
    named = (
        ("retain_change", "rise of the loss on the rows to retain", f"nats, over {before}"),
        ("retain_accuracy", "right on the rows to retain", ""),
        ("written_kl", "drift", f"nats a token from {before}, on what it writes"),
        ("written_length_ratio", "length of what it writes", f"times that of {before}"),
    )
    return [
        Fact(label, with_error(*_score(best.metrics, name)), note)
        for name, label, note in named
        if name in best.metrics
    ]


def _score(metrics: Mapping[str, float], metric: str) -> tuple[float, float]:
    return metrics.get(metric, math.nan), metrics.get(f"{metric}_se", math.nan)


def _lower(result: RunResult) -> bool:
    return result.direction == "minimize"


def _size(result: RunResult, found: Gain) -> str:
    """Losses shrink by a share; scores between 0 and 1 grow by points."""
    if _lower(result) and not math.isnan(found.relative):
        return f"{abs(found.relative):.1%}"
    return f"{100 * abs(found.difference):.1f} points"


def _amount(result: RunResult, found: Gain) -> str:
    if round(abs(found.difference), 12) == 0:
        return "no different"
    return f"{_size(result, found)} {'lower' if (found.difference > 0) == _lower(result) else 'higher'}"


def _signed(result: RunResult, found: Gain) -> str:
    sign = "−" if (found.difference > 0) == _lower(result) else "+"
    return f"{sign}{_size(result, found)}"
