"""Changed copies of training rows that teach the same: another wording of what is asked, noise in what
is classified, or the same row with its prompt learnt too. Labels and answers stay what they are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loraloom.config.choices import AUGMENTATIONS, NOISES
from loraloom.data.batches import Numbers, RowOrder
from loraloom.data.conversation import entries, is_talk, role_of, said, speaker
from loraloom.data.noise import NOISE
from loraloom.data.recognise import Recognised
from loraloom.data.rows import IGNORED, Row
from loraloom.data.table import Table
from loraloom.errors import ConfigError, DataError

SHARE = 0.5
"""Share of the rows of a step that are changed, where nobody says."""
LEARNT = 1.0
"""The same of rows whose prompt is learnt: there the loss is another one, and not the text."""
PARAPHRASE, LEARN_PROMPT = AUGMENTATIONS[len(NOISES) :]
ASKED = {
    "messages": "messages",
    "sharegpt": "messages",
    "alpaca": "instruction",
    "prompt_completion": "prompt",
    "question_answer": "question",
    "source_target": "source",
}
"""Format -> the role of the column that asks."""
ANSWERS = ("label", "output", "completion", "answer", "target")
"""Roles of columns that no change may touch."""
POSSIBLE: Mapping[str, Sequence[str]] = {
    "seq_cls": NOISES,
    "causal_lm": (PARAPHRASE, LEARN_PROMPT),
    "seq2seq_lm": (PARAPHRASE,),
}
"""Task -> what may be done to its rows."""
FRAMES = (
    "Here is what I need:\n{}",
    "Please do the following.\n{}",
    "{}\n\nThank you.",
    "I have a request. {}",
    "Could you help me with this?\n\n{}",
    "Task: {}",
    "{}\n\nPlease answer.",
    "Read this and answer it:\n{}",
)
"""Wordings round an instruction or a question that ask for the same."""


@dataclass(frozen=True)
class Augmentation:
    """One kind with the share of rows that it changes."""

    kind: str
    share: float

    @property
    def name(self) -> str:
        """As `data.augment` takes it."""
        usual = usual_share(self.kind)
        return self.kind if self.share == usual else f"{{{self.kind}: {self.share:g}}}"


def usual_share(kind: str) -> float:
    return LEARNT if kind == LEARN_PROMPT else SHARE


def augmentations(
    asked: Sequence[str] | Mapping[str, float] | None, recognised: Recognised
) -> tuple[Augmentation, ...]:
    """What the request names, each once.

    Raises:
        ConfigError: one does not suit these rows.
    """
    shares = asked if isinstance(asked, Mapping) else {kind: usual_share(kind) for kind in asked or ()}
    known = recognised.format == "text_label" or recognised.format in ASKED
    possible: Sequence[str] = POSSIBLE.get(recognised.task, ()) if known else ()
    for kind in shares:
        if kind not in possible:
            raise ConfigError(
                f"`data.augment` names {kind}, which does not suit rows of the format"
                f" {recognised.format} for {recognised.task}",
                need=f"any of {', '.join(possible)}"
                if possible
                else "none: nothing in such rows may change",
                next=f"leave {kind} out of `data.augment`",
            )
    return tuple(Augmentation(kind, share) for kind, share in shares.items())


def augmented(
    table: Table, recognised: Recognised, kind: str, seed: int, marks: Sequence[str] = ()
) -> Table:
    """The rows of a table, each changed; in another draw for another seed.

    Args:
        marks: texts of the tokenizer's own tokens: a prompt with one is in its final form, and stays.

    Raises:
        DataError: the change would reach a label or an answer.
    """
    column = recognised.columns["text" if kind in NOISES else ASKED[recognised.format]]
    rows: list[Mapping[str, Any]] = []
    for number, row in enumerate(table.rows):
        rng = random.Random(f"{kind}/{seed}/{number}")
        made = {**row, column: _changed(row[column], kind, rng, marks)}
        refuse_changed_answer(row, made, recognised, kind, table.origin(number))
        rows.append(made)
    return replace(table, rows=tuple(rows))


def refuse_changed_answer(
    before: Mapping[str, Any], after: Mapping[str, Any], recognised: Recognised, kind: str, where: str
) -> None:
    """See that a changed row teaches what it did.

    Raises:
        DataError: its label or one of its answers is another one.
    """
    for role, column in recognised.columns.items():
        answers = _answers if role in ("messages", "prompt") else None
        same = answers(before[column]) == answers(after[column]) if answers else True
        if role in ANSWERS:
            same = before.get(column) == after.get(column)
        if not same:
            raise DataError(
                f"{kind} changes the column `{column}`, which holds what is learnt",
                where=where,
                need="a change that leaves label and answers as they are",
                next=f"leave {kind} out of `data.augment`, or check `data.text_column`",
            )


def with_prompt_learnt(row: Row, special: frozenset[int]) -> Row:
    """The same row with all of its tokens learnt but the first and those that mark turns (instruction
    modelling; Shi et al., arXiv:2405.14394)."""
    ids = row.input_ids
    plain = ~np.isin(ids, list(special))
    labels = np.where(plain, ids, row.labels).astype(np.int32)
    labels[:1] = IGNORED
    return replace(row, labels=labels)


class AugmentedOrder:
    """An order in which some rows stand for their changed copies.

    Args:
        plain: the order of the rows as they are.
        copies: [rows, copies], the numbers of each row's changed copies; -1 for none. Rows behind these
            have none.
        share: of the rows of a step that are changed, each by a draw of its own.
        seed: of the draws; beside it they depend on the step alone.
    """

    def __init__(self, plain: RowOrder, copies: NDArray[np.int64], share: float, seed: int) -> None:
        self.plain = plain
        self.copies = copies
        self.share = share
        self.seed = seed
        self.steps_per_epoch = plain.steps_per_epoch

    def rows_of_step(self, step: int) -> Numbers:
        """As `Order.rows_of_step`."""
        rows = self.plain.rows_of_step(step)
        rng = np.random.default_rng([self.seed, _SALT, step])
        drawn = rng.random(len(rows)) < self.share
        copy = rng.integers(self.copies.shape[1], size=len(rows))
        known = np.minimum(rows, len(self.copies) - 1)
        changed = self.copies[known, copy]
        return np.where(drawn & (rows < len(self.copies)) & (changed >= 0), changed, rows)


_SALT = 8
"""Keeps these draws apart from others of the same seed."""


def _changed(value: Any, kind: str, rng: random.Random, marks: Sequence[str]) -> Any:
    """The cell that asks, or that is classified, changed."""
    if kind in NOISES:
        return NOISE[kind](value, rng)
    if not is_talk(value):
        done = not str(value).strip() or any(mark in value for mark in marks)
        return value if done else rng.choice(FRAMES).format(value)
    messages = list(entries(value))
    first = next((i for i, one in enumerate(messages) if role_of(str(speaker(one))) == "user"), None)
    if first is None or not isinstance(said(messages[first]), str):
        return value
    key = "content" if messages[first].get("content") is not None else "value"
    framed = _changed(said(messages[first]), kind, rng, ())
    messages[first] = {**messages[first], key: framed}
    return messages


def _answers(value: Any) -> list[Any]:
    """What the assistant says in a list of messages; nothing in a text."""
    found = entries(value) if is_talk(value) else ()
    return [said(one) for one in found if role_of(str(speaker(one))) == "assistant"]
