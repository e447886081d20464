"""Keys of stored questions lie in the memory's folder: each question is encoded once, by whatever
command comes first, and nothing depends on the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from doorway import call
from small_memory import FACTS, write_facts

from loraloom.pipeline.recall import states
from loraloom.recall.lexicon import EVERYDAY
from loraloom.recall.memory import opened

NEW = "Where is the mat?"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that the base encodes from now on."""
    texts: list[str] = []
    encode = states.hidden_states

    def counting(base: Any, packed: Any, some: Sequence[str]) -> Any:
        texts.extend(some)
        return encode(base, packed, some)

    monkeypatch.setattr(states, "hidden_states", counting)
    return texts


@pytest.fixture(scope="module")
def pristine(memory_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory whose items are written and not learnt; nobody changes it."""
    folder = tmp_path_factory.mktemp("keys") / "memory"
    write_facts(folder, memory_base, FACTS)
    return folder


@pytest.fixture
def written(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(pristine, tmp_path / "memory")


def found(folder: Path, question: str) -> Any:
    told = call("recall", "ask", folder, question, "--json", "--quiet")
    assert told.code == 0, told.err
    return told.json()[0]["found"]


def test_what_is_stored_is_encoded_once_by_whichever_command(written: Path, encoded: list[str]) -> None:
    question = "Which flag does Norland have?"
    first = found(written, question)
    # `write` had to look at all of them, and kept what it saw.
    assert encoded == [question] and first["answer"] == FACTS["What is the flag of Norland?"]
    encoded.clear()
    assert call("recall", "write", written, "--question", NEW, "--answer", "Tolm", "-q").code == 0
    assert encoded == [NEW]
    encoded.clear()
    assert call("recall", "forget", written, "m0002", "--quiet").code == 0
    assert found(written, NEW)["question"] == NEW
    assert encoded == []


def test_a_dry_run_keeps_no_key(written: Path, encoded: list[str]) -> None:
    before = (written / states.KEYS).read_bytes()
    assert call("recall", "write", written, "--question", NEW, "--answer", "Tolm", "--dry-run").code == 0
    assert encoded == [NEW] and (written / states.KEYS).read_bytes() == before


def test_what_is_forgotten_leaves_the_file(written: Path) -> None:
    target = next(iter(FACTS))
    assert target.encode() in (written / states.KEYS).read_bytes()
    assert call("recall", "forget", written, "m0001", "--quiet").code == 0
    found(written, NEW)
    kept = (written / states.KEYS).read_bytes()
    assert target.encode() not in kept and EVERYDAY[0].encode() in kept


@pytest.mark.parametrize("harm", ["gone", "garbage", "cut", "another base"])
def test_a_file_that_does_not_fit_is_made_anew(written: Path, encoded: list[str], harm: str) -> None:
    path = written / states.KEYS
    whole = path.read_bytes()
    with opened(written) as memory:
        fingerprint = memory.base.fingerprint.encode()
    assert fingerprint in whole
    harmed = {
        "garbage": b"not a file of tensors",
        "cut": whole[:-7],
        "another base": whole.replace(fingerprint, fingerprint[::-1]),
    }
    path.write_bytes(harmed[harm]) if harm in harmed else path.unlink()
    target = next(iter(FACTS))
    assert found(written, target)["nearness"] == pytest.approx(2.0)
    assert set(encoded) == {*EVERYDAY, *FACTS}
    encoded.clear()
    found(written, target)
    assert encoded == []


def test_where_the_disk_refuses_the_answer_comes_all_the_same(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (written / states.KEYS).unlink()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert found(written, next(iter(FACTS)))["item"] == "m0001"
    assert not list(written.glob("*keys*"))
