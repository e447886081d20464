"""From tables to rows, cut rows and previews, for each task."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloom.config.asked import DataConfig
from loraloom.data.encode import Encoded, encode, preview
from loraloom.data.load import load_table
from loraloom.data.recognise import recognise
from loraloom.data.rows import Row, causal_row, report_of
from loraloom.data.split import Splits, split
from loraloom.data.table import Table
from loraloom.errors import ConfigError, DataError
from loraloom.records import Task


def table(rows: list[dict[str, Any]]) -> Table:
    return Table("d.jsonl", tuple(rows), tuple(("d.jsonl:", i) for i in range(1, len(rows) + 1)))


def encoded(
    rows: list[dict[str, Any]],
    tokenizer: Any,
    *,
    validation: list[dict[str, Any]] | None = None,
    encoder_decoder: bool = False,
) -> Encoded:
    found = recognise(table(rows), DataConfig(), encoder_decoder=encoder_decoder)
    return encode(Splits(table(rows), table(validation or [])), found, tokenizer)


def words(row: Row, tokenizer: Any) -> tuple[list[str], list[str]]:
    """All tokens and the supervised ones."""
    labels = [int(label) for label in row.labels if label != -100]
    return tokenizer.convert_ids_to_tokens(row.input_ids.tolist()), tokenizer.convert_ids_to_tokens(
        labels
    )


def test_chat_formats_say_the_same(byte_tokenizer: Any) -> None:
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
    alike: list[dict[str, Any]] = [
        {"messages": talk},
        {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "world"}]},
        {"instruction": "hello", "input": "", "output": "world"},
        {"question": "hello", "answer": "world"},
        {"source": "hello", "target": "world"},
        {"prompt": talk[:1], "completion": talk[1:]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}],
                },
                talk[1],
            ]
        },
    ]
    rows = [encoded([row], byte_tokenizer).train[0] for row in alike]
    for row in rows[1:]:
        np.testing.assert_array_equal(row.input_ids, rows[0].input_ids)
        np.testing.assert_array_equal(row.labels, rows[0].labels)


def test_an_alpaca_input_follows_the_instruction(byte_tokenizer: Any) -> None:
    row = encoded([{"instruction": "hello", "input": "world", "output": "yes"}], byte_tokenizer).train[0]
    assert "<|im_start|>user\nhello\n\nworld<|im_end|>" in byte_tokenizer.decode(row.input_ids.tolist())


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            {"instruction": "a", "input": "b", "output": "c"},
            "Instruction:\na\n\nInput:\nb\n\nOutput:\nc",
        ),
        ({"instruction": "a", "input": None, "output": "c"}, "Instruction:\na\n\nOutput:\nc"),
        ({"question": "a", "answer": "c"}, "Question:\na\n\nAnswer:\nc"),
        ({"source": "a", "target": "c"}, "a\n\nc"),
        ({"prompt": "a ", "completion": "c"}, "a c"),
    ],
)
def test_plain_forms_without_a_template(byte_tokenizer: Any, row: dict[str, Any], text: str) -> None:
    plain = copy.deepcopy(byte_tokenizer)
    plain.chat_template = None
    (only,) = encoded([row], plain).train
    assert (
        plain.decode(only.input_ids.tolist(), clean_up_tokenization_spaces=False) == text + "<|im_end|>"
    )
    assert plain.decode(only.labels[only.labels != -100].tolist()) == "c<|im_end|>"


def test_classes_are_numbered_and_named(bert_tokenizer: Any) -> None:
    data = encoded([{"text": "hello world", "label": 10}, {"text": "yes", "label": 9}], bert_tokenizer)
    assert (data.task, data.label_names) == ("seq_cls", ("9", "10"))
    assert [row.labels.tolist() for row in data.train] == [[1], [0]]
    assert words(data.train[0], bert_tokenizer)[0] == ["[CLS]", "hello", "world", "[SEP]"]
    assert data.train[0].input_ids.dtype == data.train[0].labels.dtype == np.int32


def test_names_of_classes_come_from_the_column_beside(bert_tokenizer: Any) -> None:
    rows = [
        {"text": "a", "label": 0, "label_text": "bad"},
        {"text": "b", "label": 1, "label_text": "good"},
    ]
    assert encoded(rows, bert_tokenizer).label_names == ("bad", "good")
    unlike = [*rows, {"text": "c", "label": 1, "label_text": "great"}]
    assert encoded(unlike, bert_tokenizer).label_names == ("0", "1")


def test_an_encoder_decoder_takes_source_and_target(bert_tokenizer: Any, byte_tokenizer: Any) -> None:
    row = encoded(
        [{"source": "hello", "target": "world yes"}], bert_tokenizer, encoder_decoder=True
    ).train[0]
    assert words(row, bert_tokenizer) == (
        ["[CLS]", "hello", "[SEP]"],
        ["[CLS]", "world", "yes", "[SEP]"],
    )
    without_closing = encoded(
        [{"question": "hello", "answer": "world"}], byte_tokenizer, encoder_decoder=True
    ).train[0]
    assert without_closing.labels[-1] == byte_tokenizer.eos_token_id


def test_rows_without_supervision_are_dropped_and_counted(byte_tokenizer: Any) -> None:
    data = encoded(
        [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}], byte_tokenizer
    )
    assert (len(data.train), data.report["train"].dropped, data.report["train"].rows) == (1, 1, 1)
    assert data.report["train"].supervised == data.train[0].supervised == 2


def test_nothing_supervised_at_all_is_an_error(byte_tokenizer: Any) -> None:
    with pytest.raises(DataError) as caught:
        encoded([{"prompt": "a", "completion": ""}] * 3, byte_tokenizer)
    assert "no train row of d.jsonl has anything to be trained on" in str(caught.value)
    assert "3 rows read as prompt_completion" in str(caught.value)
    with pytest.raises(DataError, match="no validation row"):
        encoded([{"text": "a"}], byte_tokenizer, validation=[{"text": ""}])


def raw(
    format: str, rows: list[Row], task: Task = "causal_lm", closing: tuple[int, ...] = ()
) -> Encoded:
    return Encoded(
        tuple(rows),
        (),
        (),
        (),
        task,
        format,
        report={"train": report_of(rows, dropped=0)},
        closing=closing,
    )


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6), size=st.integers(2, 20))
def test_windows_predict_every_token_of_a_text_once(lengths: list[int], size: int) -> None:
    texts = [np.arange(1000 * i, 1000 * i + n) for i, n in enumerate(lengths, start=1)]
    rows = [causal_row(text.tolist(), np.ones(len(text), dtype=np.bool_)) for text in texts]
    data = raw("text", rows).cut(size)
    assert all(2 <= len(row) <= size for row in data.train)
    predicted = np.concatenate([row.labels[row.labels != -100] for row in data.train])
    np.testing.assert_array_equal(predicted, np.concatenate([text[1:] for text in texts]))
    assert all(row.labels[0] == -100 for row in data.train)
    report = data.report["train"]
    assert (report.supervised, report.supervised_lost, report.dropped, report.cut) == (
        sum(lengths) - len(lengths),
        0,
        0,
        0,
    )
    assert report.rows == len(data.train)


def test_other_rows_keep_their_front_and_losses_are_counted() -> None:
    answer_last = causal_row(list(range(10)), np.arange(10) >= 6)
    answer_first = causal_row(list(range(10)), np.arange(10) >= 2)
    short = causal_row([1, 2, 3], np.array([False, True, True]))
    data = raw("messages", [answer_last, answer_first, short]).cut(5)
    assert [row.input_ids.tolist() for row in data.train] == [[0, 1, 2, 3, 4], [1, 2, 3]]
    report = data.report["train"]
    assert (report.rows, report.dropped, report.cut, report.longest) == (2, 1, 2, 5)
    assert (report.supervised, report.supervised_lost) == (5, 9)
    assert report.share_lost == pytest.approx(9 / 14)
    np.testing.assert_array_equal(data.lengths, [5, 3])


def test_a_cut_classification_row_keeps_its_closing_token(bert_tokenizer: Any) -> None:
    rows = [{"text": "one two three\n\nfour five", "label": 0}, {"text": "yes", "label": 1}]
    data = encoded(rows, bert_tokenizer).cut(4)
    assert words(data.train[0], bert_tokenizer)[0] == ["[CLS]", "one", "two", "[SEP]"]
    assert words(data.train[1], bert_tokenizer)[0] == ["[CLS]", "yes", "[SEP]"]
    assert data.report["train"].cut == 1
    assert data.report["train"].supervised == 2


def test_a_cut_target_keeps_its_end(byte_tokenizer: Any) -> None:
    data = encoded([{"source": "a" * 50, "target": "b" * 50}], byte_tokenizer, encoder_decoder=True).cut(
        6
    )
    assert len(data.train[0].input_ids) == len(data.train[0].labels) == 6
    assert data.train[0].labels[-1] == byte_tokenizer.eos_token_id
    assert data.report["train"].supervised_lost > 0


def test_a_length_that_leaves_nothing_is_an_error() -> None:
    data = raw("messages", [causal_row(list(range(10)), np.arange(10) >= 6)])
    with pytest.raises(DataError) as caught:
        data.cut(6)
    message = str(caught.value)
    assert "no train row has a supervised token within `data.max_length` = 6" in message
    assert "at position 7 at the earliest" in message
    assert "the longest row has 10 tokens" in message
    with pytest.raises(ConfigError, match=r"`data\.max_length` is 1 but must be at least 2"):
        data.cut(1)


def test_previews_show_the_very_text(byte_tokenizer: Any, bert_tokenizer: Any) -> None:
    data = encoded([{"question": "how many 😀?", "answer": "two é 😀"}], byte_tokenizer)
    (shown,) = preview(data, byte_tokenizer, 3)
    assert "".join(piece for piece, _ in shown) == byte_tokenizer.decode(
        data.train[0].input_ids.tolist()
    )
    assert "".join(piece for piece, supervised in shown if supervised) == "two é 😀<|im_end|>"
    classes = encoded([{"text": "hello", "label": "x"}, {"text": "world", "label": "y"}], bert_tokenizer)
    assert preview(classes, bert_tokenizer, 1)[0][-1] == ("x", True)
    pairs = encoded([{"source": "hello", "target": "world"}], byte_tokenizer, encoder_decoder=True)
    (shown,) = preview(pairs, byte_tokenizer, 1)
    assert "".join(piece for piece, supervised in shown if supervised) == "world<|im_end|>"


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        ("tinychat-5M", "gsm8k/test.jsonl", ("question_answer", "causal_lm")),
        ("tinychat-5M", "self_instruct", ("alpaca", "causal_lm")),
        ("stories260K", "tinystories/stories_cased.jsonl", ("text", "causal_lm")),
        ("stories260K", "self_instruct/seed_tasks.jsonl", ("alpaca", "causal_lm")),
        ("stories260K", "snips/validate.jsonl", ("text_label", "seq_cls")),
    ],
)
def test_real_data_with_real_tokenizers(
    shared: Path, model: str, source: str, expected: tuple[str, str]
) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(shared / "models" / model)
    train = load_table(str(shared / "data" / source), max_rows=200)
    found = recognise(train, DataConfig())
    assert (found.format, found.task) == expected
    data = encode(split(train, 0.1, None, found), found, tokenizer).cut(4096)
    assert data.report["train"].dropped == 0
    for row in data.train:
        ids = row.input_ids.tolist()
        assert ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)
        if found.task == "causal_lm":
            assert (
                tokenizer.eos_token_id == [label for label in row.labels.tolist() if label != -100][-1]
            )


def test_snips_is_split_by_label(shared: Path) -> None:
    path = shared / "data" / "snips" / "validate.jsonl"
    found = recognise(train := load_table(str(path)), DataConfig())
    splits = split(train, 0.1, 0.1, found)
    assert len(splits.validation) == pytest.approx(70, abs=2)
    with path.open(encoding="utf-8") as lines:
        labels = {str(json.loads(line)["label"]) for line in lines}
    assert {str(row["label"]) for row in splits.test.rows} == labels
