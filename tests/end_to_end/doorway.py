"""How the tests go through the door: one command line in this process, and what it left behind."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loraloom.cli.main import main


@dataclass(frozen=True)
class World:
    """Bases and data files, by name."""

    llama: str
    chat_llama: str
    bert: str
    t5: str
    text: str
    chat: str
    labels: str
    pairs: str


@dataclass(frozen=True)
class Answer:
    """How one command line ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Door = Callable[..., Answer]


@dataclass(frozen=True)
class Run:
    """A finished run: how its command ended, and its folder."""

    answer: Answer
    folder: Path

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def yaml(self, name: str) -> dict[str, Any]:
        return yaml.safe_load((self.folder / name).read_text())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def call(*words: object) -> Answer:
    """One command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())
