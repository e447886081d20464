"""What an artefact and the live adapter are both asked: rows of tokens, texts, conversations."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from loraloom.data.conversation import Conversation
from loraloom.data.render import Renderer
from loraloom.errors import TemplateError

ROWS, TOKENS = 4, 48
"""Random rows that both models read, and the length of each."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  Zwei  Leerzeichen, Umlaute äöü ß, 1234567890 und 3.14159.",
    "def f(x):\n    return {'a': [x, None], \"b\": x ** 2}\n",
    "日本語のテキスト、emoji 🙂 and a tab\there",
)
SYSTEM = {"role": "system", "content": "Answer in one word."}
TURNS = (
    {"role": "user", "content": TEXTS[0]},
    {"role": "assistant", "content": "Indeed it does."},
    {"role": "user", "content": "Und  warum?\n\nSag's mir 🙂"},
)


@dataclass(frozen=True)
class Probes:
    """Questions to a model with this tokenizer.

    Attributes:
        vocabulary: rows of the embeddings.
        longest: tokens of a row.
    """

    tokenizer: Any
    vocabulary: int
    longest: int

    @cached_property
    def rows(self) -> list[list[int]]:
        """Our texts, and random tokens from all of the vocabulary."""
        length = min(TOKENS, self.longest - 2)
        random = torch.Generator().manual_seed(0)
        ids = [
            torch.randint(0, self.vocabulary, (length,), generator=random).tolist() for _ in range(ROWS)
        ]
        ids += [self.tokenizer(text).input_ids[:length] for text in TEXTS]
        ids += [self.ids_of(talk)[:length] for talk in self.conversations]
        # A classifier looks at the last token that is no padding: padding within a row would hide some.
        pad = getattr(self.tokenizer, "pad_token_id", None)
        kept = [[token for token in row if token != pad and token < self.vocabulary] for row in ids]
        return [row for row in kept if row]

    @cached_property
    def conversations(self) -> list[str]:
        """Conversations as the chat template writes them, with an answer opened; none without one."""
        return list(_rendered(self.tokenizer))

    def conversations_by(self, template: str | None) -> list[str]:
        """The same as another template writes them."""
        other = copy(self.tokenizer)
        other.chat_template = template
        return list(_rendered(other))

    def ids_of(self, rendered: str) -> list[int]:
        """What the model reads of a rendered conversation."""
        return list(self.tokenizer(rendered, add_special_tokens=False).input_ids)

    @cached_property
    def turn_end(self) -> int | None:
        """The token that ends the assistant's turn; None without a template, or where it writes none."""
        text = Renderer(self.tokenizer).turn_end if _has_template(self.tokenizer) else ""
        found = self.ids_of(text) if text else []
        return found[-1] if found else None


def _rendered(tokenizer: Any) -> Iterator[str]:
    if not _has_template(tokenizer):
        return
    renderer = Renderer(tokenizer)
    for messages in (TURNS[:1], TURNS, (SYSTEM, *TURNS)):
        talk = Conversation(tuple(dict(one) for one in messages), (False,) * len(messages))
        try:
            yield renderer.text(renderer.fit(talk), answer=True)
        except TemplateError:  # of a template that wants other turns; training refused them as well
            continue


def _has_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))
