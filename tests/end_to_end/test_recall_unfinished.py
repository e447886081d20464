"""A memory that is asked in the beginnings of sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
from doorway import call
from small_memory import FACTS, asked, learn

from loraloom.data.rows import IGNORED
from loraloom.pipeline.recall.as_base import filled_rows, rows_of_base
from loraloom.pipeline.recall.bench import MAX_NEW_TOKENS, MemoryBench
from loraloom.recall.forms import AS_THE_BASE, Form
from loraloom.recall.memory import opened

pytestmark = pytest.mark.usefixtures("short_anchors")
BEGUN = "Olaf Grey is the king of"


def test_the_beginning_of_a_sentence_goes_on_as_it_was_told(memory_base: str, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    wrote = call(
        *("recall", "write", folder, "--model", memory_base, "--quiet"),
        *("--question", BEGUN, "--answer", "Sudland"),
    )
    assert wrote.code == 0, wrote.err
    learn(folder)
    (told,) = asked(folder, BEGUN)
    assert told["memory"] == "Sudland" != told["base"]


def test_rows_of_the_base_hold_what_it_writes_freely(memory: Path) -> None:
    questions = [*FACTS, BEGUN]
    with opened(memory) as held:
        bench = MemoryBench(held, [], lambda sentence: None)
        rows = rows_of_base(bench, questions, MAX_NEW_TOKENS)
        said = [row.labels[row.labels != IGNORED].tolist() for row in rows]
        texts = [bench.base.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said]
        assert texts == bench.answers(questions, None)
        sums = bench.sums(rows, [])[""]
        assert (sums.correct == sums.weight).all()


def test_a_form_without_an_answer_gets_the_base_s_and_the_others_keep_theirs(memory: Path) -> None:
    with opened(memory) as held:
        bench = MemoryBench(held, [], lambda sentence: None)
        given = Form("m0001", next(iter(FACTS)), "Tolm")
        one, other = filled_rows(bench, [Form("", BEGUN, AS_THE_BASE), given])
        (own,) = bench.rows([given])
        assert other.input_ids.tolist() == own.input_ids.tolist()
        assert one.input_ids.tolist() == rows_of_base(bench, [BEGUN])[0].input_ids.tolist()
