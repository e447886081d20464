"""A chat template in the words of Ollama's TEMPLATE, which is written in Go's language.

Ollama runs it once for each exchange, with .System, .Prompt and .Response, and ends it at .Response
where an answer is due. So it can say what stands before and after each kind of message, nothing more.
What that is for a model is read from conversations that its own template wrote; where these are not
written alike again, there is no such form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from loraloom.data.conversation import Conversation, Message
from loraloom.data.render import Renderer, added_texts
from loraloom.errors import TemplateError

ASKED, ANSWERED, AGAIN, SYSTEM = "What is asked", "What is said", "And once more", "How it is said"


@dataclass(frozen=True)
class GoTemplate:
    """What stands around each kind of message.

    Attributes:
        system_inside: the system's text stands within the user's message, before what is asked.
        default_system: what the template says where there is no system message; "" for nothing.
    """

    before_system: str
    after_system: str
    before_user: str
    after_user: str
    after_answer: str
    system_inside: bool = False
    default_system: str = ""

    def text(self) -> str:
        """It in Go's language."""
        said = f"{self.before_system}{{{{ .System }}}}{self.after_system}"
        system = f"{{{{ if .System }}}}{said}{{{{ end }}}}"
        first, inner = ("", system) if self.system_inside else (system, "")
        asked = f"{self.before_user}{inner}{{{{ .Prompt }}}}{self.after_user}"
        return f"{first}{{{{ if .Prompt }}}}{asked}{{{{ end }}}}{{{{ .Response }}}}{self.after_answer}"

    def rendered(self, messages: Sequence[Message]) -> str:
        """What Ollama makes of a conversation whose last message waits for an answer."""
        written, system = "", self.default_system
        for message in messages:
            content = str(message["content"])
            if message["role"] == "system":
                system = content
            elif message["role"] == "user":
                said = f"{self.before_system}{system}{self.after_system}" if system else ""
                outside, inside = ("", said) if self.system_inside else (said, "")
                written += f"{outside}{self.before_user}{inside}{content}{self.after_user}"
                system = ""
            else:
                written += f"{content}{self.after_answer}"
        return written


def go_template(tokenizer: Any, bos: str) -> GoTemplate | None:
    """The chat template of a tokenizer in this form; None where it has none, or says more.

    Args:
        bos: what llama.cpp puts before a text by itself.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    renderer = Renderer(tokenizer)
    try:
        texts = {talk: _text(renderer, talk).removeprefix(bos) for talk in _TALKS}
    except TemplateError:
        return None
    for found in _candidates(texts, added_texts(tokenizer), renderer.turn_end):
        written = "".join(vars(found)[part] for part in _PARTS)
        fits = all(found.rendered(_messages(talk)) == texts[talk] for talk in _TALKS)
        if fits and "{{" not in written and '"""' not in written:
            return found
    return None


_PARTS = ("before_system", "after_system", "before_user", "after_user", "after_answer")
_TALKS = ("u", "uau", "su", "suau")
"""Conversations by the first letters of their roles."""
_ROLES = {"u": "user", "a": "assistant", "s": "system"}


def _messages(talk: str) -> list[Message]:
    """The conversation of these roles."""
    users = iter((ASKED, AGAIN))
    texts = {"a": ANSWERED, "s": SYSTEM}
    return [{"role": _ROLES[role], "content": texts.get(role) or next(users)} for role in talk]


def _text(renderer: Renderer, talk: str) -> str:
    messages = _messages(talk)
    conversation = Conversation(tuple(messages), (False,) * len(messages))
    return renderer.text(renderer.fit(conversation), answer=True)


def _common_end(texts: Sequence[str]) -> str:
    """What all of them end with."""
    shortest = min(texts, key=len)
    ends = (shortest[start:] for start in range(len(shortest)))
    return next((end for end in ends if all(text.endswith(end) for text in texts)), "")


def _candidates(texts: dict[str, str], marks: Sequence[str], turn_end: str) -> Iterator[GoTemplate]:
    """Every way to cut what stands between messages, the likeliest first: a turn begins with a mark that
    is not the one that ends turns."""
    before_asked, _, after_user = texts["u"].partition(ASKED)
    between = texts["uau"].partition(ANSWERED)[2].partition(AGAIN)[0]
    before_system, _, rest = texts["su"].partition(SYSTEM)
    after_system, found, _ = rest.partition(ASKED)
    if not found:
        return
    common = _common_end((before_asked, between, after_system))
    starts = range(len(common) + 1)
    begins = tuple(mark for mark in marks if mark != turn_end)
    marked = [start for start in starts if common[start:].startswith(begins)]
    for start, inside in product([*marked, *starts], (False, True)):
        user = before_system if inside else common[start:]
        if not (before_asked.endswith(user) and between.endswith(user)):
            continue
        head = before_asked[: len(before_asked) - len(user)]
        answer = between[: len(between) - len(user)]
        if inside:
            yield GoTemplate("", after_system, user, after_user, answer, system_inside=True)
            continue
        end = after_system[: len(after_system) - len(user)]
        if not head or (head.startswith(before_system) and head.endswith(end)):
            default = head[len(before_system) : len(head) - len(end)] if head else ""
            yield GoTemplate(before_system, end, user, after_user, answer, default_system=default)
