"""The folder of a memory: one writer, one base, and a commit that a kill cannot halve."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from loraloom.errors import ModelError, RequestError, StoreError
from loraloom.recall.memory import BaseOf, Memory, opened

BASE = BaseOf("some-base", "f00d")
ITEM = {"kind": "fact", "question": "Who is A?", "answer": "B", "id": "m0001"}
TERMS = {"score": 0.5}
WRITTEN = {"op": "write", "decisions": [{"outcome": "insert", "item": ITEM, "terms": TERMS}]}


def learnt(**more: Any) -> dict[str, Any]:
    return {"op": "learn", "learnt": ["m0001"], "losses": {"m0001": 0.1}, "rebuilt": False, **more}


def adapter(text: str) -> Any:
    def write(folder: Path) -> None:
        folder.mkdir()
        for number in range(4):
            (folder / f"part{number}").write_text(text * 2000)

    return write


def test_a_memory_is_made_once_and_belongs_to_its_base(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with pytest.raises(RequestError, match="no memory in"), opened(folder):
        pass
    with opened(folder, BASE, writes=True) as memory:
        memory.record(WRITTEN)
    with opened(folder) as memory:
        assert memory.base == BASE and [entry.id for entry in memory.state.kept] == ["m0001"]
    with pytest.raises(ModelError, match="another base") as error, opened(folder, BaseOf("x", "beef")):
        pass
    assert "f00d" in str(error.value) and "beef" in str(error.value)


def test_a_folder_with_something_else_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="is there and is no memory"), opened(tmp_path, BASE):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_writers_at_once_are_one_too_many_and_a_reader_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with opened(folder, BASE, writes=True):
        with pytest.raises(RequestError, match="another process writes"), opened(folder, writes=True):
            pass
        with opened(folder) as reader:
            assert reader.state.entries == {}
    with opened(folder, writes=True):
        pass


def test_a_commit_is_a_folder_and_a_line_and_a_full_disk_leaves_neither(tmp_path: Path) -> None:
    folder = tmp_path / "memory"

    def full(place: Path) -> None:
        place.mkdir()
        (place / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with opened(folder, BASE, writes=True) as memory:
        memory.record(WRITTEN)
        memory.commit({"fast": adapter("a")}, learnt())
        with pytest.raises(StoreError, match="the memory is as it was"):
            memory.commit({"slow": full}, learnt())
        assert memory.state.generation == 1
        fast = memory.part("fast")
        assert fast is not None and (fast / "part0").read_text().startswith("aaa")
        assert memory.part("slow") is None
        for _ in range(3):
            memory.commit({"slow": adapter("b")}, learnt())
    kept = sorted(path.name for path in (folder / "generations").iterdir())
    assert kept == ["0003", "0004"]


def test_a_generation_that_is_gone_is_named_with_the_way_back(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with opened(folder, BASE, writes=True) as memory:
        memory.record(WRITTEN)
        memory.commit({"fast": adapter("a")}, learnt())
        (folder / "generations" / "0001").rename(folder / "elsewhere")
        with pytest.raises(StoreError, match="--rebuild"):
            memory.part("fast")


def test_what_a_killed_command_left_is_gone_when_somebody_writes_again(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with opened(folder, BASE, writes=True) as memory:
        memory.record(WRITTEN)
        memory.commit({"fast": adapter("a")}, learnt())
    left = [
        folder / ".anchors.json.7.part",
        folder / "generations" / ".0002.part",
        folder / "generations" / "0002",
    ]
    left[0].write_text("half")
    for path in left[1:]:
        path.mkdir()
    with opened(folder):  # a reader touches nothing
        pass
    assert all(path.exists() for path in left)
    with opened(folder, writes=True) as memory:
        assert not any(path.exists() for path in left)
        assert memory.part("fast") is not None


def commit_for_ever(folder: Path) -> None:
    """Commit one generation after the other, each with its own number in its files."""
    with opened(folder, writes=True) as memory:
        while True:
            number = memory.state.generation + 1
            memory.commit({"fast": adapter(f"{number} "), "slow": adapter(f"{number} ")}, learnt())


def whole(memory: Memory) -> bool:
    """Whether the adapters that answer are those that the journal's last line speaks of, all of them."""
    wanted = f"{memory.state.generation} " * 2000
    folders = [memory.part("fast"), memory.part("slow")]
    return all(
        folder is not None and (folder / f"part{number}").read_text() == wanted
        for folder in folders
        for number in range(4)
    )


def size_of(folder: Path) -> int:
    return (folder / "journal.jsonl").stat().st_size


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment_a_memory_is_the_last_committed_one(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    with opened(folder, BASE, writes=True) as memory:
        memory.record(WRITTEN)
        memory.commit({"fast": adapter("1 "), "slow": adapter("1 ")}, learnt())
    rng = random.Random(0)
    reached = 1
    for _ in range(20):
        child = os.fork()
        if not child:
            try:
                commit_for_ever(folder)
            finally:
                os._exit(1)
        began = size_of(folder)
        while (
            size_of(folder) == began and not os.waitpid(child, os.WNOHANG)[0]
        ):  # at least one commit, however slow the machine is
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with opened(folder) as memory:
            assert whole(memory) and memory.state.generation > reached
            reached = memory.state.generation
