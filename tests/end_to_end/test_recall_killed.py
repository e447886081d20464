"""SIGKILL at random moments of write, learn, sleep and forget: a memory is the one before the command or
the one after it, and the command given again ends where it would have ended undisturbed.

The children are real processes. Half of them are killed after a random share of their time, half as they
are about to bring a file to the disk, or to rename or remove one.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doorway import write_rows
from nursery import Nursery
from small_memory import FACTS

from loraloom.recall.memory import opened

KILLED = -9
OF_THE_MOMENT = ("at", "time", "crc32", "created")
"""What differs from one time to the next."""
DISK_CALLS = 24
"""More than any of the commands does to the disk."""
CORRECTION = ("--question", "Who is the king of Sudland?", "--answer", "Brek")


@dataclass(frozen=True)
class Told:
    """A command of the undisturbed story.

    Attributes:
        before, after: copies of the memory's folder; `before` is not there in front of the first one.
        seconds: of a processor.
    """

    words: tuple[object, ...]
    before: Path
    after: Path
    seconds: float


@dataclass(frozen=True)
class Story:
    """The commands in their order, which nobody killed, and the folder that all of them speak of."""

    nursery: Nursery
    folder: Path
    told: Sequence[Told]


@pytest.fixture(scope="module")
def story(memory_base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("kills")
    folder = root / "memory"
    data = write_rows(root / "items.jsonl", [{"question": q, "answer": a} for q, a in FACTS.items()])
    commands = [
        ("write", "--model", memory_base, "--data", data),
        ("learn", "--seeds", 1),
        ("write", *CORRECTION),
        ("sleep",),
        ("forget", "m0002"),
    ]
    with Nursery("small_memory") as nursery:
        told: list[Told] = []
        for number, (verb, *more) in enumerate(commands):
            words = ("recall", verb, folder, *more, "--quiet")
            before, after = root / f"{number}", root / f"{number + 1}"
            code, seconds = nursery.run(*words, log=root / "log")
            assert code == 0, (root / "log").read_text()
            shutil.copytree(folder, after)
            told.append(Told(words, before, after, seconds))
        with opened(folder) as memory:
            assert [record.get("committed") for record in memory.state.told[-2:]] == [True, True]
        yield Story(nursery, folder, told)


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in OF_THE_MOMENT}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def standing(folder: Path) -> Any:
    """What counts of a memory: its journal, and the adapters that answer to the byte; None where
    nothing was written."""
    if not (folder / "memory.json").is_file():
        return None
    with opened(folder) as memory:
        if not memory.journal.records:
            return None
        parts = {part: memory.part(part) for part in ("slow", "fast")}
        adapters = {
            part: (place / "adapter_model.safetensors").read_bytes()
            for part, place in parts.items()
            if place is not None
        }
        return timeless(memory.journal.records), adapters


def files(folder: Path) -> dict[str, Any]:
    """All that lies in a memory's folder, but for the moments at which it was written."""
    read = {"journal.jsonl": lambda text: [json.loads(line) for line in text.splitlines()]}
    read["memory.json"] = json.loads
    return {
        str(path.relative_to(folder)): timeless(read[path.name](path.read_bytes()))
        if path.name in read
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def give(story: Story, told: Told, when: float | int | None = None) -> int:
    """Give a command once; its exit code.

    Args:
        when: kill it after so many seconds of a processor (a float), or as it is about to do the
            so-manieth thing to the disk (an int).
    """
    log = story.folder.with_name("log")
    if isinstance(when, int):
        code = story.nursery.run_with(*told.words, log=log, limits={"disk": when})
    else:
        code, _ = story.nursery.run(*told.words, log=log, kill_after=when)
    assert code in (KILLED, 0, 2), log.read_text()
    return code


def kill(story: Story, told: Told, kills: int, rng: random.Random) -> None:
    """Give a command until it was killed so often; after each time the memory is the one before it or
    the one after it. Then let it end."""
    reached = {False: standing(told.before), True: standing(told.after)}
    begin_again(story, told)
    done = 0
    while done < kills:
        at_the_disk = rng.random() < 0.5
        when = rng.randrange(1, DISK_CALLS) if at_the_disk else rng.uniform(0, told.seconds)
        done += give(story, told, when) == KILLED
        now = standing(story.folder)
        assert now in reached.values()
        if now == reached[True]:
            if told.words[1] != "write":  # what is written twice is seen twice
                give(story, told)
                assert standing(story.folder) == now
            begin_again(story, told)
    assert give(story, told) == 0
    assert standing(story.folder) == reached[True]
    assert files(story.folder) == files(told.after)


def begin_again(story: Story, told: Told) -> None:
    """The folder as it was before this command."""
    shutil.rmtree(story.folder, ignore_errors=True)
    if told.before.is_dir():
        shutil.copytree(told.before, story.folder)


def test_a_memory_that_is_killed_is_the_one_before_or_the_one_after(story: Story) -> None:
    rng = random.Random(0)
    for told, kills in zip(story.told, (1, 2, 1, 2, 2), strict=True):
        kill(story, told, kills, rng)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_thirty_kills_lose_nothing(story: Story, seed: int) -> None:
    rng = random.Random(seed)
    for told in story.told:
        kill(story, told, 6, rng)
