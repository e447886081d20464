"""What earlier searches with the same base, task and metric found: a start for the next one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

from loraloom.errors import ConfigError, RequestError
from loraloom.facts.source import model_folder
from loraloom.facts.weights import find_weights, weights_fingerprint
from loraloom.pipeline.prepare import Prepared, deciding_metric, required_model
from loraloom.plan.search_space import search_space
from loraloom.records import Advice, Trial
from loraloom.search.anchors import Anchor, anchors
from loraloom.search.dimensions import is_number
from loraloom.search.history import Known, PastSearch, standings, without_lists
from loraloom.search.space import ALPHA, BATCH, RANK, RATE
from loraloom.store.find import find_run
from loraloom.store.result import RunResult

KEY = "search.history"
RUNS = 5
"""So many of the latest count."""
FEWEST = 3
"""Candidates that were completed or pruned: with fewer nothing was searched."""
NAMED = 3
"""Runs that a sentence names."""
ROOMS = ("adapter.", "training.")
"""Where the settings of a candidate are."""


def with_past_searches(prepared: Prepared, runs: Iterable[RunResult], kept: Sequence[PastSearch] | None = None) -> Prepared:
    """The same with what earlier searches found, and with a setting that says so.

    Args:
        runs: earlier runs, the latest first.
        kept: what a run that goes on was begun with: that holds, whatever has ended since.

    Raises:
        RequestError: the one run that is to be learnt from is not there, or has nothing to say of this search.
        ConfigError: one run is to be learnt from by a sampler that draws as it always does.
    """
    past = _asked(prepared, runs) if kept is None else tuple(kept)
    if not past:
        return prepared
    advice = Advice([one.run for one in past], _sentence(prepared, past), "earlier runs")
    plan = replace(prepared.plan, settings={**prepared.plan.settings, KEY: advice})
    return replace(prepared, plan=plan, past=past)


def _asked(prepared: Prepared, runs: Iterable[RunResult]) -> tuple[PastSearch, ...]:
    """What is to be learnt from, by `search.history`. Errors as in `with_past_searches`."""
    search, named = prepared.config.search, prepared.config.search.history
    if named == "none" or prepared.plan.trials < 2:
        return ()
    if search.sampler != "auto":
        if named == "auto":
            return ()
        raise ConfigError(
            f"`{KEY}` names a run, and the sampler `{search.sampler}` takes no notice of one",
            next=f"leave `search.sampler` at auto, or `{KEY}` out",
        )
    unfit = _judge(prepared)
    if named != "auto":
        result = find_run(named, prepared.config.output_dir).result()
        found = None if (reason := unfit(result)) else _read(result)
        if found is None:
            raise RequestError(
                f"nothing can be learnt from run `{result.name}` for this search",
                got=reason or "its run.json cannot be read as a search",
                need=f"a finished search with the same base, task and metric, in which {FEWEST} candidates came to a result",
                next=f"name another run, or leave `{KEY}` out: loraloom runs lists what there is",
            )
        return (found,)
    read = (found for result in runs if not unfit(result) and (found := _read(result)))
    return tuple(islice(read, RUNS))


def _judge(prepared: Prepared) -> Callable[[RunResult], str | None]:
    """Why a run does not count, or None. The base is looked at last: that takes a moment."""
    config, task = prepared.config, prepared.task
    metric = f"validation_{deciding_metric(config.search.metric, task)[0]}"

    @cache
    def base() -> str:
        folder = model_folder(required_model(config), config.model.revision)
        return weights_fingerprint(folder) if folder and not find_weights(folder).problem else ""

    def unfit(result: RunResult) -> str | None:
        ended = sum(trial.status in ("completed", "pruned") for trial in result.searched())
        if result.status != "completed":
            return f"it is {result.status}"
        if ended < FEWEST:
            return f"{ended} of its candidates came to a result"
        if result.task != task:
            return f"its task is {result.task}, not {task}"
        if result.metric != metric:
            return f"it went by {result.metric}, not by {metric}"
        return None if result.base_fingerprint and result.base_fingerprint == base() else "its base is another"

    return unfit


def _read(result: RunResult) -> PastSearch | None:
    """What a run found; None where its file says nothing that makes sense."""
    try:
        return past_search(result)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def past_search(result: RunResult) -> PastSearch | None:
    """What a finished run found; None where it kept nothing.

    Raises:
        ValueError, TypeError, ...: it was not written by a search.
    """
    trials = [trial for trial in result.searched() if trial.status in ("completed", "pruned", "diverged")]
    best, default = result.trial(result.best), result.trial(result.default)
    # The kept adapter may be from the race: its setting is that of the trial which the search knew.
    winner = next((trial for trial in trials if best and trial.params == best.params), None)
    if winner is None or best is None:
        return None
    gain = 0.0
    if default is not None and best.params != default.params:
        ahead = result.value(winner) - result.value(default)
        gain = result.gain.mean if result.gain else -ahead if result.direction == "minimize" else ahead
    better = f"{winner.id} of run {result.name} was {gain:.2g} better than the plan's setting there"
    places = standings([_place(result, trial) for trial in trials])
    known = tuple(
        Known(_settings(trial), place, better if trial is winner and gain > 0 else "")
        for trial, place in zip(trials, places, strict=True)
    )
    return PastSearch(result.name, winner.id, without_lists(winner.params), gain if math.isfinite(gain) else 0.0, known)


def _place(result: RunResult, trial: Trial) -> tuple[int, float, float]:
    """How a trial did, less being better: to the end, else how far it came, and then its cost. What diverged is last."""
    value = result.value(trial)
    cost = math.inf if math.isnan(value) else value if result.direction == "minimize" else -value
    if trial.status == "completed":
        return 0, 0.0, cost
    return (1, -trial.steps / max(1, trial.planned_steps), cost) if trial.status == "pruned" else (2, 0.0, 0.0)


def _settings(trial: Trial) -> dict[str, Any]:
    """What a candidate was, searched or not: numbers that are finite, words, and lists of them.

    Raises:
        ValueError: a rate, a rank, an alpha or a batch size that is no number above 0.
    """
    settings = without_lists({**trial.settings, **trial.params})
    kept = {key: value for key, value in settings.items() if key.startswith(ROOMS) and not isinstance(value, dict)}
    if any(not (is_number(kept[key]) and 0 < kept[key] < math.inf) for key in (RATE, RANK, ALPHA, BATCH) if key in kept):
        raise ValueError(f"trial {trial.id} has settings that nobody can have")
    return {key: value for key, value in kept.items() if not is_number(value) or math.isfinite(value)}


def _sentence(prepared: Prepared, past: Sequence[PastSearch]) -> str:
    """What is learnt from which runs: "2 earlier runs on this base (one, two): t004's setting of one is tried second"."""
    names = ", ".join(one.run for one in past[:NAMED]) + (f" and {len(past) - NAMED} more" if len(past) > NAMED else "")
    runs = f"{len(past)} earlier {'run' if len(past) == 1 else 'runs'} on this base ({names})"
    again = tried_second(prepared, past)
    if again is None:
        return f"{runs}: new points lie more often where settings did well"
    source = next(one for one in past if any(known.reason == again.reason for known in one.known))
    return f"{runs}: {source.trial}'s setting{f' of {source.run}' if len(past) > 1 else ''} is tried second"


def tried_second(prepared: Prepared, past: Sequence[PastSearch]) -> Anchor | None:
    """The setting of an earlier search that the next one tries again."""
    plan, known = prepared.plan, [one for search in past for one in search.known]
    values = plan.values()
    found = anchors(search_space(plan).tied_to(values), values, plan.trials, known)
    return next((anchor for anchor in found if anchor.kind == "history"), None)
