"""The formats that rows can be in: under which names their columns are known, and for which tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loraloom.data.preferences import CHOSEN, REJECTED, VERDICTS
from loraloom.records import COMPARED, Task


@dataclass(frozen=True)
class Form:
    """One format."""

    name: str
    roles: Mapping[str, tuple[str, ...]]
    """Role -> names under which its column is known."""
    tasks: tuple[Task, ...]
    optional: Mapping[str, tuple[str, ...]]

    def columns(self, present: Sequence[str]) -> dict[str, str] | None:
        """Role -> column where every needed role has one, else None."""
        found: dict[str, str] = {}
        both = {**self.roles, **self.optional}
        for role, names in sorted(both.items(), key=lambda named: named[0] != "prompt"):
            taken = found.values() if role in self.optional else ()
            column = next((name for name in names if name in present and name not in taken), None)
            if column is not None:
                found[role] = column
            elif role in self.roles:
                return None
        return found

    @property
    def needs(self) -> str:
        return ", ".join(" or ".join(names) for names in self.roles.values())


TALKS = ("messages", "conversations")
"""Columns with whole conversations, or with what comes before answers that stand apart."""

_EXTRAS = {
    "input": ("input",),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "variables": ("chat_template_kwargs",),
    "prompt": ("prompt", "question", "instruction", *TALKS, "input"),
    "margin": ("margin",),
}
"""Roles that a row may leave open. The input and those of preferences aside, they are for conversations
alone."""


def _form(name: str, *tasks: Task, optional: tuple[str, ...] = (), **roles: tuple[str, ...]) -> Form:
    return Form(name, roles, tasks, {role: _EXTRAS[role] for role in optional})


_PAIR_TASKS: tuple[Task, ...] = ("causal_lm", "seq2seq_lm")
_TALK = ("system", "tools", "variables")
ASIDE = ("history", *_TALK)
"""Roles that only a language model's rows of question and answer have."""

FORMS = (
    _form(
        "preference",
        *COMPARED,
        optional=("prompt", "input", "margin", *ASIDE),
        chosen=(*CHOSEN, "completion"),
        rejected=REJECTED,
    ),
    _form(
        "kto",
        "preference",
        optional=("prompt", "input", *ASIDE),
        completion=("completion", "output", "response", *TALKS),
        verdict=VERDICTS,
    ),
    _form("messages", "causal_lm", optional=_TALK, messages=("messages",)),
    _form("sharegpt", "causal_lm", optional=_TALK, messages=("conversations",)),
    _form(
        "alpaca",
        *_PAIR_TASKS,
        optional=("input", *ASIDE),
        instruction=("instruction",),
        output=("output",),
    ),
    _form(
        "prompt_completion",
        *_PAIR_TASKS,
        optional=ASIDE,
        prompt=("prompt",),
        completion=("completion",),
    ),
    _form("question_answer", *_PAIR_TASKS, optional=ASIDE, question=("question",), answer=("answer",)),
    _form("source_target", *_PAIR_TASKS, source=("source",), target=("target",)),
    _form("text_label", "seq_cls", text=("text", "sentence"), label=("label",)),
    _form("text", "causal_lm", text=("text",)),
)
"""In the order in which they are tried: the more telling names first."""
