"""What a reward model reads: whole rows, of an encoder turn by turn, cut with their closing mark."""

from __future__ import annotations

from typing import Any

import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.encode import Encoded, encode
from loraloom.data.gaps import recognise_scored, without_verdicts
from loraloom.data.recognise import recognise
from loraloom.data.rows import IGNORED, Pair, Row
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.errors import DataError

ROW = {"prompt": "the fox", "chosen": "jumps", "rejected": "the dog jumps", "margin": 0.5}


def table(*rows: dict[str, Any]) -> Table:
    return Table("d.jsonl", rows, tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


def encoded(row: dict[str, Any], tokenizer: Any) -> Encoded:
    read = table(row)
    return encode(Splits(read), recognise(read, DataConfig(), "reward"), tokenizer)


def scored(row: dict[str, Any], tokenizer: Any) -> Row | Pair:
    read = table(row)
    recognised = recognise_scored(read, DataConfig())
    (found,) = encode(Splits(without_verdicts(read)), recognised, tokenizer, "reward").train
    assert isinstance(found, Row | Pair)
    return found


def test_a_pair_keeps_its_margin_and_tells_nothing_of_it(byte_tokenizer: Any) -> None:
    data = encoded(ROW, byte_tokenizer)
    (pair,) = data.train
    assert isinstance(pair, Pair) and pair.margin == 0.5
    assert data.label_names == ("reward",)
    assert not any("margin" in note for note in data.notes)


def test_an_encoder_reads_turn_by_turn(bert_tokenizer: Any) -> None:
    (pair,) = encoded(ROW, bert_tokenizer).train
    assert isinstance(pair, Pair)
    cls, sep = bert_tokenizer.cls_token_id, bert_tokenizer.sep_token_id
    for side, answer in zip(pair.sides, (ROW["chosen"], ROW["rejected"]), strict=True):
        asked, said = (
            bert_tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (ROW["prompt"], answer)
        )
        assert side.input_ids.tolist() == [cls, *asked, sep, *said, sep]
        assert (side.labels != IGNORED).tolist() == [False] * (len(asked) + 2) + [True] * (len(said) + 1)


def test_a_cut_keeps_the_end_of_an_encoders_row(bert_tokenizer: Any) -> None:
    data = encoded({**ROW, "chosen": "jumps the fox jumps"}, bert_tokenizer)
    (pair,) = data.cut(6).train
    assert [int(side.input_ids[-1]) for side in pair.sides] == [bert_tokenizer.sep_token_id] * 2
    assert max(map(len, pair.sides)) == 6


@pytest.mark.parametrize("name", ["byte_tokenizer", "bert_tokenizer"])
def test_an_answer_is_scored_with_the_tokens_that_it_was_trained_with(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    (pair,) = encoded(ROW, tokenizer).train
    assert isinstance(pair, Pair)
    one = scored({"prompt": ROW["prompt"], "completion": ROW["chosen"], "label": False}, tokenizer)
    assert isinstance(one, Row)
    assert one.input_ids.tolist() == pair.chosen.input_ids.tolist()
    both = scored(ROW, tokenizer)
    assert isinstance(both, Pair)
    assert both.rejected.input_ids.tolist() == pair.rejected.input_ids.tolist()


def test_a_text_that_begins_with_its_prompt_is_one_text(bert_tokenizer: Any) -> None:
    row = {"chosen": "the fox jumps", "rejected": "the fox the dog"}
    (pair,) = encoded(row, bert_tokenizer).train
    ids = bert_tokenizer(row["chosen"])["input_ids"]
    assert pair.sides[0].input_ids.tolist() == list(ids)


def test_judged_answers_are_refused() -> None:
    rows = [{"prompt": "the fox", "completion": "jumps", "label": good} for good in (True, False)]
    with pytest.raises(DataError, match="a reward model compares two answers"):
        recognise(table(*rows), DataConfig(), "reward")
