"""Whether the columns of a table can be read as preferences, and where its prompts stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loraloom.data.conversation import read_message
from loraloom.data.pairs import SIDES, Said, has_own_prompt, is_conversation, prompt_and_answers
from loraloom.data.preferences import verdict
from loraloom.data.table import Table, listed
from loraloom.errors import DataError


def holds_verdicts(table: Table, column: str) -> bool:
    """Whether a column says true or false of the rows, and nothing else."""
    values = [row[column] for row in table.rows if row.get(column) is not None]
    return bool(values) and all(verdict(value) is not None for value in values)


def verdict_counts(table: Table, column: str) -> tuple[int, int]:
    """Rows whose answer a column calls good, and those whose answer it calls bad."""
    verdicts = [verdict(row.get(column)) for row in table.rows]
    return verdicts.count(True), verdicts.count(False)


def need_both_verdicts(table: Table, column: str) -> None:
    """KTO learns from good answers and from bad ones.

    Raises:
        DataError: the rows have one kind alone.
    """
    good, bad = verdict_counts(table, column)
    if good and bad:
        return
    has, lacks = ("true", "false") if good else ("false", "true")
    raise DataError(
        f"no row has an answer whose `{column}` is {lacks}",
        where=table.source,
        got=f"{len(table):,} rows, in all of them `{column}` is {has}",
        need="good answers and bad ones: KTO holds the two against each other",
        next=(
            "to learn these answers as they are: --set data.format=prompt_completion"
            if good
            else f"add rows whose `{column}` is true"
        ),
    )


def refuse_judged(table: Table, column: str) -> None:
    """A reward model learns which of two answers is better.

    Raises:
        DataError: each row has one answer, and whether that is good.
    """
    raise DataError(
        "a reward model compares two answers, and each of these rows has one that is judged",
        where=table.source,
        got=f"one answer in a row, and `{column}`: whether it is good (KTO)",
        need="the columns prompt, chosen and rejected",
        next="write two answers to one prompt into a row; or --task preference, which learns from these",
    )


def without_repeated_prompt(
    table: Table, columns: Mapping[str, str]
) -> tuple[Mapping[str, str], list[str]]:
    """The columns of pairs, their prompt in the role `opening` where both answers of every row begin
    with it. And what a person should know of where prompts stand.

    Raises:
        DataError: some answers repeat the messages of the prompt, and others do not.
    """
    talk = is_conversation(table.rows[0][columns["chosen"]])
    joined = "" if talk else ", joined to them without the chat template"
    if "prompt" not in columns:
        note = "there is no column `prompt`: the prompt of a row is what both answers begin with"
        return columns, [note + joined]
    prompt = columns["prompt"]
    again = [has_own_prompt(row, columns) for row in table.rows]
    count = sum(again)
    if count in (0, len(table)):
        opened = {
            "opening" if role == "prompt" and count else role: column for role, column in columns.items()
        }
        note = f"`{prompt}` is read where both answers begin with it, not a second time{joined}"
        return opened, [note] if count else []
    told = f"{count:,} of {len(table):,} rows"
    if not talk:
        note = f"in {told} both answers begin with the words of `{prompt}`: these are read as answers"
        return columns, [note]
    raise DataError(
        f"some answers begin with the messages of `{prompt}`, and others do not",
        where=table.origin(again.index(not again[0])),
        got=f"{told} in which both answers repeat it",
        need="all rows alike: answers alone beside a prompt, or whole conversations",
        next=f"take the messages of `{prompt}` out of the answers of these rows",
    )


def check_answers(table: Table, columns: Mapping[str, str]) -> None:
    """See that all rows are written alike, and that the answers of a row follow one prompt.

    Raises:
        DataError: naming the first row that is not so.
    """
    roles = [role for role in ("prompt", "completion", *SIDES) if role in columns]
    first: dict[str, bool] = {}
    for index, row in enumerate(table.rows):
        kinds = {columns[role]: is_conversation(row[columns[role]]) for role in roles}
        first = first or kinds
        if kinds != first or len({kinds[columns[role]] for role in roles if role in SIDES}) > 1:
            raise _unlike(table.origin(index), kinds)
        prompt, said = prompt_and_answers(row, columns)
        if not prompt and "prompt" not in columns:
            raise _without_prompt(table.origin(index), said)
        for answer in said:
            _check_opening(prompt, answer, table.origin(index))


def _without_prompt(origin: str, said: Sequence[Said]) -> DataError:
    if len(said) == 1:
        return DataError(
            "the answer of this row has no prompt",
            where=origin,
            got="no column `prompt`, and nothing before the answer",
            next="write what is answered into a column `prompt`",
        )
    return DataError(
        "the two answers of this row have no prompt in common",
        where=origin,
        got="no column `prompt`, and answers that differ from their beginning",
        need="a column `prompt`, or one beginning of both answers that is the prompt",
        next="write what both answer into a column `prompt`",
    )


def _unlike(origin: str, kinds: Mapping[str, bool]) -> DataError:
    named = (f"`{column}` as {'messages' if talk else 'text'}" for column, talk in kinds.items())
    return DataError(
        "the answers of all rows must be text, or all of them messages",
        where=origin,
        got=listed(named),
        next="write all of them alike",
    )


def _check_opening(prompt: Said, answer: Said, origin: str) -> None:
    if isinstance(answer, str) or isinstance(prompt, str) or not answer:
        return
    role = read_message(answer[0])["role"]
    if role != "assistant":
        raise DataError(
            "the answers of this row do not follow one prompt",
            where=origin,
            got=f"an answer that begins with a turn of the {role}",
            need="the same turns before both answers, and then the assistant's",
            next="write the turns that are answered into a column `prompt`",
        )
    if prompt and read_message(prompt[-1])["role"] == "assistant":
        raise DataError(
            "the prompt of this row ends with an answer",
            where=origin,
            got="a turn of the assistant, and another one behind it",
            need="a prompt that ends with what is to be answered",
            next="take the last turn out of the prompt",
        )
