"""What a target is: an artefact that is planned first, then written, then opened for its proof."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.artefacts import Artefact
from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.proof import Promise, promise_of
from loraloom.adapters.servers import beside_factors
from loraloom.errors import ModelError


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        base: what a server is told to load.
        name: what the adapter is called there, and files are.
        system: asks what every conversation of its data began with; None where that differed or is not
            known.
    """

    form: Form
    files: BaseFiles
    base: str
    name: str
    system: Callable[[], str | None] = lambda: None


@dataclass(frozen=True)
class Written:
    """Attributes:
    folder: all files, still under another name than the one they were asked for.
    notes: what is otherwise than was asked.
    """

    folder: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export(ABC):
    """One artefact, planned: nothing is written before `write`."""

    source: Source

    @property
    @abstractmethod
    def format(self) -> str:
        """As in `proof.Proof`."""

    @property
    def promise(self) -> Promise:
        """What it has to keep to."""
        return promise_of(self.format)

    @property
    def file(self) -> str | None:
        """Name of the artefact within its folder; None where it is the folder."""
        return None

    @property
    @abstractmethod
    def bytes(self) -> int:
        """What it takes on the disk, at the most, while it is written."""

    @abstractmethod
    def words(self) -> list[str]:
        """Its operations, one a line."""

    @abstractmethod
    def write(self, out: Path) -> Written:
        """Write it beside its place.

        Raises:
            RequestError: place or disk do not allow it; nothing is left of it then.
        """

    def missing(self) -> str | None:
        """Why nothing here can run it; None where something can."""
        return None

    @abstractmethod
    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        """The artefact of a written folder, ready to be asked."""

    def base_opened(self) -> AbstractContextManager[Artefact] | None:
        """The bare base in the same format; None where the format loses nothing worth telling."""
        return None

    def made_of(self, folder: Path) -> tuple[str, AbstractContextManager[Artefact]] | None:
        """Format of an artefact that has to be proved before, because this one is made of it; None where
        there is none."""
        return None

    def for_proof(self, folder: Path) -> list[Path]:
        """Files that are needed for the proof alone."""
        return []

    @abstractmethod
    def commands(self, out: Path) -> list[str]:
        """What to type next."""


def refuse_beyond(form: Form, server: str, heads: Sequence[str] = (), *, dora: bool = False) -> None:
    """See that an adapter format of A and B has a place for all of an adapter.

    Args:
        heads: last names of modules trained whole that the server takes.
        dora: whether it takes DoRA's magnitudes.

    Raises:
        ModelError: there is more.
    """
    reasons = list(beside_factors(form, heads=tuple(heads), dora=dora))
    if reasons:
        raise ModelError(
            f"{server} does not take {'; '.join(reasons)}",
            where=str(form.folder),
            need="A and B alone",
            next="--to merged, or --to gguf:Q8_0: a merged model holds whatever was trained",
        )


def refuse_classes(source: Source, server: str) -> None:
    """Raises ModelError for what is no language model, where only these are known."""
    task = source.form.config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{server} takes language models, and this adapter is for {task}",
            where=str(source.form.folder),
            next="--to merged",
        )
