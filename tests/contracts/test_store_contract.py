"""What every database of runs has to do, whatever SQL lies under it. A new one
subclasses `DatabaseContract`."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loraloom.records import Event, Trial
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from postgres_server import Server


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


def made(run: tuple[RunResult, RunFolder]) -> tuple[RunResult, Path]:
    """What `record` is given."""
    return run[0], run[1].path


OnHost = Callable[[str], None]


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> OnHost:
    """Be another machine from here on."""
    return lambda name: monkeypatch.setattr(socket, "gethostname", lambda: name)


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

    def test_what_is_listed_first_began_last_in_whichever_time_zone(
        self, database: Database, tmp_path: Path
    ) -> None:
        for name, started in (
            ("second", "2025-01-01T09:00:00+09:00"),  # midnight in UTC
            ("third", "2024-12-31T20:00:00-05:00"),  # an hour later
            ("first", "2024-12-31T23:59:00+00:00"),
        ):
            database.record(*made(run(tmp_path / "other", name, started_at=started)))
        assert [summary.name for summary in database.runs()] == ["third", "second", "first"]

    def test_texts_of_any_length_and_of_odd_characters_are_kept(
        self, database: Database, tmp_path: Path
    ) -> None:
        long = tmp_path.joinpath(*["deep" * 50] * 4)
        texts: dict[str, Any] = {"model": "null \0 half \ud800", "task": "t" * 300, "metric": "m" * 300}
        trials = [Trial("t" * 300, "completed", {}, {"m" * 300: math.inf, "m" * 300 + "_se": math.nan})]
        result, folder = run(long, "odd", **texts, best="t" * 300, trials=trials)
        result.name, result.verb = "n" * 300, "v" * 300
        database.record(result, folder.path)
        (summary,) = database.runs()
        assert (summary.name, summary.verb, summary.metric) == ("n" * 300, "v" * 300, "m" * 300)
        assert (summary.model, summary.best) == ("null \\x00 half \\ud800", "t" * 300)
        assert (summary.best_value, summary.best_se) == (None, None)
        assert Path(summary.folder) == folder.path.resolve()

    def test_a_folder_of_wrong_types_hides_no_other(self, database: Database, tmp_path: Path) -> None:
        run(tmp_path / "other", "sound")
        _, odd = run(tmp_path / "other", "odd")
        said = json.loads(odd.result_path.read_text())
        odd.result_path.write_text(json.dumps(said | {"name": 5, "seconds": [1], "model": {"a": 1}}))
        assert database.rebuild(tmp_path / "other") == 1
        assert [summary.name for summary in database.runs()] == ["sound"]

    def test_equal_paths_on_two_machines_are_two_runs(
        self, database: Database, tmp_path: Path, on_host: OnHost
    ) -> None:
        other = tmp_path / "other"
        on_host("node1")
        database.record(*made(run(other, "same", id="one", host="node1")))
        other.rename(tmp_path / "seen from node1 alone")
        on_host("node2")
        run(other, "same", id="two", host="node2")
        for list_them in (database.refresh, database.refresh, database.rebuild):
            assert list_them(other) == 1
            assert sorted((summary.id, summary.host) for summary in database.runs()) == [
                ("one", "node1"),
                ("two", "node2"),
            ]

    def test_a_folder_that_two_machines_share_is_one_run(
        self, database: Database, tmp_path: Path, on_host: OnHost
    ) -> None:
        on_host("node1")
        _, folder = run(tmp_path / "other", "shared", id="one", host="node1")
        _, older = run(tmp_path / "other", "older")
        said = json.loads(older.result_path.read_text())
        del said["id"], said["host"]
        older.result_path.write_text(json.dumps(said))
        for host in ("node1", "node2"):
            on_host(host)
            database.rebuild(tmp_path / "other")
        assert sorted((one.name, one.folder) for one in database.runs()) == [
            ("older", str(older.path)),
            ("shared", str(folder.path)),
        ]

    def test_an_output_folder_that_moved_is_listed_where_it_is(
        self, database: Database, tmp_path: Path
    ) -> None:
        run(tmp_path / "other", "kept", id="one")
        database.refresh(tmp_path / "other")
        (tmp_path / "other").rename(tmp_path / "new place")
        database.refresh(tmp_path / "new place")
        assert [Path(one.folder).parent.name for one in database.runs()] == ["new place"]

    def test_a_copy_is_listed_beside_its_original(self, database: Database, tmp_path: Path) -> None:
        _, folder = run(tmp_path / "other", "kept", id="one")
        database.refresh(tmp_path / "other")
        shutil.copytree(folder.path, folder.path.with_name("copy"))
        for _ in range(2):
            assert database.refresh(tmp_path / "other") == 2
            assert sorted(Path(one.folder).name for one in database.runs()) == ["copy", "kept"]

    def test_what_cannot_be_seen_for_a_while_is_not_forgotten(
        self, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = tmp_path / "other"
        for name in ("stale", "sound"):
            run(root, name)
        database.refresh(root)

        def is_run(folder: RunFolder) -> bool:
            if folder.name == "stale":
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return True

        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "is_run", is_run)
            assert database.refresh(root) == 1
        assert sorted(one.name for one in database.runs()) == ["sound", "stale"]
        root.rename(tmp_path / "not mounted")
        assert database.refresh(root) == 0
        assert sorted(one.name for one in database.runs()) == ["sound", "stale"]

    def test_a_run_that_lasts_is_read_again_at_each_listing(
        self, database: Database, tmp_path: Path
    ) -> None:
        result, folder = run(tmp_path / "other", "live", status="running", best=None)
        folder.lock()
        result.trials = result.trials[1:]
        database.record(result, folder.path, stamp=0)
        (summary,) = database.runs()
        assert (summary.trials, summary.best) == (2, None)
        database.refresh(tmp_path / "other")
        (summary,) = database.runs()
        assert (summary.trials, summary.best, summary.best_value) == (3, "t000", 1.5)
        assert summary.status == "running"
        folder.unlock()  # as when it is killed
        database.refresh(tmp_path / "other")
        assert [summary.status for summary in database.runs()] == ["interrupted"]

    def test_a_run_that_has_just_begun_is_running(self, database: Database, tmp_path: Path) -> None:
        folder = RunFolder.create(tmp_path / "other", "new")
        folder.lock()
        folder.append(Event("run_started", data={"id": "1", "verb": "tune"}))
        database.refresh(tmp_path / "other")
        assert [summary.status for summary in database.runs()] == ["running"]
        folder.unlock()


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


class TestPostgres(DatabaseContract):
    @pytest.fixture
    def database(self, postgres: Server) -> Iterator[Database]:
        with Database(postgres.new_database()) as database:
            yield database
