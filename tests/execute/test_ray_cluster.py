"""Searches on a Ray cluster of two nodes of this machine, through the command line: workers, nodes and
the driver are killed, and what comes out is what would have come out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))

from bases import save_llama
from contract_worker import FACTORY
from doorway import write_rows
from ray_nodes import Nodes, workers
from test_executor_contract import ExecutorContract, One

from loraloom.execute.host import invite
from loraloom.execute.ray import RayWorkers, connect
from loraloom.execute.ray_places import Needs, Places

pytestmark = pytest.mark.long

TRIALS, STEPS = 4, 240
PATIENCE_SECONDS = 200.0


@pytest.fixture(scope="module")
def nodes(ray_environment: pytest.MonkeyPatch) -> Iterator[Nodes]:
    nodes = Nodes()
    ray_environment.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    nodes.close()


class TestRay(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def two(cls, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[One, One]]:  # type: ignore[override]
        folder, places = tmp_path_factory.mktemp("contract"), Places(Needs(0, 1), 1)
        with nodes.another(), closing(connect()) as cluster:
            invitation = invite(FACTORY, {"folder": ""})
            executors = [RayWorkers(cluster, invitation, folder, places) for _ in range(2)]
            yield One(executors[0]), One(executors[1])


class Search:
    """A search of four candidates that nobody prunes.

    Args:
        home: with the base in `base` and rows in `rows.jsonl`; the run goes there.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._asked = [
            *("--model", home / "base", "--data", home / "rows.jsonl", "--output-dir", home),
            *("--name", name, "--trials", TRIALS, "--max-steps", STEPS, "--batch-size", 4),
            *("--max-packed", 2),  # so that each of two workers has some
        ]
        alike = ("search.sampler=random", "search.pruner=none", "search.seeds_for_finalists=1")
        # At such rates a last digit that differs stays one; at ten times these it is 1% after 60 steps,
        # also in one process.
        rates = "search.space={training.learning_rate: {low: 2.0e-4, high: 1.0e-3, log: true}}"
        for setting in (*alike, rates, "training.learning_rate=5.0e-4", "diagnose.act=false"):
            self._asked += ["--set", setting]
        self.folder = home / name

    def begin(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-X", "faulthandler", "-m", "loraloom", "tune", *self._asked, *words]
        return subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def begin_on_ray(self, workers: int = 2) -> subprocess.Popen[str]:
        return self.begin("--set", "execute=ray", "--workers", workers)

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def notes(self) -> str:
        return "\n".join(one["data"]["text"] for one in self.events() if one["kind"] == "note")

    def taken_over(self) -> set[str]:
        """Candidates that went on with another worker than the one that had begun them."""
        events = self.events()
        began = {one["trial"]: one["data"]["worker"] for one in events if one["kind"] == "trial_started"}
        return {
            one["trial"]
            for one in events
            if one["kind"] == "running" and one["data"]["worker"] != began[one["trial"]]
        }

    def wait_for(self, driver: subprocess.Popen[str], what: Callable[[], bool]) -> None:
        """Until something has happened in the run that is under way."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not what():
            if driver.poll() is not None:
                pytest.fail(f"the driver has ended: {driver.communicate()}")
            if time.monotonic() > until:
                driver.send_signal(signal.SIGABRT)  # it says where it is
                pytest.fail(f"nothing has come: {driver.communicate()}")
            time.sleep(0.3)

    def trains(self, share: float = 0.2) -> Callable[[], bool]:
        """Whether every candidate has come so far."""

        def reached() -> bool:
            steps = {one["trial"]: one["step"] for one in self.events() if one["kind"] == "step"}
            return len(steps) == TRIALS and min(steps.values()) > share * STEPS

        return reached

    def require_whole(self) -> None:
        """Each candidate came to its end once, and no step was written down twice."""
        result = json.loads((self.folder / "run.json").read_text())
        assert result["status"] == "completed"
        ends = [one["trial"] for one in self.events() if one["kind"] == "completed"]
        assert sorted(ends) == [f"t{number:03d}" for number in range(TRIALS)]
        for trial in ends:
            steps = [
                one["step"] for one in self.events() if (one["kind"], one["trial"]) == ("step", trial)
            ]
            assert steps == list(range(1, STEPS + 1)), trial

    def require_same_adapters(self, other: Search) -> None:
        for number in range(TRIALS):
            file = Path("trials") / f"t{number:03d}" / "adapter" / "adapter_model.safetensors"
            mine, theirs = load_file(self.folder / file), load_file(other.folder / file)
            assert mine.keys() == theirs.keys()
            for name, tensor in mine.items():
                largest = theirs[name].abs().max()
                assert (tensor - theirs[name]).abs().max() <= 1e-4 * largest, (number, name)


def ended(driver: subprocess.Popen[str], code: int = 0) -> str:
    """What a driver has said, once it has ended."""
    out, err = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == code, err
    assert "raylet" not in out + err, "what Ray has to say is kept off the screen"
    return out + err


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("searches")
    sentences = [
        f"the {who} {does} {where}"
        for who in ("cat", "dog", "bird", "fish")
        for does in ("sleeps", "waits", "turns", "eats")
        for where in ("here", "there", "now")
    ]
    save_llama(home / "base", sentences)
    write_rows(home / "rows.jsonl", [{"text": one} for one in sentences])
    return home


@pytest.fixture(scope="module")
def alone(home: Path) -> Search:
    """The same in one process."""
    search = Search(home, "alone")
    ended(search.begin())
    return search


def test_two_nodes_do_what_one_process_does(nodes: Nodes, home: Path, alone: Search) -> None:
    search = Search(home, "two")
    with nodes.another():
        driver = search.begin_on_ray()
        search.wait_for(driver, search.trains())
        assert len(workers()) == 2
        ended(driver)
    search.require_whole()
    search.require_same_adapters(alone)
    assert gone(workers())


def test_a_killed_worker_is_replaced_and_nothing_is_lost(
    nodes: Nodes, home: Path, alone: Search
) -> None:
    search = Search(home, "worker-killed")
    with nodes.another():
        driver = search.begin_on_ray()
        search.wait_for(driver, search.trains())
        workers()[0].kill()
        search.wait_for(driver, lambda: "is lost: ActorDiedError" in search.notes())
        ended(driver)
    search.require_whole()
    search.require_same_adapters(alone)


def test_a_killed_node_is_lost_and_another_is_used(nodes: Nodes, home: Path, alone: Search) -> None:
    search = Search(home, "node-killed")
    with nodes.another() as kill:
        driver = search.begin_on_ray()
        search.wait_for(driver, search.trains())
        kill()
        search.wait_for(driver, lambda: "is lost: Actor" in search.notes())
        search.wait_for(driver, lambda: len(workers()) == 1)
        (left,) = workers()
        left.suspend()  # else it may be through before a new one is there
        with nodes.another():
            search.wait_for(driver, lambda: bool(search.taken_over()))
            left.resume()
            ended(driver)
    search.require_whole()
    search.require_same_adapters(alone)


def test_a_killed_driver_leaves_no_worker_and_its_run_goes_on(
    nodes: Nodes, home: Path, alone: Search
) -> None:
    search = Search(home, "driver-killed")
    with nodes.another():
        driver = search.begin_on_ray()
        search.wait_for(driver, search.trains())
        left = workers()
        assert len(left) == 2
        driver.kill()
        driver.communicate()
        assert gone(left)
        ended(search.begin_on_ray())
    search.require_whole()
    search.require_same_adapters(alone)


def test_ctrl_c_keeps_all_and_leaves_the_cluster(nodes: Nodes, home: Path, alone: Search) -> None:
    search = Search(home, "stopped")
    with nodes.another():
        driver = search.begin_on_ray()
        search.wait_for(driver, search.trains())
        left = workers()
        driver.send_signal(signal.SIGINT)
        assert "--resume" in ended(driver, 130)
        assert gone(left)
        ended(search.begin_on_ray(workers=1))
    search.require_whole()
    search.require_same_adapters(alone)


def test_a_machine_with_another_version_is_refused(nodes: Nodes, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "loraloom-0.0.7.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: loraloom\nVersion: 0.0.7\n")
    search = Search(home, "versions")
    with nodes.another(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])):
        ended(search.begin_on_ray())
    search.require_whole()
    assert "cannot join: it has another version of loraloom" in search.notes()


def test_a_worker_that_finds_another_base_is_refused(nodes: Nodes, home: Path, alone: Search) -> None:
    search, weights = Search(home, "bases"), home / "base" / "model.safetensors"
    with nodes.another():
        driver = search.begin_on_ray()
        search.wait_for(driver, search.trains())
        kept = weights.read_bytes()
        try:
            weights.unlink()  # those who have it open keep theirs
            weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
            first, *others = workers()
            for other in others:
                other.suspend()  # as above
            first.kill()
            search.wait_for(driver, lambda: "its base model has other weights" in search.notes())
            for other in others:
                other.resume()
        finally:
            weights.write_bytes(kept)
        ended(driver)
    search.require_whole()
    search.require_same_adapters(alone)
