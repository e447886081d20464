"""SIGKILL at random moments, again and again: what comes out at last is what would have
come out undisturbed.

The children are real processes, killed from outside while they read, train, save,
prune, race or write a checkpoint.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, World
from nursery import Nursery

from loraloom.store.database import Database, default_url

KILLED = -9
OF_THE_MOMENT = ("seconds", "peak_bytes")
"""What a trial took differs from one time to the next; nothing else does."""
FIRST_KILL = 0.7
"""The first kill falls somewhere in this share of the story."""


@dataclass(frozen=True)
class Undisturbed:
    """The run that nobody killed, how long it took, and how to ask for it."""

    nursery: Nursery
    words: list[object]
    folder: Path
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """A tune with everything in it: candidates that wait and are pruned, an open accumulation window,
    dropout, a race, a test split."""
    root = tmp_path_factory.mktemp("crashes")
    words: list[object] = [
        "tune",
        "--model",
        world.llama,
        "--data",
        world.text,
        "--test",
        "0.1",
        "--output-dir",
        root,
        "--trials",
        8,
        "--max-steps",
        24,
        "--max-packed",
        3,
        "--batch-size",
        2,
        "--dropout",
        0.1,
        "--quiet",
        "--no-history",
    ]
    for key, value in {
        "training.gradient_accumulation_steps": 2,
        "search.seeds_for_finalists": 2,
        "search.space": (
            "{training.learning_rate: {low: 1.0e-4, high: 5.0e-2, log: true}, adapter.r: [2, 8]}"
        ),
    }.items():
        words += ["--set", f"{key}={value}"]
    with Nursery() as nursery:
        nursery.run("env", log=root / "env.log")
        code, seconds = nursery.run(*words, "--name", "undisturbed", log=root / "undisturbed.log")
        assert code == 0, (root / "undisturbed.log").read_text()
        one = Undisturbed(nursery, words, root / "undisturbed", seconds)
        statuses = {trial["status"] for trial in result_of(one.folder)["trials"]}
        assert {"completed", "pruned"} <= statuses, "a run in which nothing is pruned shows too little"
        assert {"race", "waiting", "running"} <= {event["kind"] for event in events_of(one.folder)}
        yield one


def killed_until_done(run: Undisturbed, name: str, rng: random.Random) -> int:
    """Start a run, kill it, go on with it, kill it ... until it ends by itself; how
    often it was killed."""
    folder = run.folder.with_name(name)
    log, kills = folder.with_suffix(".log"), 0
    while True:
        began = (folder / "config.yaml").is_file()
        words = (
            ["tune", "--resume", folder, "--quiet"]
            if began and kills % 2
            else [*run.words, "--name", name]
        )
        if kills:
            code, _ = run.nursery.run(*words, log=log, kill_after=rng.uniform(0, 1.1 * run.seconds))
        else:  # by what it has written: on a machine of any speed it is killed at least once
            line = rng.randrange(1, int(FIRST_KILL * len(events_of(run.folder))))
            code, _ = run.nursery.run(*words, log=log, kill_at=(folder / "events.jsonl", line))
        finished = log.is_file() and "is finished" in log.read_text()
        if code != KILLED:
            # The very last moment of a run lies behind its end: asked once more, it
            # says that it is finished.
            assert code == 0 or (code == 2 and finished and kills), log.read_text()
            return kills
        kills += 1


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def adapters_of(folder: Path) -> dict[str, bytes]:
    files = [
        *folder.glob("trials/*/adapter/adapter_model.safetensors"),
        folder / "best" / "adapter_model.safetensors",
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def told(folder: Path) -> list[tuple[Any, ...]]:
    """The story without its times, and without the notes that say that it was interrupted."""
    numbers = ("loss", "grad_norm", "learning_rate", "tokens", "reason", "params")
    return [
        (event["kind"], event["trial"], event["step"], *(event["data"].get(name) for name in numbers))
        for event in events_of(folder)
        if event["kind"] != "note"
    ]


def same(folder: Path, run: Undisturbed) -> None:
    """Adapters bit for bit, every trial once, folder and index of one mind, and nothing
    left lying about."""
    assert adapters_of(folder) == adapters_of(run.folder)
    assert told(folder) == told(run.folder)
    got, expected = result_of(folder), result_of(run.folder)
    for result in (got, expected):
        for trial in result["trials"]:
            for name in OF_THE_MOMENT:
                del trial[name]
        for name in ("metrics", "id", "params"):
            result[name] = (result["best"] or {}).get(name)
    for name in (
        "status",
        "trials",
        "baseline",
        "metrics",
        "id",
        "params",
        "default",
        "verdict",
        "findings",
    ):
        assert got[name] == expected[name], name
    with Database(default_url(folder.parent)) as database:
        database.refresh(folder.parent)
        kept = {summary.name: summary for summary in database.runs()}[folder.name]
        assert (kept.status, kept.best, kept.trials) == (got["status"], got["id"], len(got["trials"]))
        assert kept.statuses == Counter(trial["status"] for trial in got["trials"])
    assert not (folder / "checkpoints").exists()
    assert not [
        path
        for path in folder.rglob("*")
        if path.suffix in (".part", ".partial") or path.name.startswith(".")
    ]


def crash_test(run: Undisturbed, seed: int, count: int) -> int:
    """So many runs, each killed until it is done; how often that was in all."""
    rng, kills = random.Random(seed), 0
    for number in range(count):
        name = f"killed-{seed}-{number}"
        kills += killed_until_done(run, name, rng)
        same(run.folder.with_name(name), run)
    return kills


def test_another_process_trains_the_same(undisturbed: Undisturbed, loraloom: Door) -> None:
    """The same request, asked again of this process: hashes of text differ in it, so no
    order may hang on those."""
    answer = loraloom(*undisturbed.words, "--name", "again")
    assert answer.code == 0, answer.err
    same(undisturbed.folder.with_name("again"), undisturbed)


def test_a_run_that_is_killed_loses_nothing(undisturbed: Undisturbed) -> None:
    assert crash_test(undisturbed, seed=0, count=2) > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 21))
def test_sixty_runs_that_are_killed_lose_nothing(
    seed: int, undisturbed: Undisturbed, record_property: Callable[[str, object], None]
) -> None:
    """Three runs with each seed."""
    kills = crash_test(undisturbed, seed, count=3)
    record_property("kills", kills)
    assert kills > 0
