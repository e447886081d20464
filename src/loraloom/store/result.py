"""What a run came to: the value behind run.json, and how it is written and read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from loraloom.errors import RequestError
from loraloom.records import Finding, Gain, Trial
from loraloom.store.to_json import plain

T = TypeVar("T")

SCHEMA_VERSION = 1

RunStatus = Literal["running", "completed", "failed", "interrupted"]
Direction = Literal["minimize", "maximize"]

RACED = re.compile(r"t[0-9]+s[0-9]+(a[0-9]+)?")
"""Ids of trials of the race (`pipeline.race`): the setting's own, the number of its seed, and where
augmentations are raced the number of that."""


@dataclass
class RunResult:
    """One run as run.json holds it. Losses in nats per supervised token or row, memory
    in bytes, times in seconds.

    `best` and `default` name trials by id; run.json spells the best one out, so that
    other programs need not look it up.
    """

    name: str
    verb: str
    status: RunStatus
    model: str
    task: str
    started_at: str
    """ISO 8601, with its offset from UTC."""
    reason: str | None = None
    """Why it failed or was interrupted."""
    seconds: float = 0.0
    metric: str = "validation_loss"
    """The metric that decides, as a key of `Trial.metrics`; its standard error stands
    beside it as METRIC_se."""
    direction: Direction = "minimize"
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    baseline: Mapping[str, float] = field(default_factory=dict[str, float])
    """Metrics of the bare base."""
    initial: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of a run that begins with an adapter: {adapter: what was asked for, metrics}. Else empty."""
    best: str | None = None
    default: str | None = None
    """The trial that ran the plan's own setting, unchanged."""
    trials: list[Trial] = field(default_factory=list[Trial])
    findings: list[Finding] = field(default_factory=list[Finding])
    notes: list[str] = field(default_factory=list[str])
    verdict: str | None = None
    """How sure the choice is, in one sentence, as the final comparison found it."""
    significant: bool | None = None
    """Whether that is a candidate which beats the plan's own setting for certain. None:
    nothing was compared."""
    gain: Gain | None = None
    """Of what is kept over the plan's own setting; of the nearest rival where that is the plan's own."""
    augmentation: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """Of each augmentation that was raced: its name, its gain over plain rows with the 95% interval,
    whether it was kept, and these in a sentence."""
    base_parameters: int = 0
    """Parameters of the frozen base: what the share of trainable ones is taken of. 0: unknown."""
    base_quantization: str = "none"
    """How the base was held: "nf4" or "int8", its layers inside the blocks in few bits;
    how its files are quantised, such as "gptq int4"; "none", in full."""
    base_fingerprint: str = ""
    """Of the base's config and weights: runs with the same one had the same base,
    wherever it lay. Empty: unknown."""
    labels: list[str] = field(default_factory=list[str])
    """Class names in the order of the head's outputs (classification only)."""
    id: str = ""
    """Of the run alone, wherever its folder goes. Empty: it was begun by an older release."""
    host: str = ""
    """The machine that drives it, or did last. Empty: unknown."""
    schema_version: int = SCHEMA_VERSION

    def trial(self, trial_id: str | None) -> Trial | None:
        """The trial of that id, or None."""
        return next((trial for trial in self.trials if trial.id == trial_id), None)

    def value(self, trial: Trial) -> float:
        """The deciding metric of `trial`; NaN where it was never measured."""
        return trial.metrics.get(self.metric, math.nan)

    def searched(self) -> list[Trial]:
        """Trials of the search itself, without those that the race trained anew."""
        return [trial for trial in self.trials if not RACED.fullmatch(trial.id)]

    def ranked(self) -> list[Trial]:
        """Trials from best to worst: the chosen one, then completed ones by the
        deciding metric, then the rest.

        A pruned trial never stands above a completed one: its last score belongs to a shorter training.
        """
        return sorted(self.trials, key=self._rank)

    def _rank(self, trial: Trial) -> tuple[bool, bool, bool, float, str]:
        value = self.value(trial)
        unknown = math.isnan(value)
        signed = value if self.direction == "minimize" else -value
        return (
            trial.id != self.best,
            trial.status != "completed",
            unknown,
            0.0 if unknown else signed,
            trial.id,
        )

    def to_plain(self) -> dict[str, Any]:
        """run.json as a dict. NaN and infinities become None."""
        data: dict[str, Any] = {item.name: plain(getattr(self, item.name)) for item in fields(self)}
        data["baseline"] = {"metrics": data["baseline"]}
        return {"schema_version": data.pop("schema_version"), **data, **self.best_to_plain()}

    def best_to_plain(self) -> dict[str, Any]:
        """The part of run.json that tells of the best trial."""
        best = self.trial(self.best)
        shown = best and {
            "id": best.id,
            "params": best.params,
            "metrics": best.metrics,
            "adapter": best.adapter,
        }
        return {"best": plain(shown)}

    @classmethod
    def from_plain(cls, data: Any, where: str = "run.json") -> RunResult:
        """The result that `data` describes. Unknown keys are ignored, so that a later
        1.x file can be read.

        Raises:
            RequestError: `data` is no run result, or of a later schema.
        """
        try:
            _check_version(data.get("schema_version", SCHEMA_VERSION), where)
            values = _known(cls, data)
            values["baseline"] = _metrics(values.get("baseline", {}).get("metrics", {}))
            values["best"] = values["best"]["id"] if values.get("best") else None
            values["trials"] = [trial_from_plain(item) for item in values.get("trials", ())]
            values["findings"] = [_finding(item) for item in values.get("findings", ())]
            values["gain"] = Gain(**_known(Gain, values["gain"])) if values.get("gain") else None
            return _checked(cls(**values))
        except RequestError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(
                "this is not the result of a run",
                where=where,
                got=f"{type(error).__name__}: {error}",
                need="a JSON object with name, verb, status, model, task, started_at and trials",
                next="move the file away: the run is then read from its events.jsonl",
            ) from error


def trial_from_plain(data: Mapping[str, Any]) -> Trial:
    """One trial from its JSON object; a metric that is null (it was not finite) reads as NaN."""
    values = _known(Trial, data)
    values["metrics"] = _metrics(values.get("metrics", {}))
    values["findings"] = tuple(_finding(item) for item in values.get("findings", ()))
    return _checked(Trial(**values))


def _finding(data: Mapping[str, Any]) -> Finding:
    return _checked(Finding(**_known(Finding, data)))


def _metrics(data: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in data.items()}


def _known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """What of `data` the dataclass `cls` has a field for. A null is left out: its field
    has a default that says as much."""
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in data.items() if key in names and value is not None}


def _checked(read: T) -> T:
    """The value itself, once each of its fields is of the kind that its class says: what is inside of
    lists and mappings is not looked at.

    Raises:
        TypeError: naming the first field that is not.
    """
    for name, kinds in _kinds(type(read)).items():
        value = getattr(read, name)
        if not isinstance(value, kinds):
            raise TypeError(f"`{name}` is {value!r:.40}")
    return read


@cache
def _kinds(cls: type) -> dict[str, tuple[type, ...]]:
    """What a field may be, by its annotation."""

    def of(hint: Any) -> tuple[type, ...]:
        origin = get_origin(hint)
        if origin in (Union, UnionType):
            return tuple(kind for one in get_args(hint) for kind in of(one))
        if origin is Literal:
            return (str,)
        return (int, float) if hint is float else (origin or hint,)

    return {name: of(hint) for name, hint in get_type_hints(cls).items()}


def _check_version(version: Any, where: str) -> None:
    if version != SCHEMA_VERSION:
        raise RequestError(
            f"schema_version {cast(object, version)!r} cannot be read",
            where=where,
            need=f"schema_version {SCHEMA_VERSION}",
            next="update loraloom: the file was written by another release",
        )
