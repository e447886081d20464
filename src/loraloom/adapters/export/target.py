"""What a target is: an artefact that is planned first, then written, then opened for its proof."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loraloom.adapters.artefacts import Artefact
from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.servers import beside_factors
from loraloom.errors import ModelError


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        base: what a server is told to load.
        name: what the adapter is called there, and files are.
        system: what every conversation of its data began with; None where that differed or is not known.
    """

    form: Form
    files: BaseFiles
    base: str
    name: str
    system: str | None = None


class Export(Protocol):
    """One artefact, planned: nothing is written before `write`."""

    @property
    def format(self) -> str:
        """As in `proof.Proof`."""
        ...

    @property
    def file(self) -> str | None:
        """Name of the artefact within its folder; None where it is the folder."""
        ...

    @property
    def bytes(self) -> int:
        """What it takes on the disk, at the most, while it is written."""
        ...

    def words(self) -> list[str]:
        """Its operations, one a line."""
        ...

    def write(self, out: Path) -> Path:
        """Write it beside its place.

        Returns:
            The folder with all files, still under another name.
        """
        ...

    def missing(self) -> str | None:
        """Why nothing here can run it; None where something can."""
        ...

    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        """The artefact of a written folder, ready to be asked."""
        ...

    def base_opened(self) -> AbstractContextManager[Artefact] | None:
        """The bare base in the same format; None where the format loses nothing worth telling."""
        ...

    def commands(self, out: Path) -> list[str]:
        """What to type next."""
        ...


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
            f"{server} takes language models, and this adapter is one of {task}",
            where=str(source.form.folder),
            next="--to merged",
        )
