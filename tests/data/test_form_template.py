"""The plain form of training as a chat template: what it renders has the tokens of the rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.encode import Encoded, encode
from loraloom.data.form_template import FORMS, form_of, form_template, in_form, stands_in
from loraloom.data.recognise import recognise
from loraloom.data.split import Splits
from loraloom.data.table import Table

ASKED, ANSWER = "how many foxes are there?", "there are 12 foxes."
ROWS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": ASKED, "output": ANSWER},
    "question_answer": {"question": ASKED, "answer": ANSWER},
    "source_target": {"source": ASKED, "target": ANSWER},
    "prompt_completion": {"prompt": f"{ASKED}\n", "completion": ANSWER},
}


def encoded(row: dict[str, Any], tokenizer: Any) -> Encoded:
    table = Table("d.jsonl", (row,), (("d.jsonl:", 1),))
    return encode(Splits(table), recognise(table, DataConfig()), tokenizer)


def metaspace(prepend: str, *, framed: str = "<s> $A") -> Any:
    """A tokenizer that marks spaces as LLaMA's do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)  # type: ignore[assignment, arg-type]
    inner.decoder = decoders.Metaspace()  # type: ignore[assignment]
    alphabet = [chr(i) for i in range(9, 127)]
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=250,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    inner.train_from_iterator([ASKED, ANSWER, "Instruction: Output: Question: Answer:"], trainer)
    inner.post_processor = TemplateProcessing(single=framed, special_tokens=[("<s>", 1), ("</s>", 2)])  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(params=["words", "bytes", "always", "never", "first", "framed"])
def bare(request: pytest.FixtureRequest, bos_tokenizer: Any, byte_tokenizer: Any) -> Any:
    """A tokenizer without a chat template."""
    if request.param in ("words", "bytes"):
        found = copy.deepcopy(bos_tokenizer if request.param == "words" else byte_tokenizer)
        found.chat_template = None
        return found
    if request.param == "framed":
        return metaspace("always", framed="<s> $A </s>")
    return metaspace(request.param)


@pytest.mark.parametrize("format", sorted(FORMS))
def test_a_rendered_prompt_has_the_tokens_of_the_row(format: str, bare: Any) -> None:
    row = encoded(ROWS[format], bare).train[0]
    template = form_template(format, bare)
    assert template is not None
    asked = ROWS[format].get("prompt", ASKED)
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": ANSWER}]

    def ids(turns: list[dict[str, str]], *, answer: bool) -> list[int]:
        return bare.apply_chat_template(
            turns, chat_template=template, tokenize=True, add_generation_prompt=answer, return_dict=True
        )["input_ids"]

    given = int((row.labels != -100).argmax())
    assert ids(turns[:1], answer=True) == row.input_ids[:given].tolist()
    assert ids(turns, answer=False) == row.input_ids.tolist()


@pytest.mark.parametrize("format", sorted(FORMS))
def test_rows_stay_plain_rows_for_a_tokenizer_that_carries_their_form(format: str, bare: Any) -> None:
    carrying = copy.deepcopy(bare)
    carrying.chat_template = form_template(format, bare)
    before, after = (encoded(ROWS[format], tokenizer).train[0] for tokenizer in (bare, carrying))
    np.testing.assert_array_equal(before.input_ids, after.input_ids)
    np.testing.assert_array_equal(before.labels, after.labels)


def test_an_input_stands_in_the_users_turn(bare: Any) -> None:
    row = encoded({"instruction": "hello", "input": "world", "output": "yes"}, bare).train[0]
    assert form_template("alpaca", bare) is not None
    prompt = in_form("alpaca", "hello\n\nInput:\nworld")
    given = int((row.labels != -100).argmax())
    assert bare([prompt])["input_ids"][0][:given] == row.input_ids[:given].tolist()


def test_raw_text_gets_no_form_template(bare: Any) -> None:
    assert form_template("text", bare) is None
    assert form_template("messages", bare) is None


def test_a_tokenizer_that_makes_other_tokens_of_it_gets_no_template(bos_tokenizer: Any) -> None:
    class Forgetful:
        """Renders a text to other tokens where it begins with the BOS in words."""

        eos_token_id = None

        def __call__(self, texts: list[str], **options: Any) -> Any:
            found = bos_tokenizer(texts, **options)["input_ids"]
            return {
                "input_ids": [
                    ids[1:] if text.startswith("<s>") else ids
                    for text, ids in zip(texts, found, strict=True)
                ]
            }

        def decode(self, ids: Any, **options: Any) -> str:
            return bos_tokenizer.decode(ids, **options)

    assert form_template("alpaca", Forgetful()) is None  # type: ignore[arg-type]


def test_templates_of_others_are_no_form() -> None:
    assert form_of(None) is None
    assert form_of("{% for m in messages %}{{ m['content'] }}{% endfor %}") is None


def test_a_prompt_may_stand_in_the_form_already() -> None:
    assert stands_in("alpaca", in_form("alpaca", "hello"))
    assert not stands_in("alpaca", "hello")
    assert not stands_in("prompt_completion", "hello")
