"""`loraloom chat`: turns with adapters, side by side with the bare base, each with its own history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from loraloom.errors import ConfigError
from loraloom.evals.streaming import Memory, streamed
from loraloom.evals.writing import position_limit
from loraloom.lora.base import Base
from loraloom.lora.state import require_embeddings
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.generate import config_of, refuse_system
from loraloom.pipeline.predictor import COLUMN, PROBABILITY, Predictor, labeller
from loraloom.pipeline.sources import Source, load_sources, named_sources

ROOM = 4
"""One part in so many of the model's positions is left for an answer, or all that it may have if that is
less."""


@dataclass(frozen=True)
class Answer:
    """What one of those who answer says.

    Attributes:
        ending: as `streaming.Ending`; of a classifier "stop".
        left_out: turns that it was not shown, the oldest, since not all have room.
        probabilities: of each class, of a classifier.
    """

    source: str
    text: str
    ending: str = "stop"
    left_out: int = 0
    probabilities: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """One answer of `chat --json`."""
        found = {"source": self.source, "text": self.text, "ending": self.ending}
        found |= {"left_out": self.left_out}
        return found if self.probabilities is None else {**found, "probabilities": self.probabilities}


Told = Callable[[str], object]
"""Given an answer piece by piece."""


class Voice(Protocol):
    """One of those who answer."""

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str:
        """How a text reaches the model, as the end of a sentence."""
        ...

    def answer(self, text: str, told: Told, stopped: Callable[[], bool]) -> Answer: ...
    def reset(self, system: str | None) -> None: ...
    def undo(self) -> bool: ...


@dataclass
class Speaker:
    """A language model that answers, with what was said so far.

    Without a chat template nothing says where a turn begins and who speaks. Then all that was said is
    one running text, a line a turn, which the model continues. An encoder-decoder reads each text alone.
    """

    source: Source
    base: Base
    max_new_tokens: int
    temperature: float
    system: str | None = None
    turns: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    left_out: int = 0
    memory: Memory = field(default_factory=Memory)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def about(self) -> str:
        form = self.source.form
        if form == "chat_template":
            return "through the chat template"
        if form is not None:
            return f"in the form of training ({form})"
        if self.base.task == "seq2seq_lm":
            return "each alone: it has no chat template"
        return "as one running text, a line a turn: it has no chat template"

    def reset(self, system: str | None) -> None:
        """Forget what was said, and begin with this system text.

        Raises:
            ConfigError: there is no place for one.
        """
        if system is not None and self.source.form is None and self.base.task == "seq2seq_lm":
            raise ConfigError(
                f"{self.name} has no chat template that says where a system text stands",
                next="write it into the text itself",
            )
        self.system, self.turns, self.left_out = system, [], 0

    def undo(self) -> bool:
        """Forget the last turn; whether there was one."""
        if not self.turns:
            return False
        self.turns.pop()
        self.left_out = min(self.left_out, len(self.turns))
        return True

    @device_errors()
    def answer(self, text: str, told: Told, stopped: Callable[[], bool]) -> Answer:
        """Answer the next text. An answer that was stopped counts as far as it came.

        Raises:
            ConfigError: the text alone has no room; then nothing was said.
        """
        ids = self._prompt(text)
        require_embeddings(self.source.model, ids)
        found = streamed(
            self.source.model,
            ids,
            self.source.tokenizer,
            task=self.base.task,
            pad_id=self.base.pad_id,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            memory=self.memory,
            told=told,
            stopped=stopped,
        )
        self.turns.append((text, found.text))
        return Answer(self.name, found.text, found.ending, self.left_out)

    def _prompt(self, text: str) -> list[int]:
        """What the model reads: as many of the last turns as leave room for an answer."""
        limit = position_limit(self.base.model, self.base.task)
        ids = self._ids(text)
        if limit is None:
            return ids
        room = min(self.max_new_tokens, limit // ROOM)
        while len(ids) + room > limit and self.left_out < len(self.turns):
            self.left_out += 1
            ids = self._ids(text)
        if len(ids) >= limit:
            raise ConfigError(
                f"the text has {len(ids):,} tokens as the model reads it",
                need=f"fewer than its {limit:,} positions",
                next="shorten it",
            )
        return ids

    def _ids(self, text: str) -> list[int]:
        shown = self.turns[self.left_out :]
        if self.source.form is None:
            said = [] if self.base.task == "seq2seq_lm" else [part for turn in shown for part in turn]
            opening = [] if self.system is None else [self.system]
            return self.source.ids("\n".join([*opening, *said, text]), self.base.task)
        if not shown and self.system is None:
            return self.source.ids(text, self.base.task)
        roles = ("user", "assistant")
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages += [
            {"role": role, "content": content}
            for turn in shown
            for role, content in zip(roles, turn, strict=True)
        ]
        return self.source.ids([*messages, {"role": "user", "content": text}], self.base.task)


@dataclass
class Judge:
    """A classifier: it labels each text by itself, and remembers none."""

    name: str
    predictor: Predictor
    about: str = "each alone, to a classifier"

    @device_errors()
    def answer(self, text: str, told: Told, stopped: Callable[[], bool]) -> Answer:
        """The label of a text, and how probable each class is."""
        (found,) = self.predictor.labels_of([text])
        told(str(found[COLUMN]))
        return Answer(self.name, str(found[COLUMN]), probabilities=found[PROBABILITY])

    def reset(self, system: str | None) -> None:
        """Raises ConfigError at a system text."""
        refuse_system(system)

    def undo(self) -> bool:
        return False


@device_errors()
def open_chat(
    model: str | None,
    adapters: Sequence[str],
    *,
    base: bool = False,
    system: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
) -> list[Voice]:
    """Load everyone who is to answer. Arguments as of `generate.generate`.

    Raises:
        RequestError: no such model or adapter, or one of another task or base.
    """
    named = named_sources(model, adapters)
    voices: list[Voice]
    if named.task == "seq_cls":
        voices = [
            Judge(adapter or "base", labeller(config_of(named), adapter))
            for adapter in named.classifiers(base=base)
        ]
    else:
        loaded, sources = load_sources(named, base=base)
        voices = [*(Speaker(source, loaded, max_new_tokens, temperature) for source in sources)]
    for voice in voices:
        voice.reset(system)
    return voices
