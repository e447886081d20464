"""Figures of the whole search and of the adapter's layers: drawn where there is
something to see, and safe to draw."""

from __future__ import annotations

import json
import math
from typing import Any

import plotly.graph_objects as go
from finished import result_of, trial

from loraloom.records import Trial
from loraloom.report.importance import importance_of
from loraloom.report.landscape import front_figure, heat_map, parallel_coordinates, search_figures
from loraloom.report.modules import module_figures
from loraloom.store.result import RunResult


def candidate(
    name: str, rate: float, rank: int, loss: float, status: str = "completed", **changes: Any
) -> Trial:
    params = {"training.learning_rate": rate, "adapter.r": rank}
    return trial(
        name, status, loss, params=params, settings=params, trainable_parameters=1000 * rank, **changes
    )


def searched(**changes: Any) -> RunResult:
    trials = [
        candidate("t000", 1e-4, 8, 1.5),
        candidate("t001", 1e-3, 8, 1.2),
        candidate("t002", 1e-3, 32, 1.1),
        candidate("t003", 1e-4, 32, 1.6, "pruned"),
        candidate("t004", 1e-1, 8, 90.0, "diverged"),
    ]
    return result_of(*trials, best="t002", default="t000", **changes)


def drawable(figure: Any) -> None:
    """plotly accepts it once page.js has put colours in, and JSON takes it."""
    text = json.dumps({"data": figure["traces"], "layout": figure["layout"]}, allow_nan=False)
    for tone in (
        "--best",
        "--default",
        "--other",
        "--pruned",
        "--bad",
        "--faint",
        "--rule",
        "--ink",
        "--heat-low",
        "--heat-high",
    ):
        text = text.replace(f'"{tone}"', '"#123456"')
    assert '"--' not in text
    plain = json.loads(text)
    for trace in plain["data"]:
        trace.get("meta", {})
    go.Figure(**plain)


def test_every_figure_can_be_drawn() -> None:
    figures = search_figures(searched())
    assert [figure["id"] for figure in figures] == ["parallel", "heat", "front_trainable_parameters"]
    for figure in figures:
        drawable(figure)


def test_without_varied_settings_nothing_is_drawn() -> None:
    assert search_figures(result_of(trial("a"), trial("b"))) == []
    assert search_figures(result_of()) == []


def test_the_better_score_is_higher_whatever_the_direction() -> None:
    for direction in ("minimize", "maximize"):
        result = searched(direction=direction)
        figure = parallel_coordinates(result, result.trials)
        assert figure is not None
        ends = {trace["meta"]["trial"]: trace["y"][-1] for trace in figure["traces"]}
        assert (ends["t002"] > ends["t000"]) == (direction == "minimize")
        assert figure["traces"][-1]["meta"]["trial"] == "t002"


def test_a_diverged_candidate_stands_at_the_edge_with_its_true_score() -> None:
    result = searched()
    figure = parallel_coordinates(result, result.trials)
    assert figure is not None
    burst = next(trace for trace in figure["traces"] if trace["meta"]["trial"] == "t004")
    assert burst["y"][-1] == 0.0
    assert "90.0" in burst["hovertemplate"]
    others = sorted(trace["y"][-1] for trace in figure["traces"] if trace["meta"]["trial"] != "t004")
    assert others[-1] - others[1] > 0.1


def test_the_heat_map_keeps_the_best_of_each_pair() -> None:
    result = searched()
    result.trials = [*result.trials, candidate("t005", 1e-3, 32, 1.4)]
    figure = heat_map(result, result.trials)
    assert figure is not None
    (trace,) = figure["traces"]
    assert trace["x"] == ["1e-4", "1e-3", "0.1"]
    assert trace["y"] == ["8", "32"]
    assert trace["z"] == [[1.5, 1.2, 90.0], [1.6, 1.1, None]]


def test_rates_that_were_drawn_share_columns() -> None:
    trials = [candidate(f"t{k}", 10 ** (-4 + k / 10), 8 * (1 + k % 2), 1.0 + k) for k in range(20)]
    figure = heat_map(result_of(*trials), trials)
    assert figure is not None
    assert len(figure["traces"][0]["x"]) == 6
    assert sum(value is not None for row in figure["traces"][0]["z"] for value in row) <= 12


def test_the_front_joins_what_nothing_beats() -> None:
    result = searched()
    figure = front_figure(result, result.trials, "trainable_parameters")
    assert figure is not None
    line, points = figure["traces"]
    assert line["x"] == [8000.0, 32000.0]
    assert len(points["x"]) == 3


def test_names_from_outside_are_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    params = [{evil: evil, "adapter.r": 8}, {evil: "b", "adapter.r": 16}]
    trials = [
        trial(f"{evil}{i}", loss=1.0 + i, params=one, settings=one) for i, one in enumerate(params)
    ]
    result = result_of(*trials)
    for figure in search_figures(result):
        for trace in figure["traces"]:
            trace.get("meta", {}).pop("trial", None)
        assert "<img" not in json.dumps(figure)


def test_layers_are_drawn_from_the_signals_of_the_winner() -> None:
    modules = {
        "layers.0.q_proj": {"r": 8, "effective_rank": 2.5, "energy": 0.75},
        "layers.0.v_proj": {"energy": 0.25},
    }
    figures = module_figures(trial("a"), {"modules": modules})
    assert [figure["id"] for figure in figures] == ["modules_energy", "modules_effective"]
    assert figures[0]["traces"][0]["x"] == [0.75, 0.25]
    assert figures[1]["traces"][0]["x"] == [2.5, None]
    for figure in figures:
        drawable(figure)
    for broken in (
        {},
        {"modules": None},
        {"modules": {"a": 3}},
        {"modules": {"a": {"energy": math.nan}}},
        {"modules": {"a": {"energy": "much", "r": [8]}}},
    ):
        assert module_figures(trial("a"), broken) == []
    assert module_figures(None, {"modules": modules}) == []


def test_rank_given_and_used_is_drawn_by_part_of_the_model() -> None:
    modules = {
        "layers.0.q_proj": {"r": 2, "effective_rank": 1.5, "group": "attention"},
        "layers.0.up_proj": {"r": 6, "effective_rank": 3.0, "group": "mlp"},
        "layers.1.up_proj": {"r": 8, "effective_rank": 4.0, "group": "mlp"},
    }
    figure = module_figures(trial("a"), {"modules": modules})[0]
    used, given = figure["traces"]
    assert figure["title"] == "Where rank went"
    assert used["y"] == ["attention (1 layers)", "mlp (2 layers)"]
    assert (used["x"], given["x"]) == ([1.5, 3.5], [2, 7])
    drawable(figure)


def test_importance_counts_pruned_and_diverged_candidates() -> None:
    trials = [
        candidate(f"t{k}", 10 ** (-4 + k / 8), 8 * (1 + k % 3), 1.0 + abs(k - 6) / 10) for k in range(12)
    ]
    trials += [candidate(f"p{k}", 10 ** (-1.5 + k / 9), 8, 3.0, "pruned") for k in range(3)]
    trials.append(candidate("d0", 0.5, 16, math.nan, "diverged"))
    found = importance_of(result_of(*trials))
    assert next(iter(found.shares)) == "training.learning_rate"
