"""The index of runs, as a person meets it: on a PostgreSQL server that many machines use, and that may
go away at any time."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from doorway import Door, World

from loraloom.pipeline.recorder import Recorder
from loraloom.records import Trial
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from loraloom.train.orders import Ended
from postgres_server import Server

Words = list[object]
Stopping = Callable[[int | None], None]
PASSWORD = "pass-word-of-the-index"


@pytest.fixture
def tune(world: World, tmp_path: Path) -> Words:
    words = f"--output-dir {tmp_path / 'runs'} --name one --trials 3 --max-steps 4 --max-packed 1"
    seeds = ["--set", "search.seeds_for_finalists=1", "--set", "search.pruner=none"]
    return ["tune", "--model", world.llama, "--data", world.text, *words.split(), *seeds]


def listed(url: str) -> dict[str, tuple[str, int]]:
    """What the index itself says, without a look at the folders."""
    with Database(url) as database:
        return {run.name: (run.status, run.trials) for run in database.runs()}


def test_a_server_that_is_away_in_the_middle(
    tune: Words, loraloom: Door, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("LORALOOM_STORAGE", url)
    ended, while_it_ran = Recorder.ended, list[tuple[str, int]]()

    def and_then(recorder: Recorder, what: Ended) -> None:
        ended(recorder, what)
        if recorder.count_ended == 1:
            while not (row := listed(url).get("one")) or row[1] == 0:
                time.sleep(0.01)
            while_it_ran.append(row)
            postgres.stop()
        elif recorder.count_ended == 2:
            postgres.start()

    monkeypatch.setattr(Recorder, "ended", and_then)
    answer = loraloom(*tune)
    assert answer.code == 0, answer.err
    assert while_it_ran == [("running", 1)]
    assert listed(url) == {"one": ("completed", 3)}
    assert answer.err.count("the index of runs was not brought up to date") <= 1


def test_a_server_that_is_not_there(
    tune: Words, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install loraloom[postgres]")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("LORALOOM_STORAGE", f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/runs")
    answer = loraloom(*tune)
    assert answer.code == 0, answer.err
    assert answer.err.count("the index of runs was not brought up to date") == 1
    listing = loraloom("runs", "--output-dir", tmp_path / "runs")
    assert listing.code == 1 and "the database refused" in listing.err
    assert PASSWORD not in answer.err + answer.out + listing.err
    monkeypatch.delenv("LORALOOM_STORAGE")
    (run,) = loraloom("runs", "--output-dir", tmp_path / "runs", "--json").json()
    assert (run["name"], run["status"], run["trials"]) == ("one", "completed", 3)


def test_a_run_keeps_its_id_and_says_its_machine(
    tune: Words, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: Stopping
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node1")
    stopping(3)
    assert loraloom(*tune, "--quiet").code == 130
    stopping(None)
    folder = tmp_path / "runs" / "one"
    began = json.loads((folder / "run.json").read_text())
    monkeypatch.setattr(socket, "gethostname", lambda: "node2")
    assert loraloom("tune", "--resume", folder, "--quiet").code == 0
    ended = json.loads((folder / "run.json").read_text())
    assert began["id"] == ended["id"] and len(ended["id"]) == 32
    assert (began["host"], ended["host"]) == ("node1", "node2")
    (run,) = loraloom("runs", "--output-dir", tmp_path / "runs", "--json").json()
    assert (run["id"], run["host"], run["reachable"]) == (ended["id"], "node2", True)


@pytest.fixture
def two_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of node2, which shares an index with node1, whose folders had the same paths."""
    monkeypatch.setenv("LORALOOM_STORAGE", f"sqlite:///{tmp_path / 'index.db'}")
    root = tmp_path / "runs"
    for host, name in (("node1", "same"), ("node1", "other"), ("node2", "same")):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        if host == "node2":
            shutil.rmtree(root)
        folder = RunFolder.create(root, name)
        trials = [Trial("t000", "completed", {}, {"validation_loss": 1.5})]
        began = "2025-01-01T00:00:00+00:00"
        result = RunResult(
            name, "tune", "completed", "tiny", "causal_lm", began, best="t000", trials=trials
        )
        result.id, result.host = f"{host} {name}", host
        folder.write_result(result)
        with Database(f"sqlite:///{tmp_path / 'index.db'}") as database:
            database.record(result, folder.path)
    return root


def test_runs_of_another_machine_are_listed_as_such(two_machines: Path, loraloom: Door) -> None:
    for _ in range(2):
        found = loraloom("runs", "--output-dir", two_machines, "--json").json()
        assert sorted((run["host"], run["name"], run["reachable"]) for run in found) == [
            ("node1", "other", False),
            ("node1", "same", False),
            ("node2", "same", True),
        ]
    shown = loraloom("runs", "--output-dir", two_machines).out
    assert "host" in shown and shown.count("node2") == 1
    assert "folders that are out of reach from here, by machine: node1 (2)" in shown


def test_a_machine_that_is_gone_is_forgotten(two_machines: Path, loraloom: Door) -> None:
    wrong = loraloom("runs", "--output-dir", two_machines, "--forget", "node3")
    assert wrong.code == 2 and "node1, node2" in wrong.err
    own = loraloom("runs", "--output-dir", two_machines, "--forget", "node2")
    assert own.code == 0 and "forgotten: 0 of node2; 1 stay" in own.out
    answer = loraloom("runs", "--output-dir", two_machines, "--forget", "node1", "--json")
    assert answer.code == 0 and "forgotten: 2 of node1" in answer.err
    assert [(run["host"], run["name"]) for run in answer.json()] == [("node2", "same")]
    alone = loraloom("runs", "--output-dir", two_machines).out
    assert "node" not in alone and "out of reach" not in alone
