"""A run is steered, killed at a random moment after that and gone on with: it does the same again at the
same step, and comes to the adapters of a run in which nothing was killed, bit for bit.

That other run is begun with the control.applied.jsonl of the first, and without its control.jsonl.
"""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from doorway import World
from nursery import Nursery

from loraloom.store.control import Command, append, new_uuid
from loraloom.store.folder import RunFolder

KILLED = -9
MOMENTS, SHORT = 20, 3
ENDS = ("completed", "pruned", "diverged", "failed")


@dataclass(frozen=True)
class Story:
    """How the run is asked for, and what one without commands came to."""

    nursery: Nursery
    words: list[object]
    root: Path
    lines: int
    seconds: float


@pytest.fixture(scope="module")
def story(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A tune with candidates that wait and are pruned by the search, an open window, and dropout."""
    root = tmp_path_factory.mktemp("steered")
    words: list[object] = ["tune", "--model", world.llama, "--data", world.text, "--output-dir", root]
    words += ["--trials", 5, "--max-steps", 12, "--max-packed", 2, "--batch-size", 2]
    words += ["--dropout", 0.1, "--quiet", "--no-history"]
    for key, value in {
        "training.gradient_accumulation_steps": 2,
        "search.seeds_for_finalists": 1,
        "search.space": "{training.learning_rate: {low: 1.0e-4, high: 5.0e-2, log: true}}",
    }.items():
        words += ["--set", f"{key}={value}"]
    with Nursery() as nursery:
        code, seconds = nursery.run(*words, "--name", "unsteered", log=root / "unsteered.log")
        assert code == 0, (root / "unsteered.log").read_text()
        yield Story(nursery, words, root, len(events_of(root / "unsteered")), seconds)


def events_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def steer(folder: Path, line: int, rng: random.Random, over: threading.Event) -> None:
    """When so much has happened, prune one that trains, clone one, and ask for one more."""
    while not (folder / "events.jsonl").is_file() or len(events_of(folder)) < line:
        if over.is_set():
            return
        time.sleep(0.002)
    status = dict[str, str]()
    for event in events_of(folder):
        if event["trial"] and event["kind"] in (*ENDS, "trial_started", "waiting", "running"):
            status[event["trial"]] = event["kind"]
    there = [trial for trial, kind in status.items() if kind not in ENDS]
    warm = {"warm": True, "training.learning_rate": 2e-3}
    fresh = {"adapter.r": 4, "training.learning_rate": 3e-3}
    wanted = [
        Command(new_uuid(), "clone", rng.choice(there), warm if rng.random() < 0.5 else fresh),
        Command(new_uuid(), "prune", rng.choice(there)),
        Command(new_uuid(), "extend", None, {"trials": 1}),
    ]
    for command in wanted:
        append(RunFolder(folder), command)


def steered_and_killed(story: Story, seed: int, most: int) -> tuple[Path, int]:
    """The folder of a run that was steered and then killed, `most` times at the most, and how often it
    was."""
    rng, folder = random.Random(seed), story.root / f"steered-{seed}"
    line = rng.randrange(12, int(0.5 * story.lines))
    later = rng.randrange(line + 2, int(0.9 * story.lines))
    log, over = folder.with_suffix(".log"), threading.Event()
    hand = threading.Thread(target=steer, args=(folder, line, rng, over))
    hand.start()
    words, kills = [*story.words, "--name", folder.name], 0
    code, _ = story.nursery.run(*words, log=log, kill_at=(folder / "events.jsonl", later))
    over.set()
    hand.join()
    while code == KILLED:
        kills += 1
        words = ["tune", "--resume", folder, "--quiet"]
        again = rng.uniform(0.2, 1.5) * story.seconds if kills < most else None
        code, _ = story.nursery.run(*words, log=log, kill_after=again)
    assert code == 0, log.read_text()
    return folder, kills


def told_again(story: Story, folder: Path) -> Path:
    """The same run without a kill, which knows of the commands only when they were obeyed."""
    other = folder.with_name(f"{folder.name}-again")
    other.mkdir()
    asked = yaml.safe_load((folder / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump({**asked, "name": other.name}))
    shutil.copy(folder / "control.applied.jsonl", other)
    log = other.with_suffix(".log")
    code, _ = story.nursery.run("tune", "--resume", other, "--quiet", log=log)
    assert code == 0, log.read_text()
    return other


def adapters_of(folder: Path) -> Mapping[str, bytes]:
    files = [
        *folder.glob("trials/*/adapter/adapter_model.safetensors"),
        folder / "best" / "adapter_model.safetensors",
    ]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def course_of(folder: Path) -> list[tuple[Any, ...]]:
    """All that happened, without its times and without the notes that say that it was interrupted."""
    names = ("loss", "grad_norm", "tokens", "reason", "params", "uuid", "state", "made", "role")
    return [
        (event["kind"], event["trial"], event["step"], *(event["data"].get(name) for name in names))
        for event in events_of(folder)
        if event["kind"] != "note"
    ]


def require_same(story: Story, seed: int, most: int) -> int:
    """One moment; how often the run was killed."""
    folder, kills = steered_and_killed(story, seed, most)
    asked = [event["data"] for event in events_of(folder) if event["kind"] == "command"]
    assert len(asked) == len({one["uuid"] for one in asked}) == 3, "each counts once"
    other = told_again(story, folder)
    assert course_of(folder) == course_of(other)
    assert adapters_of(folder) == adapters_of(other)
    applied = (folder / "control.applied.jsonl").read_bytes()
    assert applied == (other / "control.applied.jsonl").read_bytes()
    return kills


def test_it_obeys_again_at_the_same_step(story: Story) -> None:
    assert sum(require_same(story, seed, most=1) for seed in range(SHORT)) >= SHORT - 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 100 + MOMENTS))
def test_it_obeys_again_at_the_same_step_at_many_moments(seed: int, story: Story) -> None:
    require_same(story, seed, most=3)
