"""The journal: whole lines or none, the same state from the same lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from loraloom.errors import StoreError
from loraloom.recall.journal import Journal


def filled(path: Path, lines: int = 3) -> Journal:
    journal = Journal(path)
    for number in range(lines):
        journal.append({"op": "write", "decisions": [], "text": f"öäü {number}\n"})
    return journal


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    written = filled(tmp_path / "journal.jsonl").records
    again = Journal(tmp_path / "journal.jsonl")
    assert again.records == written and again.torn == 0
    assert [record["n"] for record in again.records] == [1, 2, 3]


def test_a_journal_cut_anywhere_in_its_last_line_holds_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    second_ends = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for size in range(second_ends, len(whole)):
        path.write_bytes(whole[:size])
        journal = Journal(path)
        assert len(journal.records) == 2 and journal.torn == size - second_ends
    journal.append({"op": "write", "decisions": []})
    assert [record["n"] for record in Journal(path).records] == [1, 2, 3]


@pytest.mark.parametrize("change", [b"X", b"\n"])
def test_damage_before_whole_lines_is_refused_and_nothing_is_changed(
    tmp_path: Path, change: bytes
) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    content = path.read_bytes()
    damaged = content[:20] + change + content[21:]
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="line 1 of the journal is damaged"):
        Journal(path)
    assert path.read_bytes() == damaged


def test_a_line_that_is_gone_from_the_middle_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(StoreError):
        Journal(path)


def test_a_disk_that_refuses_leaves_the_journal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    journal = filled(path, 1)
    before = path.read_bytes()
    refusals = iter([OSError(28, "No space left on device")])

    def full_once(handle: int) -> None:
        if refusal := next(refusals, None):
            raise refusal

    with monkeypatch.context() as patched:
        patched.setattr("loraloom.recall.journal.os.fsync", full_once)
        with pytest.raises(StoreError, match="the memory is as it was"):
            journal.append({"op": "write", "decisions": []})
    assert path.read_bytes() == before
    journal.append({"op": "write", "decisions": []})
    assert len(Journal(path).records) == 2
