"""A tokenizer's chat template: the one place that renders conversations, in training and in use.

What a template can take is found by asking it with small conversations, once: whether it refuses a
system message, whether it wants the arguments of calls as text, which tag its opening of an answer
leaves open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from loraloom.config.asked import System
from loraloom.data.conversation import REASONING, Conversation, Message
from loraloom.data.tokens import Tokenizer
from loraloom.errors import ModelError, TemplateError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OPEN_TAG = re.compile(r"(?:<(?P<angle>[A-Za-z][\w-]*)>|\[(?P<square>[A-Z][A-Z_]*)\])(?P<space>\s*)\Z")
_USER: Message = {"role": "user", "content": "Hello there"}
_ANSWER: Message = {"role": "assistant", "content": "General greeting"}


@dataclass(frozen=True)
class Tag:
    """The tag that an opening of an answer leaves open for the model to close, and the
    white space behind it."""

    opening: str
    closing: str
    space: str


class Renderer:
    """Renders conversations through a tokenizer's chat template.

    Args:
        system: what becomes of system messages: "keep" gives them to the template, "merge" puts their
            text before the user's next message, "auto" does so where the template refuses them.

    Raises:
        ModelError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Tokenizer, system: System = "auto") -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                "the tokenizer has no chat template, and the data are conversations",
                need="a template that says how this model marks its turns",
                next=(
                    "choose a chat model (its name often ends in Instruct or Chat), or write the data as"
                    " prompt and completion"
                ),
            )
        self.tokenizer = tokenizer
        self.system = system
        self.source = str(tokenizer.chat_template)
        self.marked = _GENERATION.search(self.source) is not None
        """Whether the template marks what the assistant says by {% generation %}."""

    def fit(self, talk: Conversation) -> Conversation:
        """The conversation as this template takes it; places and number of messages may
        change with a system message."""
        messages, learnt = list(talk.messages), list(talk.learnt)
        if self.merges:
            messages, learnt = _merged(messages, learnt)
        messages = [self._taken(message) for message in messages]
        return replace(talk, messages=tuple(messages), learnt=tuple(learnt))

    def text(self, talk: Conversation, *, end: int | None = None, answer: bool = False) -> str:
        """The first `end` messages of a conversation that was fitted, as text.

        Args:
            answer: open an answer at the end.

        Raises:
            TemplateError: the template refuses them; `got` has its words.
        """
        return str(self._apply(talk, end, tokenize=False, add_generation_prompt=answer))

    def ids(self, talk: Conversation, *, end: int | None = None) -> list[int]:
        """What the model reads before it answers the first `end` messages. Errors as in `text`."""
        return list(
            self._apply(talk, end, tokenize=True, return_dict=True, add_generation_prompt=True)[
                "input_ids"
            ]
        )

    def marks(self, talk: Conversation, *, end: int | None = None) -> Mapping[str, Any]:
        """Ids, offsets and `assistant_masks` of the first `end` messages, by the
        template's own marks. Errors as in `text`."""
        return cast(
            Mapping[str, Any],
            self._apply(
                talk,
                end,
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
                tokenizer_kwargs={"return_offsets_mapping": True},
            ),
        )

    @cached_property
    def merges(self) -> bool:
        """Whether system messages are put before the user's next."""
        return self.system == "merge" or (self.system == "auto" and self.refuses_system)

    @cached_property
    def refuses_system(self) -> bool:
        """Whether the template raises at a system message, and not without it."""
        return self._takes(_USER) and not self._takes({"role": "system", "content": "Be brief"}, _USER)

    @cached_property
    def left_open(self) -> Tag | None:
        """The tag, such as <think>, that the opening of an answer leaves open; None where there is none.

        What looks like one may be the mark of the turn itself, so the template has to
        know how it is closed.
        """
        if not self._takes(_USER):
            return None
        talk = Conversation((_USER,), (False,))
        before, opened = self.text(talk), self.text(talk, answer=True)
        found = _OPEN_TAG.search(opened[len(before) :]) if opened.startswith(before) else None
        if found is None or not found.start():
            return None
        name = found["angle"] or found["square"]
        opening, closing = (f"<{name}>", f"</{name}>") if found["angle"] else (f"[{name}]", f"[/{name}]")
        return Tag(opening, closing, found["space"])

    @cached_property
    def turn_end(self) -> str:
        """What ends an answer: the added token at the end of its render, or ""."""
        if not self._takes(_USER, _ANSWER):
            return ""
        text = self.text(Conversation((_USER, _ANSWER), (False, True))).rstrip()
        return next(
            (
                end
                for end in sorted(added_texts(self.tokenizer), key=len, reverse=True)
                if text.endswith(end)
            ),
            "",
        )

    @cached_property
    def turn_marks(self) -> tuple[str, ...]:
        """Texts of which each shows that a text was rendered already: the template's
        own marks of turns."""
        if not self._takes(_USER, _ANSWER):
            return ()
        text = self.text(Conversation((_USER, _ANSWER), (False, True)))
        asked, answered = str(_USER["content"]), str(_ANSWER["content"])
        ends = {str(token) for token in self._frame_tokens()}
        found = [token for token in added_texts(self.tokenizer) if token in text and token not in ends]
        between = text.partition(asked)[2].partition(answered)[0].strip()
        return tuple(dict.fromkeys([*found, *([between] if between else [])]))

    def ends_itself(self, message: Message) -> bool:
        """Whether an answer has the end of a turn in its own words, which the template
        would write twice."""
        content = message.get("content")
        said = content.rstrip() if isinstance(content, str) and message["role"] == "assistant" else ""
        return bool(said and self.turn_end) and said.endswith(self.turn_end)

    def is_rendered(self, text: str) -> bool:
        """Whether a text has the template's own marks of turns in it."""
        return any(mark in text for mark in self.turn_marks)

    @cached_property
    def _wants_text_arguments(self) -> bool:
        """Whether the template takes the arguments of a call as JSON text and not as an object."""

        def called(arguments: Any) -> Message:
            function = {"name": "add", "arguments": arguments}
            return {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "id": "a1b2c3d4e", "function": function}],
            }

        return not self._takes(_USER, called({"a": 1})) and self._takes(_USER, called('{"a": 1}'))

    def _frame_tokens(self) -> list[str]:
        """Special tokens that may frame any text, so that they say nothing about turns."""
        known = self.tokenizer.added_tokens_decoder
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
        ids = [getattr(self.tokenizer, name, None) for name in names]
        return [str(known[number].content) for number in ids if number in known]

    def _takes(self, *messages: Message) -> bool:
        try:
            self.text(Conversation(messages, (False,) * len(messages)))
        except TemplateError:
            return False
        return True

    def _taken(self, message: Message) -> Message:
        """One message under the names that this template reads."""
        taken = dict(message)
        if self.ends_itself(message):
            taken["content"] = str(message["content"]).rstrip().removesuffix(self.turn_end)
        if taken["role"] == "developer" and "developer" not in self.source:
            taken["role"] = "system"
        if REASONING[0] in taken:
            taken |= {name: taken[REASONING[0]] for name in REASONING if name in self.source}
        if "tool_calls" in taken and self._wants_text_arguments:
            taken["tool_calls"] = [_with_text_arguments(call) for call in taken["tool_calls"]]
        return taken

    def _apply(self, talk: Conversation, end: int | None, **options: Any) -> Any:
        messages = list(talk.messages[:end])
        tools = {"tools": list(talk.tools)} if talk.tools else {}
        try:
            return self.tokenizer.apply_chat_template(messages, **tools, **talk.variables, **options)
        # a template is a program of the model's author: it may raise anything
        except Exception as error:
            raise TemplateError(
                "the model's chat template refuses this conversation",
                got=str(error) or type(error).__name__,
                need=(
                    "roles as the template wants them; here they are"
                    f" {', '.join(str(m['role']) for m in messages)}"
                ),
                next="write the turns as the template wants them",
            ) from error


def added_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Added tokens that are seen as such: the ends of turns are among them."""
    contents = (str(token.content) for token in tokenizer.added_tokens_decoder.values())
    return tuple(content for content in contents if content and content == content.strip())


def _merged(messages: Sequence[Message], learnt: Sequence[bool]) -> tuple[list[Message], list[bool]]:
    """System texts as the beginning of the user's next message, or as one of the user's
    own where the user is not next."""
    found: list[tuple[Message, bool]] = []
    waiting: list[str] = []
    for message, is_learnt in zip(messages, learnt, strict=True):
        if message["role"] in ("system", "developer"):
            waiting += [text] if (text := str(message.get("content") or "")) else []
            continue
        if waiting and message["role"] == "user":
            message = {**message, "content": "\n\n".join([*waiting, str(message.get("content") or "")])}
        elif waiting:
            found.append(({"role": "user", "content": "\n\n".join(waiting)}, False))
        waiting = []
        found.append((message, is_learnt))
    found += [({"role": "user", "content": "\n\n".join(waiting)}, False)] if waiting else []
    return [message for message, _ in found], [is_learnt for _, is_learnt in found]


def _with_text_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or isinstance(function.get("arguments"), str):
        return call
    return {
        **call,
        "function": {**function, "arguments": json.dumps(function.get("arguments"), ensure_ascii=False)},
    }
