"""Ten thousand trials: every listing reads what it shows and no more."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sql

from loraloom.records import Event, Trial
from loraloom.store.database import Database, default_url
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

RUNS, TRIALS, STEPS = 200, 50, 30


def trial(draw: random.Random, number: int) -> Trial:
    rate, rank = 10 ** draw.uniform(-4.5, -2), draw.choice([8, 16, 32])
    loss = 1.2 + (math.log10(rate) + 3.2) ** 2 / 10 + draw.gauss(0, 0.01)
    params = {"training.learning_rate": rate, "adapter.r": rank}
    status = "pruned" if number % 3 == 2 else "completed"
    return Trial(
        f"t{number:03d}",
        status,
        params,
        {"validation_loss": loss, "validation_loss_se": 0.01},
        40.0,
        9000,
        STEPS,
        STEPS,
        2**30,
        1000 * rank,
        None,
        (),
        params,
    )


def write_run(output_dir: Path, number: int, trials: int = TRIALS, *, events: bool = True) -> None:
    draw = random.Random(number)
    folder = RunFolder.create(output_dir, f"run-{number:03d}")
    made = [trial(draw, k) for k in range(trials)]
    best = min(made, key=lambda one: one.metrics["validation_loss"] + (one.status != "completed"))
    folder.write_result(
        RunResult(
            folder.name,
            "tune",
            "completed",
            "tiny",
            "causal_lm",
            f"2025-01-01T00:{number // 60:02d}:{number % 60:02d}+00:00",
            baseline={"validation_loss": 2.0},
            best=best.id,
            default="t000",
            trials=made,
        )
    )
    if events:
        from loraloom.store.to_json import to_json

        lines = [
            Event("step", one.id, step, step / 10, {"loss": 1 + 1 / step, "learning_rate": 1e-4})
            for one in made
            for step in range(1, STEPS + 1)
        ]
        folder.events_path.write_bytes(b"".join(to_json(line) + b"\n" for line in lines))


def test_listing_asks_the_database_as_often_for_many_runs_as_for_one(tmp_path: Path) -> None:
    def asked(output_dir: Path) -> int:
        with Database(default_url(output_dir)) as database:
            database.refresh(output_dir)
            statements: list[str] = []
            engine = database._engine  # pyright: ignore[reportPrivateUsage]
            sql.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
            database.refresh(output_dir)
            database.runs()
            return len(statements)

    for count in (1, 8):
        for number in range(count):
            write_run(tmp_path / str(count), number, trials=2, events=False)
    assert asked(tmp_path / "8") == asked(tmp_path / "1")


@pytest.mark.long
def test_ten_thousand_trials_are_listed_compared_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints what each command took. Times depend on the machine: they are shown, not asserted."""
    output_dir = tmp_path / "runs"
    for number in range(RUNS):
        write_run(output_dir, number)
    with Database(default_url(output_dir)) as database:
        assert database.rebuild(output_dir) == RUNS
        assert sum(run.trials for run in database.runs()) == RUNS * TRIALS
    verbs = (
        ["runs"],
        ["compare", "run-000"],
        ["compare", "run-000", "run-001", "run-199"],
        ["report", "run-007"],
    )
    for words in verbs:
        began = time.perf_counter()
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-m", "loraloom", *words, "--output-dir", str(output_dir)],
            capture_output=True,
            text=True,
            check=False,
        )
        after = os.times()
        busy = (
            after.children_user + after.children_system - before.children_user - before.children_system
        )
        with capsys.disabled():
            print(
                f"\n{' '.join(words)}: {time.perf_counter() - began:.2f} s, {busy:.2f} s of them busy",
                end="",
            )
        assert done.returncode == 0, done.stderr
    assert (output_dir / "run-007" / "report.html").stat().st_size < 6_000_000
