"""A run that is gone on with on another machine than the one on which it was begun."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from doorway import World
from kill_story import Life, Redone, require_gone
from nursery import Nursery
from test_several_workers import events_of, words_of, workers_of


def is_scored(folder: Path) -> bool:
    """Whether a candidate was."""
    return any(event["kind"] == "evaluated" and event["trial"] for event in events_of(folder))


def test_a_run_goes_on_elsewhere_once_its_driver_is_gone(world: World, tmp_path: Path) -> None:
    folder, log = tmp_path / "moved", tmp_path / "log"
    words = [*words_of(world, tmp_path, trials=2, steps=32), "--name", "moved", "--workers", 1]
    resume = ["tune", "--resume", folder, "--quiet"]
    with Nursery() as here, Nursery() as there:
        life = Life(here, words, log, limits={"host": 1})
        while not life.is_over and not is_scored(folder):
            time.sleep(0.01)
        driver = life.driver()
        assert driver is not None, log.read_text()
        driver.suspend()  # it lives, and does not end meanwhile
        code, _ = there.run(*resume, log=tmp_path / "refused.log", limits={"host": 2})
        said = (tmp_path / "refused.log").read_text()
        assert code == 2 and f"process {driver.pid} on host-1 holds it" in said, said
        workers = workers_of(driver)
        driver.kill()
        assert life.end() == -signal.SIGKILL
        require_gone(workers)
        redone = Redone()
        redone.driver_died(folder)
        code, _ = there.run(*resume, log=log, limits={"host": 2})
        assert code == 0, log.read_text()
    redone.lived(folder)
    assert redone.most <= 32 // 8
    result = json.loads((folder / "run.json").read_text())
    assert (result["status"], result["host"]) == ("completed", "host-2")
    assert [trial["steps"] for trial in result["trials"]] == [32, 32]
