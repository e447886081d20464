"""Curves read from events, and figures that plotly accepts."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import pytest
from finished import result_of, trial
from hypothesis import given
from hypothesis import strategies as st

from loraloom.records import Event
from loraloom.report.plots import figures, read_curves, thinned
from loraloom.store.folder import RunFolder


def test_progress_is_each_candidates_own() -> None:
    events = [
        Event("trial_started", "a", data={"planned_steps": 10}),
        Event("step", "a", 5, data={"loss": 1.0}),
        Event("step", "b", 5, data={"loss": 1.0}),
        Event(
            "evaluated",
            "a",
            5,
            data={
                "split": "validation",
                "progress": 0.5,
                "epoch": 1.0,
                "loss": 1.0,
                "loss_se": 0.1,
                "accuracy": 0.25,
            },
        ),
    ]
    curves = read_curves(events, {"b": 20})
    assert list(curves.training["a"].shares) == [0.5]
    assert list(curves.training["b"].shares) == [0.25]
    assert set(curves.measured) == {"validation_loss", "validation_accuracy"}
    assert list(curves.measured["validation_loss"]["a"].errors) == [0.1]


def test_steps_take_their_epoch_from_the_evaluations() -> None:
    events = [Event("step", "a", step, data={"loss": 1.0}) for step in (5, 10)]
    events.append(
        Event(
            "evaluated",
            "a",
            10,
            data={"split": "validation", "progress": 1.0, "epoch": 4.0, "loss": 1.0},
        )
    )
    assert read_curves(events, {"a": 10}).training["a"].epochs == [2.0, 4.0]


@given(st.lists(st.floats(-1e3, 1e3), max_size=300), st.integers(1, 50))
def test_thinning_keeps_the_mean_and_the_end(values: list[float], most: int) -> None:
    points = thinned(values, most)
    assert len(points) <= most
    assert [index for index, _ in points] == sorted({index for index, _ in points})
    if values:
        assert points[-1][0] == len(values) - 1
        assert min(values) - 1e-9 <= min(value for _, value in points)
        assert max(value for _, value in points) <= max(values) + 1e-9


def test_thinning_passes_over_what_is_not_finite() -> None:
    assert thinned([1.0, math.nan, math.inf, 3.0], 10) == [(0, 1.0), (3, 3.0)]


def test_figures_are_what_plotly_accepts(run: RunFolder) -> None:
    result = run.result()
    drawn = figures(result, read_curves(run.events(), {}))
    assert [figure["id"] for figure in drawn] == ["validation_loss", "train_loss"]
    for figure in drawn:
        go.Figure(data=figure["traces"], layout=figure["layout"])
        for trace in figure["traces"]:
            lengths = {
                len(trace["x"]),
                len(trace["y"]),
                len(trace["text"]),
                *(len(trace["meta"][axis]) for axis in ("share", "step", "epoch")),
            }
            assert len(lengths) == 1


def test_ends_are_marked_and_the_winner_is_drawn_last(run: RunFolder) -> None:
    traces = figures(run.result(), read_curves(run.events(), {}))[0]["traces"]
    ends = {
        trace["meta"]["trial"]: (trace["meta"]["role"], trace["marker"]["symbol"][-1])
        for trace in traces
    }
    assert ends == {
        "t000": ("default", "circle"),
        "t001": ("best", "circle"),
        "t002": ("pruned", "x"),
        "t003": ("diverged", "triangle-up"),
    }
    assert [trace["meta"]["trial"] for trace in traces][-2:] == ["t000", "t001"]


def test_best_checkpoints_are_marked_where_they_were_taken(run: RunFolder) -> None:
    for name, step in (("t000", 20), ("t001", 30), ("t002", 10)):
        run.append(Event("best", name, step))
    traces = figures(run.result(), read_curves(run.events(), {}))[0]["traces"]
    marks = {trace["meta"]["trial"]: trace["marker"]["symbol"] for trace in traces}
    assert marks["t000"] == ["circle", "diamond", "circle", "circle"]
    assert marks["t001"] == ["circle", "circle", "star", "circle"]
    assert marks["t002"] == ["diamond", "x"]


def test_a_diverged_candidate_does_not_flatten_the_others(run: RunFolder) -> None:
    figure = figures(run.result(), read_curves(run.events(), {}))[0]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < 1.225
    assert 2.5 < high < 5
    burst = next(trace for trace in figure["traces"] if trace["meta"]["role"] == "diverged")
    assert all(value == pytest.approx(high, rel=1e-3) for value in burst["y"])
    assert "900" in burst["text"][-1]


def test_a_far_base_is_named_at_the_edge(run: RunFolder) -> None:
    result = run.result()
    result.baseline = {"validation_loss": 40.0}
    layout = figures(result, read_curves(run.events(), {}))[0]["layout"]
    assert layout["yaxis"]["range"][1] < 10
    assert layout["annotations"][0]["text"] == "bare base 40.000 ↑"


def test_accuracy_is_drawn_before_the_loss() -> None:
    data = {"split": "validation", "progress": 1.0, "epoch": 1.0, "loss": 1.0, "accuracy": 0.5}
    result = result_of(trial("a"), metric="validation_accuracy", direction="maximize", best="a")
    drawn = figures(result, read_curves([Event("evaluated", "a", 10, data=data)], {}))
    assert [figure["id"] for figure in drawn] == ["validation_accuracy", "validation_loss"]


def test_without_events_there_are_no_figures() -> None:
    assert figures(result_of(trial("a")), read_curves([], {})) == []


def test_many_candidates_stay_light() -> None:
    names = [f"t{index:03d}" for index in range(128)]
    events = [
        Event("step", name, step, data={"loss": 1.0 + step / 7}) for name in names for step in range(500)
    ]
    (figure,) = figures(
        result_of(*(trial(name) for name in names)), read_curves(events, dict.fromkeys(names, 500))
    )
    assert sum(len(trace["y"]) for trace in figure["traces"]) <= 16_000
