"""Which of the known formats a table has, which column plays which role, and whether
every row keeps to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from loraloom.config.asked import DataConfig, Learn, System
from loraloom.data.classes import Spelling, label_text, spelling_of
from loraloom.data.conversation import is_talk
from loraloom.data.faults import fault
from loraloom.data.formats import ASIDE, FORMS, TALKS, Form
from loraloom.data.group_columns import group_columns
from loraloom.data.label_column import label_advice, label_notes, pair_columns
from loraloom.data.pairs import opens_talk
from loraloom.data.preference_columns import (
    check_answers,
    holds_verdicts,
    need_both_verdicts,
    refuse_judged,
    verdict_counts,
    without_repeated_prompt,
)
from loraloom.data.preferences import refuse_preferences
from loraloom.data.table import Table, listed
from loraloom.data.unused import message_notes, rows_of, system_notes, unused_columns
from loraloom.errors import ConfigError, DataError
from loraloom.records import COMPARED, Task


@dataclass(frozen=True)
class Recognised:
    """What a table is: its format, the task it is for, and the column of each role."""

    format: str
    task: Task
    columns: Mapping[str, str]
    note: str
    """One line to print."""
    notes: tuple[str, ...] = ()
    """What in the rows is not used, or was read in a way that a person should know: one
    sentence each."""
    spelling: Spelling = "words"
    """How labels are read."""
    learn: Learn = "auto"
    """Which answers of a conversation are learnt (`DataConfig.learn`)."""
    system: System = "auto"
    """What becomes of system messages (`DataConfig.system`)."""

    def label(self, row: Mapping[str, Any]) -> str | None:
        """The label of a row as text, the same for all its spellings; None where it has none."""
        return label_text(row[self.columns["label"]], self.spelling)


def recognise(
    table: Table,
    data: DataConfig,
    task: Task | Literal["auto"] = "auto",
    *,
    encoder_decoder: bool = False,
) -> Recognised:
    """Name the format, the task and the columns of `table`, and check every row against them.

    Args:
        table: the training rows.
        data: the request; `format`, `text_column` and `label_column` overrule what would be recognised.
        task: the task asked for. "auto": rows with a `rejected` answer, or with answers that are good or
            bad, are preferences; text with labels is classification; pairs are for the
            encoder-decoder if the model is one, and all else is language modelling.
        encoder_decoder: whether the model is one (T5, BART).

    Raises:
        ConfigError: the asked format does not serve the asked task.
        DataError: no format fits, an asked column is missing, or a row has a value of the wrong type.
    """
    _need_columns(table, data)
    tasks = _open_tasks(task, encoder_decoder)
    forms = [form for form in _candidates(data) if any(t in form.tasks for t in tasks)]
    if not forms:
        raise _no_form(data, tasks)
    fits = _fitting(table, forms, sure=data.format in ("preference", "kto") or task in COMPARED)
    if not fits:
        if task not in ("seq_cls", *COMPARED):
            refuse_preferences(table, None, (), asked=False, trainable=not encoder_decoder)
        if task == "reward":
            _refuse_judged(table)
        raise _nothing_fits(table, forms, tasks)
    form, columns = fits[0]
    chosen: Task = next(t for t in tasks if t in form.tasks)
    _leave_out(columns, table, chosen)
    if chosen in ("causal_lm", "seq2seq_lm") and form.name != "text":
        asked = data.format == form.name
        refuse_preferences(
            table, form.name, columns.values(), asked=asked, trainable=not encoder_decoder
        )
    _need_turns(data, form.name)
    others = [other.name for other, _ in fits[1:]]
    note = (
        f"{table.source}: {len(table):,} rows read as {form.name} ({listed(columns.values())}) for"
        f" {chosen}{_aim(table, form.name, columns, chosen)}"
    )
    if others:
        note += f"; could also be read as {listed(others)}: set `data.format`"
    spelling = (
        spelling_of(row.get(columns["label"]) for row in table.rows) if "label" in columns else "words"
    )
    recognised = Recognised(
        form.name, chosen, columns, note, spelling=spelling, learn=data.learn, system=data.system
    )
    _check_values(table, recognised)
    notes = _notes(table, recognised, data.group_column)
    if form.name == "preference":
        placed, said = without_repeated_prompt(table, columns)
        recognised = replace(recognised, columns=placed)
        notes = (*said, *notes)
    if form.name == "kto":
        need_both_verdicts(table, columns["verdict"])
    _check_rows(table, recognised)
    return replace(recognised, notes=notes)


def check(table: Table, recognised: Recognised) -> None:
    """See that every row has what the format needs, in the right type.

    Raises:
        DataError: naming the first row that does not, its column, what stands there and what is needed.
    """
    _check_values(table, recognised)
    _check_rows(table, recognised)


def _check_values(table: Table, recognised: Recognised) -> None:
    """See that every value is of the type that its role needs."""
    optional = next(form.optional for form in FORMS if form.name == recognised.format)
    for index, row in enumerate(table.rows):
        for role, column in recognised.columns.items():
            # A table of pairs may do without prompts, a row of a table that has them may not.
            if role in optional and role != "prompt" and row.get(column) is None:
                continue
            if column not in row:
                raise DataError(
                    f"this row has no column `{column}`",
                    where=table.origin(index),
                    got=listed(row),
                    need=f"`{column}` in every row",
                    next="repair or remove this row",
                )
            if found := fault(role, row[column]):
                raise _wrong_value(table, index, role, column, found)


def _check_rows(table: Table, recognised: Recognised) -> None:
    """See that the values of a row go together."""
    if recognised.format == "prompt_completion":
        _check_same_kind(table, recognised.columns)
    if recognised.format in ("preference", "kto"):
        check_answers(table, recognised.columns)
    if recognised.spelling == "quantities":
        _refuse_quantities(table, recognised)


def _wrong_value(table: Table, index: int, role: str, column: str, found: tuple[str, str]) -> DataError:
    need, got = found
    alike = sum(
        column in row and row[column] is not None and fault(role, row[column]) is not None
        for row in table.rows
    )
    return DataError(
        f"`{column}` has a wrong value",
        where=table.origin(index),
        got=got if alike < 2 else f"{got}; {alike:,} of {len(table):,} rows have a wrong one",
        need=need,
        next=(
            "repair or remove this row"
            if alike < 2
            else "repair or remove these rows, or rename the column"
        ),
    )


def _leave_out(columns: dict[str, str], table: Table, task: Task) -> None:
    """Take out the roles that these rows cannot play: an encoder-decoder has no turns,
    lists of messages no history."""
    if task not in ("causal_lm", *COMPARED):
        for role in ASIDE:
            columns.pop(role, None)
    first = table.rows[0] if len(table) else {}
    if is_talk(first.get(columns.get("prompt", ""))):
        columns.pop("history", None)
    if task not in COMPARED:
        return
    answer = columns.get("chosen") or columns["completion"]
    if {columns.get("prompt"), answer} & set(TALKS) and opens_talk(first.get(answer)):
        columns.pop("prompt", None)
    if columns.get("prompt") != "instruction":
        columns.pop("input", None)


def _fitting(table: Table, forms: Sequence[Form], *, sure: bool) -> list[tuple[Form, dict[str, str]]]:
    """The forms whose columns the table has, and which those are.

    Unless it is `sure` that preferences are meant, a column `label` beside an answer has to hold
    verdicts and no topics, and there has to be a rejected answer.
    """
    fits = [(form, columns) for form in forms if (columns := form.columns(table.columns)) is not None]

    def is_meant(columns: Mapping[str, str]) -> bool:
        if "verdict" in columns:
            answer = table.rows[0].get(columns["completion"]) if len(table) else None
            return holds_verdicts(table, columns["verdict"]) and ("prompt" in columns or is_talk(answer))
        rejected = columns.get("rejected")
        return rejected is None or any(row.get(rejected) not in (None, "") for row in table.rows)

    return [(form, columns) for form, columns in fits if sure or is_meant(columns)]


def _aim(table: Table, format: str, columns: Mapping[str, str], task: Task) -> str:
    """What a run on preferences makes likelier, for the note."""
    if task == "reward":
        return f": `{columns['chosen']}` is to be scored above `{columns['rejected']}`"
    if format == "preference":
        return f": `{columns['chosen']}` is to become likelier than `{columns['rejected']}`"
    if format == "kto":
        good, bad = verdict_counts(table, columns["verdict"])
        return (
            f": answers whose `{columns['verdict']}` is true ({good:,}) are to become likelier,"
            f" the others ({bad:,}) less likely"
        )
    return ""


def _no_form(data: DataConfig, tasks: Sequence[Task]) -> ConfigError:
    wanted = " or ".join(tasks)
    served = listed(form.name for form in FORMS if any(task in form.tasks for task in tasks))
    need = f"a format for {wanted}: {served}"
    if data.format != "auto":
        return ConfigError(
            f"the format {data.format} does not serve the task {wanted}",
            need=need,
            next="leave `task` or `data.format` at auto",
        )
    return ConfigError(
        f"rows for {wanted} have no column that `data.text_column` or `data.label_column` could name",
        need=need,
        next="leave these two out",
    )


def _refuse_judged(table: Table) -> None:
    """Raises DataError where these are answers that were judged one by one."""
    columns = next(form for form in FORMS if form.name == "kto").columns(table.columns)
    if columns and holds_verdicts(table, columns["verdict"]):
        refuse_judged(table, columns["verdict"])


def _need_turns(data: DataConfig, format: str) -> None:
    if data.learn not in ("auto", "completion") and format in ("preference", "kto"):
        raise ConfigError(
            f"`data.learn` is {data.learn}, but rows of preferences compare what follows the prompt",
            next="leave `data.learn` out",
        )
    if data.learn != "auto" and format in ("text", "text_label"):
        raise ConfigError(
            f"`data.learn` is {data.learn}, but rows of the format {format} have no turns",
            next="leave `data.learn` out, or write the rows as messages",
        )


def _notes(table: Table, recognised: Recognised, group_column: str | None) -> tuple[str, ...]:
    columns = recognised.columns
    grouping, _ = group_columns(table, group_column)
    beside = [f"{columns['label']}{end}" for end in ("_text", "_name")] if "label" in columns else []
    spoken = ("messages", "prompt", "completion", "chosen", "rejected")
    talks = [columns[role] for role in spoken if role in columns]
    is_read = recognised.task in ("causal_lm", *COMPARED)
    said = message_notes(table, talks) if is_read else []
    if "system" in columns and talks:
        said += system_notes(table, columns["system"], talks[0])
    if "history" in columns and recognised.learn == "auto" and recognised.task not in COMPARED:
        turns = sum(bool(row.get(columns["history"])) for row in table.rows)
        said.append(
            f"the answers in `{columns['history']}` are learnt too ({rows_of(turns)}); data.learn=last"
            " leaves them out"
        )
    if recognised.format == "text":
        said += label_notes(table, columns.values())
    return (*unused_columns(table, {*columns.values(), *beside, *grouping}), *said)


def _open_tasks(task: Task | Literal["auto"], encoder_decoder: bool) -> tuple[Task, ...]:
    if task != "auto":
        return (task,)
    return ("seq_cls", "seq2seq_lm") if encoder_decoder else ("preference", "seq_cls", "causal_lm")


def _candidates(data: DataConfig) -> list[Form]:
    """The forms that the request leaves open, with its own column names in them."""
    forms = [form for form in FORMS if data.format in ("auto", form.name)]
    for role, column in (("text", data.text_column), ("label", data.label_column)):
        if column is None:
            continue
        names = {role, "verdict"} if role == "label" else {role}
        if data.format != "auto" and not names & set(forms[0].roles):
            raise ConfigError(
                f"`data.{role}_column` is `{column}`, but the format {data.format} has no {role}",
                next=f"leave out `data.{role}_column` or `data.format`",
            )
        forms = [form for form in forms if names & set(form.roles)]
    return [replace(form, roles=_renamed(form.roles, data)) for form in forms]


def _renamed(roles: Mapping[str, tuple[str, ...]], data: DataConfig) -> dict[str, tuple[str, ...]]:
    asked = {"text": data.text_column, "label": data.label_column, "verdict": data.label_column}
    return {role: (column,) if (column := asked.get(role)) else names for role, names in roles.items()}


def _need_columns(table: Table, data: DataConfig) -> None:
    for key, column in (("text_column", data.text_column), ("label_column", data.label_column)):
        if column is not None and column not in table.columns:
            raise DataError(
                f"`data.{key}` is `{column}`, but {table.source} has no such column",
                got=f"the columns {listed(table.columns)}",
                next=f"set `data.{key}` to one of them",
            )


def _nothing_fits(table: Table, forms: Sequence[Form], tasks: Sequence[Task]) -> DataError:
    tasks = [task for task in tasks if any(task in form.tasks for form in forms)]
    return DataError(
        f"no known format for {' or '.join(tasks)} fits these columns",
        where=table.origin(0) if len(table) else table.source,
        got=f"the columns {listed(table.columns)}",
        need="; or ".join(f"{form.needs} ({form.name})" for form in forms),
        next=_advice(table, tasks),
    )


def _advice(table: Table, tasks: Sequence[Task]) -> str:
    if tasks == ["preference"]:
        return "write the columns prompt, chosen and rejected; or prompt, completion and label (KTO)"
    if tasks == ["reward"]:
        return "write the columns prompt, chosen and rejected"
    if "seq_cls" in tasks and (pair := pair_columns(table)):
        return (
            f"two texts are not read as a pair: write `{pair[0]}` and `{pair[1]}` into one column"
            " `text`, one after the other"
        )
    label = label_advice(table) if "seq_cls" in tasks else None
    return label or "rename the columns, or set `data.text_column` and `data.label_column`"


def _refuse_quantities(table: Table, recognised: Recognised) -> None:
    for index, row in enumerate(table.rows):
        label = recognised.label(row)
        if spelling_of([label]) == "quantities":
            raise DataError(
                f"`{recognised.columns['label']}` has a wrong value",
                where=table.origin(index),
                got=f"the fraction {label}",
                need="a class (text or a whole number); predicting a quantity is not supported",
                next="give each range of numbers a name, and make that the label",
            )


def _check_same_kind(table: Table, columns: Mapping[str, str]) -> None:
    kinds = [
        tuple(is_talk(row[columns[role]]) for role in ("prompt", "completion")) for row in table.rows
    ]
    for index, kind in enumerate(kinds):
        if kind != kinds[0] or kind[0] != kind[1]:
            raise DataError(
                "prompt and completion must all be text, or all be lists of messages",
                where=table.origin(index),
                got=" and ".join("messages" if is_list else "text" for is_list in kind),
                next="write all rows alike",
            )
