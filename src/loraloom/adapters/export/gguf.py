"""A merged model as one GGUF file, for llama.cpp and all that is built on it."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from loraloom.adapters.artefacts import Artefact, Gguf, form_home
from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.export.target import Export, Source, Written, refuse_classes
from loraloom.adapters.folder import refuse_taken, unfinished
from loraloom.adapters.gguf.converter import convert, fallbacks
from loraloom.adapters.gguf.families import FAMILIES, Layout
from loraloom.adapters.gguf.llama_cpp_script import script_folder
from loraloom.adapters.gguf.model_file import ENCODINGS, source_of
from loraloom.adapters.gguf.runtime import available, open_gguf, quantise
from loraloom.adapters.gguf.vocabulary import read_vocabulary
from loraloom.adapters.merge import describe, plan_merge
from loraloom.adapters.operations import Plan
from loraloom.adapters.proof import PROMISES, Promise, promise_of
from loraloom.adapters.verify import probes_of
from loraloom.errors import RequestError

EMBEDDINGS = "embed_tokens.weight"
BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5}
"""Of a number; a K-quant has less than 8.5, and is made of a file of F32 that lies beside it."""


@dataclass(frozen=True)
class GgufFile(Export):
    """Attributes:
    kind: the format, as llama.cpp calls it.
    ends: texts of tokens that end an answer.
    """

    plan: Plan
    kind: str
    ends: tuple[str, ...]

    @property
    def format(self) -> str:
        return f"GGUF {self.kind}"

    @property
    def promise(self) -> Promise:
        return gguf_promise(self.source.files, self.format)

    @property
    def file(self) -> str:
        return f"{self.source.name}-{self.kind}.gguf"

    @property
    def bytes(self) -> int:
        plan = self.plan
        sizes = (plan.entry(one).bytes // plan.written_as(one).itemsize for one in plan.operations)
        numbers = sum(sizes)
        if self.kind in BITS:
            return int(numbers * BITS[self.kind] / 8)
        return int(numbers * (BITS["F32"] + BITS["Q8_0"]) / 8)

    def words(self) -> list[str]:
        whole = [] if self.kind in ENCODINGS else [f"quantise F32 to {self.kind} by llama.cpp"]
        return [*describe(self.plan)[:-1], *whole, f"write    {self.file}"]

    def write(self, out: Path) -> Written:
        refuse_taken(out)
        with unfinished(out) as partial:
            if self.kind in ENCODINGS:
                written = convert(self.plan, partial / self.file, self.kind, ends=self.ends)
            else:
                written = convert(self.plan, partial / self._whole, "F32", ends=self.ends)
                quantise(partial / self._whole, partial / self.file, self.kind)
        lost = () if self.kind in ENCODINGS else fallbacks(self.plan, self.kind)
        return Written(partial, (*written.notes, *lost))

    def missing(self) -> str | None:
        return llama_missing()

    def made_of(self, folder: Path) -> tuple[str, AbstractContextManager[Artefact]] | None:
        """A K-quant has no bound of its own: the file that it is made of is proved first."""
        if self.kind in ENCODINGS:
            return None
        return "GGUF F32", opened_gguf(folder / self._whole)

    def for_proof(self, folder: Path) -> list[Path]:
        return [] if self.kind in ENCODINGS else [folder / self._whole]

    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        return opened_gguf(folder / self.file)

    def base_opened(self) -> AbstractContextManager[Artefact] | None:
        if self.kind in ENCODINGS and self.kind != "Q8_0":
            return None
        return opened_base(self.source.files.folder, self.kind)

    def commands(self, out: Path) -> list[str]:
        return [shlex.join([tool, "-m", str(out / self.file)]) for tool in ("llama-cli", "llama-server")]

    @property
    def _whole(self) -> str:
        return f".{self.source.name}-F32.gguf"


def plan(source: Source, kind: str | None = None) -> GgufFile:
    """Raises RequestError where no GGUF file can be made of it, or its format not be written here."""
    refuse_classes(source, "llama.cpp")
    kind = kind or "Q8_0"
    reason = None if kind in ENCODINGS else available()
    if reason is not None:
        raise RequestError(
            f"{kind} is written by llama.cpp, which is not here",
            got=reason,
            next='pip install "loraloom[llama]", or --to gguf:Q8_0, which needs nothing more',
        )
    merge = plan_merge(source.form, source.files)
    ends = turn_ends(source)
    check_family(merge, ends)
    return GgufFile(source, merge, kind, ends)


def check_family(merge: Plan, ends: Sequence[str]) -> None:
    """See that model and tokenizer can be written, before anything is.

    Raises:
        RequestError: neither we nor a folder that `LLAMA_CPP` names know the family.
        ModelError: a part of either that llama.cpp does not compute as transformers does.
    """
    model = source_of(merge)
    name = str((model.config.get("architectures") or [""])[0])
    if name not in FAMILIES and script_folder() is not None:
        return
    Layout(model.config, model.name)
    rows = next((one.shape[0] for one in merge.operations if one.name.endswith(EMBEDDINGS)), 0)
    read_vocabulary(model.beside, model.config, rows, ends)


def turn_ends(source: Source) -> tuple[str, ...]:
    """The text of the token that ends the assistant's turn, where there is a chat template.

    Where the template writes the tokenizer's own end of text, that is it, and no library has to read the
    template (transformers takes 350 MiB).
    """
    home = Path(form_home(source.form, source.files))
    config = _read(home / "tokenizer_config.json")
    template = home / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    end = config.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    if isinstance(text, str) and isinstance(end, str) and (end in text or "eos_token" in text):
        return (end,)
    if not text:
        return ()
    probes = probes_of(source.form, source.files)
    token = probes.turn_end
    return () if token is None else (probes.tokenizer.convert_ids_to_tokens(token),)


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none. The proof tells what was missed."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def gguf_promise(files: BaseFiles, kind: str) -> Promise:
    """What is promised of a file: llama.cpp rounds within some families, whatever the file has."""
    family = FAMILIES.get(str((files.config.get("architectures") or [""])[0]))
    if promise_of(kind).relative is not None and not (family and family.exact):
        return PROMISES["GGUF F16"]
    return promise_of(kind)


def llama_missing() -> str | None:
    """Why no GGUF file can be run here; None where it can."""
    reason = available()
    install = 'pip install "loraloom[llama]"'
    return None if reason is None else f"llama.cpp is not here: {install} ({reason})"


@contextmanager
def opened_gguf(path: Path, lora: Path | None = None) -> Generator[Gguf]:
    """A file, ready to be asked. Errors as in `runtime.open_gguf`."""
    with open_gguf(path, lora) as loaded:
        yield Gguf(loaded)


@contextmanager
def opened_base(base: Path, kind: str, lora: Path | None = None) -> Generator[Gguf]:
    """A base in a format, in a file that is removed again."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "base.gguf"
        convert(base, path, kind)
        with opened_gguf(path, lora) as opened:
            yield opened
