"""A run that is gone on with on another machine than the one on which it was begun."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pytest
from doorway import Door, World
from kill_story import Life, Redone, require_gone
from nursery import Nursery
from test_several_workers import events_of, words_of, workers_of

STEPS, EVALUATIONS = 32, 8


def is_scored(folder: Path) -> bool:
    """Whether a candidate was."""
    return any(event["kind"] == "evaluated" and event["trial"] for event in events_of(folder))


@pytest.mark.long
def test_a_run_goes_on_elsewhere_once_its_driver_is_gone(
    world: World, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = tmp_path / "moved", tmp_path / "log"
    words = [*words_of(world, tmp_path, trials=2, steps=STEPS), "--name", "moved", "--workers", 1]
    monkeypatch.setattr(socket, "gethostname", lambda: "host-2")
    with Nursery() as nursery:
        life = Life(nursery, words, log, limits={"host": 1})
        while not life.is_over and not is_scored(folder):
            time.sleep(0.01)
        driver = life.driver()
        assert driver is not None, log.read_text()
        driver.suspend()  # it lives, and does not end meanwhile
        refused = loraloom("tune", "--resume", folder)
        assert refused.code == 2 and f"process {driver.pid} on host-1 holds it" in refused.err
        workers = workers_of(driver)
        driver.kill()
        assert life.end() == -signal.SIGKILL
        require_gone(workers)
    redone = Redone()
    redone.driver_died(folder)
    answer = loraloom("tune", "--resume", folder)
    assert answer.code == 0, answer.err
    redone.lived(folder)
    assert redone.most <= STEPS // EVALUATIONS
    result = json.loads((folder / "run.json").read_text())
    assert (result["status"], result["host"]) == ("completed", "host-2")
    assert [trial["status"] for trial in result["trials"]] == ["completed"] * 2
