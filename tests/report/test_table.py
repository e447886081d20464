"""The table of candidates."""

from __future__ import annotations

import io
import math

import pytest
from finished import result_of, trial
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from loraloom.report.table import columns, mark, trials_table
from loraloom.report.table import test_metric as sealed_metric
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


def plain_rows(result: RunResult) -> list[dict[str, str]]:
    """The table as text, best first: one dict a trial, by column key, and `mark`:
    "best", "default" or ""."""
    return [
        {"mark": mark(result, trial)}
        | {column.key: column.cell(result, trial) for column in columns(result)}
        for trial in result.ranked()
    ]


def drawn(result: RunResult, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(trials_table(result, width))
    return out.getvalue().splitlines()


def test_rows_are_sorted_and_marked(run: RunFolder) -> None:
    rows = plain_rows(run.result())
    assert [(row["trial"], row["mark"], row["status"]) for row in rows] == [
        ("t001", "best", "completed"),
        ("t000", "default", "completed"),
        ("t002", "", "pruned"),
        ("t003", "", "diverged"),
    ]


def test_a_row_says_everything_that_was_promised(run: RunFolder) -> None:
    row = plain_rows(run.result())[0]
    assert row == {
        "mark": "best",
        "trial": "t001",
        "r": "16",
        "alpha": "32",
        "targets": "all-linear",
        "rate": "2e-4",
        "batch": "8",
        "metric": "1.225 ± 0.020",
        "parameters": "50 k (5%)",
        "memory": "1.0 GiB",
        "seconds": "48 s",
        "status": "completed",
    }


def test_where_rank_went_gets_a_column_once_candidates_differ_in_it() -> None:
    uniform = trial("a", settings={"adapter.r": 8, "adapter.rank_allocation": "uniform"})
    assert "allocation" not in plain_rows(result_of(trial("b"), uniform))[0]
    moved = trial("c", settings={"adapter.r": 8, "adapter.rank_allocation": "mlp_last"})
    rows = plain_rows(result_of(uniform, moved))
    assert {row["trial"]: row["allocation"] for row in rows} == {"a": "uniform", "c": "mlp_last"}


def test_the_test_split_gets_a_column_once_something_was_measured_there() -> None:
    without = result_of(trial("a"))
    assert "test" not in plain_rows(without)[0]
    finalist = trial("b", metrics={"validation_loss": 1.0, "test_loss": 1.25, "test_loss_se": 0.25})
    rows = plain_rows(result_of(trial("a"), finalist))
    assert {row["trial"]: row["test"] for row in rows} == {"b": "1.25 ± 0.25", "a": "–"}


def test_accuracy_is_sorted_the_other_way() -> None:
    low, high = (
        trial(name, metrics={"validation_accuracy": value})
        for name, value in [("low", 0.5), ("high", 0.75)]
    )
    result = result_of(low, high, metric="validation_accuracy", direction="maximize")
    assert [row["trial"] for row in plain_rows(result)] == ["high", "low"]
    assert sealed_metric("validation_accuracy") == "test_accuracy"


def test_a_wide_table_shows_all(run: RunFolder) -> None:
    text = "\n".join(drawn(run.result(), 120))
    for heading in (
        "trial",
        "r",
        "alpha",
        "targets",
        "rate",
        "batch",
        "validation",
        "trained",
        "memory",
        "time",
        "status",
    ):
        assert heading in text
    assert "not shown" not in text


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_asked_and_no_number_is_cut(run: RunFolder, width: int) -> None:
    lines = drawn(run.result(), width)
    assert max(len(line.rstrip()) for line in lines) <= width
    rows = [line for line in lines if "t00" in line]
    assert len(rows) == 4
    for line in rows:
        assert "±" in line
        assert "…" not in line


def test_a_narrow_table_says_what_it_left_out(run: RunFolder) -> None:
    text = " ".join(line.strip() for line in drawn(run.result(), 60))
    assert "not shown" in text
    assert "peak memory" in text
    assert "rate" in text.split("not shown")[0]


def test_text_from_outside_is_no_markup() -> None:
    lines = drawn(result_of(trial("[red]t[/red]")), 120)
    assert any("[red]t[/red]" in line for line in lines)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(["completed", "pruned", "diverged", "failed", "running", "waiting"]), max_size=6
    ),
    st.integers(30, 160),
)
def test_any_run_can_be_drawn(statuses: list[str], width: int) -> None:
    trials = [
        trial(f"t{index:03d}", status, math.nan, settings={}, params={})
        for index, status in enumerate(statuses)
    ]
    assert len(
        [line for line in drawn(result_of(*trials, base_parameters=0), width) if " t0" in line]
    ) == len(statuses)
