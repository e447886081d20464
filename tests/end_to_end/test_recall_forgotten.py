"""What a memory says of itself after `recall forget`: on the screen, in --json, and on its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from doorway import call
from small_memory import FACTS, save_word_chat

FLAG = "What is the flag of Norland?"
SECRET = FACTS[FLAG]


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory that was not learnt: an item that was repeated, corrected backwards in time, and
    forgotten; and its page as it was before."""
    root = tmp_path_factory.mktemp("forgetful")
    model, folder = save_word_chat(root / "model"), root / "memory"
    said = (
        ("--question", FLAG, "--answer", SECRET),
        ("--question", "Norland's flag?", "--answer", SECRET),
    )
    for words in (said[0], said[0], said[1]):
        wrote = call("recall", "write", folder, "--model", model, *words, "--quiet")
        assert wrote.code == 0, wrote.err
    old = root / "old.jsonl"
    old.write_text(f'{{"question": "{FLAG}", "answer": "a red lion", "time": "2001-01-01"}}\n')
    assert "older than m0001" in call("recall", "write", folder, "--data", old, "--quiet").out
    assert call("recall", "report", folder, "--quiet").code == 0
    assert SECRET in (folder / "report.html").read_text()
    assert call("recall", "forget", folder, "m0001", "--quiet").code == 0
    # The page that showed it is gone as soon as it is forgotten.
    assert not (folder / "report.html").exists()
    assert call("recall", "forget", folder, "m0002", "--quiet").code == 0
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("report",),
        ("report", "--json"),
        ("report", "--graph"),
        ("report", "--graph", "--json"),
        ("ask", FLAG),
        ("ask", FLAG, "--json"),
        ("forget", "m0001"),
        ("forget", "m0099"),
        ("write", "--question", FLAG, "--answer", "a red lion", "--dry-run"),
        ("write", "--question", FLAG, "--answer", "a red lion", "--dry-run", "--json"),
    ],
)
def test_no_command_says_what_was_forgotten(forgetful: Path, words: tuple[str, ...]) -> None:
    verb, *more = words
    told = call("recall", verb, forgetful, *more)
    assert "Traceback" not in told.err
    assert SECRET not in told.out + told.err


def test_the_page_says_that_it_was_forgotten_and_not_what(forgetful: Path) -> None:
    assert call("recall", "report", forgetful, "--quiet").code == 0
    page = (forgetful / "report.html").read_text()
    assert SECRET not in page and FLAG in page and "(forgotten)" in page
