"""Prompts with their answers as a reward model reads them: whole, and closed.

A decoder reads them as rows to learn (`causal_rows`), and judges them by their last token. A tokenizer
that closes every text and has no chat template is an encoder's: behind each turn stands its own mark,
as between two sentences ([CLS] prompt [SEP] answer [SEP]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from loraloom.data.causal import causal_rows, has_template
from loraloom.data.conversation import Conversation
from loraloom.data.forms import conversation
from loraloom.data.recognise import Recognised
from loraloom.data.rows import Row, causal_row
from loraloom.data.table import Table
from loraloom.data.tokens import Frame, Tokenizer, frame_of, ids_of

LABEL_NAMES = ("reward",)
"""What the one output of the head is called."""


def scored_rows(
    tables: Mapping[str, Table], recognised: Recognised, tokenizer: Tokenizer, *, one_text: bool = False
) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of each split with their answers marked, and notes, as of `causal_rows`.

    Args:
        recognised: of any format with answers, or of plain text.
        one_text: prompts are no turn of their own, but the beginning of a text.
    """
    frame = frame_of(tokenizer)
    if one_text or recognised.format == "text" or not frame.closing or has_template(tokenizer):
        return causal_rows(tables, recognised, tokenizer)
    return {
        name: [_by_turns(conversation(row, recognised), frame, tokenizer) for row in table.rows]
        for name, table in tables.items()
    }, []


def _by_turns(talk: Conversation, frame: Frame, tokenizer: Tokenizer) -> Row:
    ids = list(frame.opening)
    answers = [False] * len(ids)
    for own, is_answer in zip(ids_of(_texts(talk), tokenizer), talk.learnt, strict=True):
        ids += [*own, *frame.closing]
        # A mark alone is no answer.
        answers += [is_answer and bool(own)] * (len(own) + len(frame.closing))
    return causal_row(ids, np.array(answers, dtype=np.bool_))


def _texts(talk: Conversation) -> Sequence[str]:
    return [str(message.get("content") or "") for message in talk.messages]
