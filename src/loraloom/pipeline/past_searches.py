"""What earlier searches with the same base, task and metric found: a start for the next one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

from loraloom.config import names
from loraloom.errors import ConfigError, RequestError
from loraloom.facts.source import model_folder
from loraloom.facts.weights import find_weights, weights_fingerprint
from loraloom.pipeline.prepare import Prepared, deciding_metric, required_model
from loraloom.plan.case import Decided
from loraloom.plan.search_space import search_space
from loraloom.records import Advice, Trial
from loraloom.search.anchors import Anchor, anchors
from loraloom.search.dimensions import is_number
from loraloom.search.history import Known, PastSearch, standings, without_lists
from loraloom.search.space import ALPHA, BATCH, RANK, RATE
from loraloom.store.find import find_run
from loraloom.store.result import RunResult

KEY = names.HISTORY
RUNS = 5
"""So many of the latest count."""
FEWEST = 3
"""Candidates that were completed or pruned: with fewer nothing was searched."""
NAMED = 3
"""Runs that a sentence names."""
NONSENSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading raises where a run.json holds something else than a run would have written."""
LARGEST = 1e9
"""No number among a candidate's settings is larger, and none of those that divide is
smaller than its inverse."""
ROOMS = ("adapter.", "training.")
"""Where the settings of a candidate are."""


def with_past_searches(
    prepared: Prepared, runs: Iterable[RunResult], kept: Sequence[PastSearch] | None = None
) -> Prepared:
    """The same with what earlier searches found, and with a setting that says so.

    Args:
        runs: earlier runs, the latest first.
        kept: what a run that goes on was begun with: that holds, whatever has ended since.

    Raises:
        RequestError: the one run that is to be learnt from is not there, or has nothing
            to say of this search.
        ConfigError: one run is to be learnt from by a sampler that draws as it always does.
    """
    past = _asked(prepared, runs) if kept is None else tuple(kept)
    if not past:
        return prepared
    advice = Advice([one.run for one in past], _sentence(prepared, past), "earlier runs")
    plan = replace(prepared.plan, settings=Decided(prepared.plan.settings | {KEY: advice}))
    return replace(prepared, plan=plan, past=past)


def _asked(prepared: Prepared, runs: Iterable[RunResult]) -> tuple[PastSearch, ...]:
    """What is to be learnt from, by `search.history`. Errors as in `with_past_searches`."""
    search = prepared.config.search
    named = prepared.config.search.history
    if named == "none" or prepared.plan.trials < 2:
        return ()
    if search.sampler != "auto":
        if named == "auto":
            return ()
        raise ConfigError(
            f"`{KEY}` names a run, and the sampler `{search.sampler}` cannot use one",
            next=f"leave `search.sampler` at auto, or `{KEY}` out",
        )
    read = _reader(prepared)
    if named == "auto":
        return tuple(
            islice((found for result in runs if isinstance(found := read(result), PastSearch)), RUNS)
        )
    folder = find_run(named, prepared.config.output_dir)
    found = read(replace(folder.result(), name=folder.name))
    if isinstance(found, PastSearch):
        return (found,)
    raise RequestError(
        f"nothing can be learnt from run `{folder.name}` for this search",
        got=found,
        need=(
            f"a finished search with the same base, task and metric, in which {FEWEST} candidates came"
            " to a result"
        ),
        next=f"name another run, or leave `{KEY}` out: loraloom runs lists what there is",
    )


def _reader(prepared: Prepared) -> Callable[[RunResult], PastSearch | str]:
    """What a run found, or why that does not count here. The base is looked at last:
    that takes a moment."""
    config = prepared.config
    task = prepared.task
    metric = f"validation_{deciding_metric(config.search.metric, task)[0]}"

    @cache
    def base() -> str:
        folder = model_folder(required_model(config), config.model.revision)
        return weights_fingerprint(folder) if folder and not find_weights(folder).problem else ""

    def read(result: RunResult) -> PastSearch | str:
        if result.status != "completed":
            return f"it is {result.status}"
        if result.task != task:
            return f"its task is {result.task}, not {task}"
        if result.metric != metric:
            return f"its metric is {result.metric}, not {metric}"
        if not result.base_fingerprint or result.base_fingerprint != base():
            return "its base is another"
        try:
            return past_search(result)
        except NONSENSE:
            return "its run.json is not that of a search"

    return read


def past_search(result: RunResult) -> PastSearch | str:
    """What a finished run found, or why it found nothing.

    Raises:
        One of `NONSENSE`: it was not written by a search.
    """
    trials = [trial for trial in result.searched() if _tells(trial)]
    ended = sum(trial.status != "diverged" for trial in trials)
    if ended < FEWEST:
        return f"{ended} of its candidates came to a result"
    best = result.trial(result.best)
    default = result.trial(result.default)
    # The kept adapter may be from the race: its setting is that of the trial which the search knew.
    winner = next((trial for trial in trials if best and trial.params == best.params), None)
    if best is not None and best.warm:
        return "the one that it kept began with another one's weights"
    if winner is None or best is None:
        return "it kept none of its candidates"
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
    return PastSearch(
        result.name, winner.id, without_lists(winner.params), gain if math.isfinite(gain) else 0.0, known
    )


def _tells(trial: Trial) -> bool:
    """Whether a trial came to something that the next search can learn from."""
    return trial.status in ("completed", "pruned", "diverged") and trial.tells_of_setting


def _place(result: RunResult, trial: Trial) -> tuple[int, float, float]:
    """How a trial did, less being better: to the end, else how far it came, and then
    its cost. What diverged is last."""
    value = result.value(trial)
    cost = math.inf if math.isnan(value) else value if result.direction == "minimize" else -value
    if trial.status == "completed":
        return 0, 0.0, cost
    return (
        (1, -trial.steps / max(1, trial.planned_steps), cost)
        if trial.status == "pruned"
        else (2, 0.0, 0.0)
    )


def _settings(trial: Trial) -> dict[str, Any]:
    """What a candidate was, searched or not.

    Raises:
        ValueError: a number beyond all measure, or a rate, a rank, an alpha or a batch
            size that is no number above 0.
    """
    settings = without_lists({**trial.settings, **trial.params})
    kept = {
        key: value
        for key, value in settings.items()
        if key.startswith(ROOMS) and not isinstance(value, dict)
    }
    for key, value in kept.items():
        divides = key in (RATE, RANK, ALPHA, BATCH)
        least = 1 / LARGEST if divides else -LARGEST
        if not least <= value <= LARGEST if is_number(value) else divides:
            raise ValueError(f"trial {trial.id} has settings that nobody can have")
    return kept


def _sentence(prepared: Prepared, past: Sequence[PastSearch]) -> str:
    """What is learnt from which runs: "2 earlier runs on this base (one, two): t004's
    setting of one is tried second"."""
    names = ", ".join(one.run for one in past[:NAMED]) + (
        f" and {len(past) - NAMED} more" if len(past) > NAMED else ""
    )
    runs = f"{len(past)} earlier {'run' if len(past) == 1 else 'runs'} on this base ({names})"
    again = tried_second(prepared, past)
    if again is None:
        return f"{runs}: new points lie more often where settings did well"
    source = next(one for one in past if any(known.reason == again.reason for known in one.known))
    return (
        f"{runs}: {source.trial}'s setting{f' of {source.run}' if len(past) > 1 else ''} is tried second"
    )


def tried_second(prepared: Prepared, past: Sequence[PastSearch]) -> Anchor | None:
    """The setting of an earlier search that the next one tries again."""
    plan = prepared.plan
    known = [one for search in past for one in search.known]
    values = plan.values()
    found = anchors(search_space(plan).tied_to(values), values, plan.trials, known)
    return next((anchor for anchor in found if anchor.kind == "history"), None)
