"""All splits of a language model's rows: as conversations where the tokenizer has a
chat template, else as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from loraloom.data.chat import chat_rows
from loraloom.data.conversation import Conversation, is_talk
from loraloom.data.form_template import form_of
from loraloom.data.forms import conversation, pair
from loraloom.data.plain import Framing, pair_rows, text_rows
from loraloom.data.recognise import Recognised
from loraloom.data.render import Renderer
from loraloom.data.rows import Row
from loraloom.data.table import Table
from loraloom.data.tokens import Tokenizer, frame_of
from loraloom.data.unused import chat_notes, rows_of

Tables = Mapping[str, Table]


def causal_rows(
    tables: Tables, recognised: Recognised, tokenizer: Tokenizer
) -> tuple[dict[str, list[Row]], list[str]]:
    """The rows of each split, and what a person should know of how they were read.

    Errors as in `encode`.
    """
    template = Renderer(tokenizer, recognised.system) if has_template(tokenizer) else None
    if is_chat(tables["train"], recognised, tokenizer):
        renderer = template or Renderer(tokenizer)
        talks = {
            name: [(table.origin(i), conversation(row, recognised)) for i, row in enumerate(table.rows)]
            for name, table in tables.items()
        }
        # A row that is context from end to end was meant so, and is no row without an answer.
        rows = {name: _chat_rows(of_split, renderer) for name, of_split in talks.items()}
        every = [talk for of_split in talks.values() for talk in of_split]
        context = sum(talk.is_context for _, talk in every)
        silent = [
            "rows whose answers are all left out of what is learnt are left out themselves"
            f" ({rows_of(context)})"
        ]
        return rows, [*(silent if context else []), *chat_notes(every, renderer)]
    framing = framing_of(tokenizer, template)
    if recognised.format == "text":
        texts = {
            name: [row[recognised.columns["text"]] for row in table.rows]
            for name, table in tables.items()
        }
        said = [text for of_split in texts.values() for text in of_split]
        rows = {name: text_rows(of_split, tokenizer, framing) for name, of_split in texts.items()}
        return rows, [*_framed(said, said, framing), *_rendered(said, template)]
    pairs = {name: [pair(row, recognised) for row in table.rows] for name, table in tables.items()}
    prompts, answers = (
        [one[side] for of_split in pairs.values() for one in of_split] for side in (0, 1)
    )
    notes = [
        *_framed(prompts, answers, framing),
        *_joined(prompts, template),
        *_unread(tables, recognised),
    ]
    return {name: pair_rows(of_split, tokenizer, framing) for name, of_split in pairs.items()}, notes


def _chat_rows(talks: Sequence[tuple[str, Conversation]], renderer: Renderer) -> list[Row]:
    """The rows of conversations that are more than context; the `cluster` of each is
    the place of its conversation."""
    places = [place for place, (_, talk) in enumerate(talks) if not talk.is_context]
    return [
        replace(row, cluster=places[row.cluster])
        for row in chat_rows([talks[place] for place in places], renderer)
    ]


def is_chat(table: Table, recognised: Recognised, tokenizer: Tokenizer) -> bool:
    """Whether rows of this format go through the tokenizer's chat template.

    Prompts that have the template's own marks in them were rendered already, and are joined as they are.
    """
    form, columns = recognised.format, recognised.columns
    if form in ("messages", "sharegpt"):
        return True
    if form == "prompt_completion" and len(table) and is_talk(table.rows[0][columns["prompt"]]):
        return True
    if form == "text" or not has_template(tokenizer):
        return False
    if form != "prompt_completion":
        return True
    renderer = Renderer(tokenizer, recognised.system)
    return not len(table) or not all(renderer.is_rendered(row[columns["prompt"]]) for row in table.rows)


def has_template(tokenizer: Tokenizer) -> bool:
    """Whether the model has marks of turns of its own: one that only carries the form
    of its training has none."""
    return bool(tokenizer.chat_template) and form_of(tokenizer.chat_template) is None


def framing_of(tokenizer: Tokenizer, template: Renderer | None = None) -> Framing:
    """How texts of this tokenizer begin and end."""
    template = template or (Renderer(tokenizer) if has_template(tokenizer) else None)
    return Framing.of(tokenizer, frame_of(tokenizer), template.turn_end if template else "")


def _framed(begin: Sequence[str], end: Sequence[str], framing: Framing) -> list[str]:
    """Texts that have their first or last token in words."""
    notes: list[str] = []
    if begun := sum(map(framing.begins, begin)):
        notes.append(
            f"texts begin with {framing.bos} already ({rows_of(begun)}): no second one is added"
        )
    for mark in dict.fromkeys((framing.eos, framing.turn_end)):
        if ended := sum(bool(mark) and text.rstrip().endswith(mark) for text in end):
            notes.append(f"texts end in {mark} already ({rows_of(ended)}): no second end is added")
    return notes


def _rendered(texts: Sequence[str], template: Renderer | None) -> list[str]:
    count = sum(map(template.is_rendered, texts)) if template else 0
    if not count or template is None:
        return []
    return [
        f"texts are written in the chat template's own marks already ({rows_of(count)};"
        f" {template.turn_marks[0]!r}): as plain text, what the user says is learnt too; write the rows"
        ' as {"messages": [...]} and only the answers are'
    ]


def _joined(prompts: Sequence[str], template: Renderer | None) -> list[str]:
    if template is None:
        return []
    return [
        f"prompts are written in the chat template's own marks already ({rows_of(len(prompts))};"
        f" {template.turn_marks[0]!r}): prompt and completion are joined as they are"
    ]


def _unread(tables: Tables, recognised: Recognised) -> list[str]:
    """Columns that only a chat template could write."""
    notes: list[str] = []
    for role in ("tools", "variables"):
        column = recognised.columns.get(role)
        count = (
            sum(bool(row.get(column)) for table in tables.values() for row in table.rows)
            if column
            else 0
        )
        if count:
            notes.append(
                f"`{column}` is not used ({rows_of(count)}): there is no chat template to write it"
            )
    return notes
