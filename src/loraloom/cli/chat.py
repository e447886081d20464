"""`loraloom chat`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraloom.cli.generate import Adapters, Base, Model, Temperature
from loraloom.cli.request import Json, Verbose
from loraloom.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from loraloom.pipeline.chat import Answer, Voice

PROMPT = "> "
COMMANDS = {
    "/reset": "forget what was said",
    "/undo": "forget the last turn",
    "/system TEXT": "forget what was said, and begin with this system text, or none",
    "/help": "this list",
    "/exit": "end, as Ctrl-D does",
}
ENDS = ("/exit", "/quit", "/bye")
ENDINGS = {
    "length": "cut at {} tokens: --max-new-tokens N allows more",
    "positions": "cut: the model has no more positions",
    "interrupted": "stopped",
}
"""What is said of an answer that the model did not end."""

MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer.")
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="System message at the beginning.")
]


def chat(
    model: Model = None,
    adapter: Adapters = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    base: Base = False,
    system: System = None,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Talk with adapters, side by side with their base.

    In a terminal: /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends. Without one, each line
    of stdin is a turn. Marks of the chat template in what is typed stay text.
    """
    if not model and not adapter:
        raise ConfigError(
            "neither an adapter nor a model was given",
            next="name one with --adapter or --model, or both",
        )

    from loraloom.facts.device import device_facts
    from loraloom.pipeline.chat import open_chat

    voices = open_chat(
        model,
        adapter or [],
        base=base,
        system=system,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
    )
    if notice := device_facts().notice:
        _aside(f"warning: {notice}")
    talk = Talk(voices, max_new_tokens, system, terminal=sys.stdin.isatty())
    if talk.terminal:
        _greet(voices, temperature)
    talk.hold()
    return talk.to_json()


@dataclass
class Talk:
    """A conversation as it goes on.

    Attributes:
        terminal: a person types, and may be wrong; else the lines come from a pipe, and a fault ends.
    """

    voices: list[Voice]
    max_new_tokens: int
    system: str | None
    terminal: bool
    turns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def hold(self) -> None:
        """Read texts and have them answered, to the end."""
        for text in _typed() if self.terminal else _lines():
            if not self.terminal:
                self.turn(text)
                continue
            try:
                if text.startswith("/") and self.obey(text):
                    continue
                if text in ENDS:
                    return
                self.turn(text)
            except RequestError as error:
                _aside(f"error: {error}")

    def turn(self, text: str) -> None:
        """Have everyone answer one text.

        Raises:
            RequestError: not all can: then nobody remembers it.
        """
        answers: list[Answer] = []
        try:
            for voice in self.voices:
                answers.append(self._answer(voice, text))
        except RequestError:
            for voice in self.voices[: len(answers)]:
                voice.undo()
            raise
        if self.terminal:
            print()
        self.turns.append({"prompt": text, "answers": [answer.to_json() for answer in answers]})

    def _answer(self, voice: Voice, text: str) -> Answer:
        from loraloom.pipeline.stop import listening

        if len(self.voices) > 1:
            print(f"[{voice.name}]")
        signals = [signal.SIGINT] if self.terminal else []
        with listening(signals) as stopped:
            answer = voice.answer(text, _show, stopped)
        print(flush=True)
        if answer.probabilities:
            from loraloom.cli.summary import likeliest

            print(f"  {likeliest(answer.probabilities)}", flush=True)
        if answer.ending in ENDINGS:
            _aside(f"({ENDINGS[answer.ending].format(self.max_new_tokens)})")
        if answer.left_out:
            turns = "turn was" if answer.left_out == 1 else f"{answer.left_out:,} turns were"
            _aside(f"(the oldest {turns} left out: the model has no positions for them)")
        return answer

    def obey(self, text: str) -> bool:
        """Do what a command says; False where the text is none, or the one that ends."""
        word, _, rest = text.partition(" ")
        if text in ENDS or "/" in word[1:] or not word[1:].isalpha():
            return False
        if word == "/reset":
            self._begin(self.system)
        elif word == "/system":
            self._begin(rest.strip() or None)
        elif word == "/undo":
            undone = [voice.undo() for voice in self.voices]
            if any(undone):
                self.turns.pop()
            _aside(f"({'the last turn is forgotten' if any(undone) else 'there is no turn to forget'})")
        elif word == "/help":
            _aside("\n".join(f"{name:12}  {about}" for name, about in COMMANDS.items()))
        else:
            _aside(f"there is no command {word}: /help lists them")
        return True

    def _begin(self, system: str | None) -> None:
        for voice in self.voices:
            voice.reset(system)
        self.system = system
        _aside("(what was said is forgotten)")

    def to_json(self) -> dict[str, Any]:
        """The document of --json."""
        return {"sources": [voice.name for voice in self.voices], "system": self.system} | {
            "turns": self.turns
        }


def _greet(voices: list[Voice], temperature: float) -> None:
    for about in dict.fromkeys(voice.about for voice in voices):
        who = ", ".join(voice.name for voice in voices if voice.about == about)
        _aside(f"{who}: what you type is sent {about}")
    if not temperature and not voices[0].about.endswith("classifier"):
        _aside("the likeliest token is taken each time; --temperature 0.7 makes answers vary")
    _aside("/help lists commands, Ctrl-C stops an answer, Ctrl-D ends")


def _typed() -> Iterator[str]:
    """What a person types, line by line, to Ctrl-D."""
    with contextlib.suppress(ImportError):
        import_module("readline")  # gives `input` its keys and its history
    while True:
        try:
            text = input(PROMPT).strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            _aside("Ctrl-D ends the chat")
            continue
        if text:
            yield text


def _lines() -> Iterator[str]:
    try:
        for line in sys.stdin:
            if text := line.strip():
                yield text
    except UnicodeDecodeError as error:
        raise ConfigError(
            "the text on stdin is not UTF-8", got=str(error), next="convert it: iconv -t UTF-8"
        ) from error


def _show(piece: str) -> None:
    """A piece of an answer, each sign that a terminal would obey as its escape."""
    print(
        "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in piece),
        end="",
        flush=True,
    )


def _aside(text: str) -> None:
    typer.secho(text, err=True, dim=True)
