"""What a memory refuses, and what it finds damaged: one message each, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, call, write_rows
from safetensors import SafetensorError
from small_memory import FACTS, WHO, asked, lines, refusal

pytestmark = pytest.mark.usefixtures("few_steps")


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def failure(answer: Answer) -> str:
    """What was said where the fault is not the request's."""
    assert answer.code == 1 and "Traceback" not in answer.err, answer.err
    return answer.err


def test_bad_requests_are_one_message_and_change_nothing(
    memory: Path, memory_base: str, tmp_path: Path, loraloom: Door
) -> None:
    journal = (memory / "journal.jsonl").read_bytes()
    empty = write_rows(tmp_path / "empty.jsonl", [{"question": "Who is Olaf?", "answer": ""}])
    both = write_rows(
        tmp_path / "both.jsonl",
        [
            {"question": "Who is Olaf?", "answer": "a king"},
            {"question": "who is Olaf", "answer": "grey"},
        ],
    )
    assert "`answer` is empty" in refusal(loraloom("recall", "write", memory, "--data", empty))
    assert "two answers to one question" in refusal(loraloom("recall", "write", memory, "--data", both))
    assert "go together" in refusal(loraloom("recall", "write", memory, "--question", "Who?"))
    assert "there is nothing to learn" in refusal(loraloom("recall", "learn", memory))
    assert "no item `m0099`" in refusal(loraloom("recall", "forget", memory, "m0099"))
    assert "no memory in" in refusal(loraloom("recall", "ask", tmp_path / "none", "Who?"))
    other = shutil.copytree(memory_base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    told = loraloom("recall", "write", memory, "--model", other, *WHO)
    assert "belongs to another base" in refusal(told)
    assert (memory / "journal.jsonl").read_bytes() == journal


def test_a_disk_that_is_full_as_the_adapter_is_written_leaves_the_memory_as_it_was(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("recall", "write", memory, *WHO, "--quiet")
    before, journal = asked(memory, *FACTS), (memory / "journal.jsonl").read_bytes()

    def full(*args: Any, **more: Any) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr("loraloom.lora.state.save_file", full)
        refused = call("recall", "learn", memory, "--seeds", 1, "--quiet")
    assert refused.code == 1 and "No space left" in refused.err and "Traceback" not in refused.err
    assert (memory / "journal.jsonl").read_bytes() == journal
    assert [path.name for path in (memory / "generations").iterdir()] == ["0001"]
    assert asked(memory, *FACTS) == before


def test_a_journal_cut_in_its_last_line_answers_as_before_that_line(memory: Path) -> None:
    before = asked(memory, *FACTS)
    path = memory / "journal.jsonl"
    call("recall", "write", memory, "--question", "Who is grey?", "--answer", "Olaf", "--quiet")
    path.write_bytes(path.read_bytes()[:-30])
    learn = call("recall", "learn", memory)
    assert "there is nothing to learn" in refusal(learn)
    assert asked(memory, *FACTS) == before and len(lines(memory)) == 2


def test_a_base_that_is_another_one_by_now_is_refused(memory_base: str, tmp_path: Path) -> None:
    base = shutil.copytree(memory_base, tmp_path / "base")
    memory = tmp_path / "memory"
    assert call("recall", "write", memory, "--model", base, *WHO, "--quiet").code == 0
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    kept = contents(memory)
    for words in (["learn", memory], ["ask", memory, "Who?"], ["write", memory, *WHO]):
        assert "other weights than when this memory was made" in refusal(call("recall", *words))
    assert contents(memory) == kept


def full_disk(*words: object) -> str:
    """What a command says where nothing comes to the disk any more."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", full)
        return failure(call("recall", *words, "--quiet"))


def test_a_full_disk_is_told_in_the_words_of_a_memory(
    memory: Path, memory_base: str, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    made = ("write", new, "--model", memory_base, *WHO)
    told = [full_disk(*made)]
    assert contents(new) == {}
    assert call("recall", *made, "--quiet").code == 0
    kept = {new: contents(new), memory: contents(memory)}
    told += [full_disk("write", memory, *WHO), full_disk("learn", new), full_disk("report", memory)]
    assert {folder: contents(folder) for folder in kept} == kept
    for said in told:
        assert "No space left" in said and "make room" in said and "give the command again" in said
        assert "--resume" not in said and "--output-dir" not in said


def test_a_journal_that_is_damaged_before_its_end_is_left_alone(memory: Path) -> None:
    call("recall", "write", memory, *WHO, "--quiet")
    path = memory / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Tolm", b"Tokm", 1))
    kept = contents(memory)
    for words in (
        ["write", memory, *WHO],
        ["learn", memory],
        ["ask", memory, "Who?"],
        ["report", memory],
    ):
        assert "line 1 of the journal is damaged" in failure(call("recall", *words))
    assert contents(memory) == kept


@pytest.mark.long
def test_ten_thousand_items_at_once_are_one_line_of_the_journal(
    memory_base: str, tmp_path: Path
) -> None:
    rows = [{"question": f"What is the flag of L{i}?", "answer": "a green star"} for i in range(10_000)]
    data = write_rows(tmp_path / "items.jsonl", rows)
    memory = tmp_path / "memory"
    wrote = call("recall", "write", memory, "--model", memory_base, "--data", data, "--quiet")
    assert wrote.code == 0, wrote.err
    assert len(lines(memory)) == 1 and "10,000 to be learnt" in wrote.out
    assert call("recall", "report", memory, "--quiet").code == 0
