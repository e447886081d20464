"""The README's walk through a memory, command by command, on a small model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from doorway import call
from small_memory import asked, few_steps, save_word_chat, short_anchors

README = Path(__file__).resolve().parents[2] / "README.md"


def commands(model: str) -> list[list[str]]:
    """The words of each command of the walk, with this model in it."""
    section = README.read_text(encoding="utf-8").partition("\n**A memory.**")[2]
    first, *rest = section.partition("```console\n")[2].partition("\n```")[0].splitlines()
    assert re.match(r"MODEL=\S", first)
    return [shlex.split(line.replace("$MODEL", model), comments=True)[1:] for line in rest]


def told(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_write_learn_sleep_ask_correct_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    walk = commands(str(model))
    facts = [(told(words, "--question"), told(words, "--answer")) for words in walk if "write" in words]
    save_word_chat(model, dict(facts[:3]) | {"In which place?": facts[3][1]})
    with short_anchors(), few_steps():
        answers = [call(*words) for words in walk]
    assert [one.code for one in answers] == [0] * 10, [one.err for one in answers if one.code]
    seen = dict(zip([words[1] for words in walk], answers, strict=True))
    assert all(name in seen["ask"].out for name in ("memory", "base", "retrieval"))
    assert "suppressed, not erased" in seen["forget"].out
    assert (tmp_path / "notes" / "report.html").is_file()
    # The first was corrected, the second forgotten, the third stayed.
    known = {one["question"]: one["memory"] for one in asked(tmp_path / "notes", *dict(facts))}
    corrected, forgotten, kept = list(dict(facts))
    assert facts[3][0] == corrected and known[corrected] == facts[3][1]
    assert known[kept] == facts[2][1] and known[forgotten] != facts[1][1]
