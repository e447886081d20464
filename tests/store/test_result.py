"""run.json: what goes out comes back, and what is not a result is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.errors import RequestError
from loraloom.records import Finding, Trial
from loraloom.store.result import SCHEMA_VERSION, RunResult
from loraloom.store.to_json import plain, to_json

texts = st.text(max_size=8)
scores = st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.lists(texts, max_size=2)
)
findings = st.builds(
    Finding,
    name=texts,
    level=st.sampled_from(["note", "warning", "fault"]),
    symptom=texts,
    evidence=texts,
    next=texts,
)
trials = st.builds(
    Trial,
    id=texts,
    status=st.sampled_from(["completed", "pruned", "diverged", "failed", "running", "waiting"]),
    params=st.dictionaries(texts, values, max_size=3),
    metrics=scores,
    seconds=st.floats(0, 1e6),
    tokens=st.integers(0, 2**40),
    adapter=st.none() | texts,
    findings=st.lists(findings, max_size=2).map(tuple),
    settings=st.dictionaries(texts, values, max_size=3),
    reason=st.none() | texts,
)


def a_result(**changes: Any) -> RunResult:
    given_values: dict[str, Any] = {
        "verb": "tune",
        "status": "completed",
        "model": "tiny",
        "task": "causal_lm",
    }
    return RunResult(
        **({"name": "first", "started_at": "2025-01-01T00:00:00+00:00"} | given_values | changes)
    )


def round_trip(result: RunResult) -> RunResult:
    return RunResult.from_plain(json.loads(to_json(result.to_plain())))


@given(
    st.lists(trials, max_size=3, unique_by=lambda trial: trial.id),
    st.lists(findings, max_size=2),
    scores,
    st.data(),
)
def test_a_result_comes_back_as_it_was(
    kept: list[Trial], found: list[Finding], baseline: dict[str, float], data: st.DataObject
) -> None:
    best = data.draw(st.sampled_from([None, *(trial.id for trial in kept)]))
    result = a_result(
        trials=kept,
        findings=found,
        baseline=baseline,
        best=best,
        labels=["a", "b"],
        notes=["a note"],
        verdict="sure",
    )
    assert round_trip(result) == result


def test_the_file_has_the_keys_that_were_promised() -> None:
    trial = Trial(
        "t000", "completed", {"adapter.r": 8}, {"validation_loss": 1.5}, adapter="trials/t000/adapter"
    )
    data = a_result(trials=[trial], best="t000", baseline={"validation_loss": 2.0}).to_plain()
    assert list(data)[:4] == ["schema_version", "name", "verb", "status"]
    promised = {
        "model",
        "task",
        "started_at",
        "seconds",
        "environment",
        "baseline",
        "best",
        "trials",
        "findings",
    }
    assert promised <= set(data)
    assert data["baseline"] == {"metrics": {"validation_loss": 2.0}}
    assert data["best"] == {
        "id": "t000",
        "params": {"adapter.r": 8},
        "metrics": {"validation_loss": 1.5},
        "adapter": "trials/t000/adapter",
    }
    assert {
        "id",
        "status",
        "params",
        "metrics",
        "seconds",
        "tokens",
        "steps",
        "peak_bytes",
        "trainable_parameters",
        "adapter",
        "findings",
    } <= set(data["trials"][0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_null_in_the_file_and_nan_when_read(value: float) -> None:
    result = a_result(trials=[Trial("t000", "diverged", {}, {"validation_loss": value}, seconds=value)])
    text = to_json(result.to_plain()).decode()
    assert "NaN" not in text
    assert "Infinity" not in text
    trial = RunResult.from_plain(json.loads(text)).trials[0]
    assert math.isnan(trial.metrics["validation_loss"])
    assert trial.seconds == 0.0


def test_unknown_keys_are_passed_over() -> None:
    data = a_result(trials=[Trial("t000", "completed", {})]).to_plain()
    data["colour"] = "blue"
    data["trials"][0]["smell"] = "none"
    assert RunResult.from_plain(data).trials[0].id == "t000"


def test_a_later_schema_is_refused() -> None:
    data = a_result().to_plain() | {"schema_version": SCHEMA_VERSION + 1}
    with pytest.raises(RequestError, match="schema_version 2 cannot be read") as caught:
        RunResult.from_plain(data, "runs/first/run.json")
    assert "update loraloom" in str(caught.value)
    assert "runs/first/run.json" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {},
        {"name": "first"},
        {**a_result().to_plain(), "trials": [3]},
        {**a_result().to_plain(), "trials": [{}]},
        {**a_result().to_plain(), "metric": {"name": "loss"}},
        {**a_result().to_plain(), "seconds": "many"},
        {**a_result().to_plain(), "trials": [{"id": "t000", "status": 1, "params": {}}]},
        {**a_result().to_plain(), "baseline": {"metrics": {"loss": "low"}}},
    ],
)
def test_what_is_no_result_is_refused(data: Any) -> None:
    with pytest.raises(RequestError, match="not the result of a run"):
        RunResult.from_plain(data)


def test_ranking_puts_the_winner_first_and_early_ends_last() -> None:
    def trial(name: str, status: Any, loss: float) -> Trial:
        return Trial(name, status, {}, {"validation_loss": loss})

    result = a_result(
        trials=[
            trial("a", "pruned", 0.1),
            trial("b", "completed", 1.2),
            trial("c", "completed", 1.0),
            trial("d", "diverged", math.nan),
            trial("e", "completed", 1.1),
        ]
    )
    assert [item.id for item in result.ranked()] == ["c", "e", "b", "a", "d"]
    result.best = "b"
    assert [item.id for item in result.ranked()] == ["b", "c", "e", "a", "d"]
    result.best, result.direction = None, "maximize"
    assert [item.id for item in result.ranked()] == ["b", "e", "c", "a", "d"]


def test_odd_values_never_stop_a_record() -> None:
    import numpy as np

    odd = {
        "rate": np.float32(0.5),
        "count": np.int64(3),
        "rows": np.arange(2),
        "targets": ("q", "v"),
        "some": {"b", "a"},
        3: object,
    }
    kept = plain(odd)
    assert kept["rate"] == 0.5
    assert type(kept["count"]) is int
    assert kept["rows"] == [0, 1]
    assert kept["targets"] == ["q", "v"]
    assert kept["some"] == ["a", "b"]
    assert isinstance(kept["3"], str)
    json.loads(to_json(odd))


def test_half_a_character_can_be_written_and_read() -> None:
    assert json.loads(to_json({"text": "a\udc80b"})) == {"text": "a\udc80b"}
