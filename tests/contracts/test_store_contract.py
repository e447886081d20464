"""What every database of runs has to do, whatever SQL lies under it. A new one
subclasses `DatabaseContract`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loraloom.records import Event, Trial
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


def run(output_dir: Path, name: str, **changes: Any) -> tuple[RunResult, RunFolder]:
    """A finished run on disk."""
    trials = [
        Trial(
            "t000",
            "completed",
            {"adapter.r": 8},
            {"validation_loss": 1.5, "validation_loss_se": 0.1},
            3.5,
            900,
            40,
            40,
            2**20,
            512,
        ),
        Trial("t001", "pruned", {"adapter.r": 16}, {"validation_loss": 1.75}, reason="far behind"),
        Trial("t002", "diverged", {"adapter.r": 32}, {"validation_loss": math.nan}),
    ]
    values: dict[str, Any] = {
        "verb": "tune",
        "status": "completed",
        "model": "tiny",
        "task": "causal_lm",
        "started_at": "2025-01-01T00:00:00+00:00",
        "best": "t000",
        "baseline": {"validation_loss": 2.0},
        "trials": trials,
    }
    result = RunResult(name=name, **(values | changes))
    folder = RunFolder.create(output_dir, name)
    folder.append(Event("run_started"))
    folder.write_result(result)
    return result, folder


class DatabaseContract:
    """The suite. Subclasses give the fixture `database`."""

    def test_a_new_one_is_empty(self, database: Database) -> None:
        assert database.runs() == []

    def test_a_recorded_run_is_listed(self, database: Database, tmp_path: Path) -> None:
        result, folder = run(tmp_path / "other", "first")
        database.record(result, folder.path)
        (summary,) = database.runs()
        assert (summary.name, summary.verb, summary.status, summary.model) == (
            "first",
            "tune",
            "completed",
            "tiny",
        )
        assert (summary.best, summary.best_value, summary.best_se, summary.baseline_value) == (
            "t000",
            1.5,
            0.1,
            2.0,
        )
        assert summary.trials == 3
        assert summary.statuses == {"completed": 1, "pruned": 1, "diverged": 1}
        assert Path(summary.folder) == folder.path.resolve()

    def test_recording_again_replaces(self, database: Database, tmp_path: Path) -> None:
        result, folder = run(tmp_path / "other", "first")
        database.record(result, folder.path)
        result.status, result.trials = "interrupted", result.trials[:1]
        database.record(result, folder.path)
        (summary,) = database.runs()
        assert (summary.status, summary.trials) == ("interrupted", 1)

    def test_the_latest_run_comes_first(self, database: Database, tmp_path: Path) -> None:
        for day, name in [(2, "second"), (3, "third"), (1, "first")]:
            result, folder = run(tmp_path / "other", name, started_at=f"2025-01-0{day}T00:00:00+00:00")
            database.record(result, folder.path)
        assert [summary.name for summary in database.runs()] == ["third", "second", "first"]

    def test_equal_names_in_two_places_are_two_runs(self, database: Database, tmp_path: Path) -> None:
        old, old_folder = run(tmp_path / "a", "same")
        new, new_folder = run(tmp_path / "b", "same", started_at="2025-06-01T00:00:00+00:00", trials=[])
        database.record(old, old_folder.path)
        database.record(new, new_folder.path)
        assert [(summary.folder, summary.trials) for summary in database.runs()] == [
            (str(new_folder.path), 0),
            (str(old_folder.path), 3),
        ]

    def test_run_folders_alone_are_enough(self, database: Database, tmp_path: Path) -> None:
        names = ["first", "second", "third"]
        for name in names:
            run(tmp_path / "other", name)
        (tmp_path / "other" / "no-run").mkdir()
        (tmp_path / "other" / "broken").mkdir()
        (tmp_path / "other" / "broken" / "run.json").write_text("{")
        assert database.rebuild(tmp_path / "other") == 3
        assert sorted(summary.name for summary in database.runs()) == names
        assert {summary.trials for summary in database.runs()} == {3}

    def test_rebuilding_forgets_folders_that_are_gone_and_no_others(
        self, database: Database, tmp_path: Path
    ) -> None:
        kept, kept_folder = run(tmp_path / "elsewhere", "kept")
        database.record(kept, kept_folder.path)
        gone, gone_folder = run(tmp_path / "other", "gone")
        database.record(gone, gone_folder.path)
        gone_folder.path.rename(tmp_path / "moved")
        assert database.rebuild(tmp_path / "other") == 0
        assert [summary.name for summary in database.runs()] == ["kept"]

    def test_refreshing_reads_only_what_changed(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("first", "second"):
            run(tmp_path / "other", name)
        assert database.refresh(tmp_path / "other") == 2
        changed, folder = run(tmp_path / "other", "third")
        read: list[str] = []
        result_of = RunFolder.result
        monkeypatch.setattr(RunFolder, "result", lambda self: read.append(self.name) or result_of(self))
        assert database.refresh(tmp_path / "other") == 3
        assert read == ["third"]
        changed.status = "interrupted"
        folder.write_result(changed)
        assert database.refresh(tmp_path / "other") == 3
        assert read == ["third", "third"]
        assert {summary.name: summary.status for summary in database.runs()}["third"] == "interrupted"


class TestSqliteFile(DatabaseContract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        with Database(f"sqlite:///{tmp_path / 'runs' / 'loraloom.db'}") as database:
            yield database


class TestInMemory(DatabaseContract):
    @pytest.fixture
    def database(self) -> Iterator[Database]:
        with Database("sqlite://") as database:
            yield database
