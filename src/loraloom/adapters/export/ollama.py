"""A folder for `ollama create`: a merged GGUF file and a Modelfile.

It has no ADAPTER: new versions are said to refuse it, old ones knew two families only.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.artefacts import form_home
from loraloom.adapters.export.gguf import GgufFile
from loraloom.adapters.export.gguf import plan as plan_gguf
from loraloom.adapters.export.go_template import GoTemplate, go_template
from loraloom.adapters.export.target import Source, Written
from loraloom.lora.base import load_tokenizer

NAME = "Modelfile"
UNSAID = (
    "the chat template has no form in Ollama's words, so that the Modelfile has none: see with"
    " `ollama show --modelfile` which one Ollama took"
)


@dataclass(frozen=True)
class OllamaFolder(GgufFile):
    """Attributes:
    template: None where there is none, or it has no such form.
    chats: whether there is a chat template at all.
    system: what every conversation of the adapter's data began with.
    """

    template: GoTemplate | None = None
    chats: bool = False
    system: str | None = None

    def modelfile(self) -> str:
        """The Modelfile."""
        system = self.system or (self.template.default_system if self.template else "")
        lines = [f"FROM ./{self.file}"]
        lines += [f'TEMPLATE """{self.template.text()}"""'] if self.template else []
        lines += [f"PARAMETER stop {_quoted(end)}" for end in self.ends]
        lines += [f"SYSTEM {_quoted(system)}"] if system else []
        return "\n".join(lines) + "\n"

    def words(self) -> list[str]:
        return [*super().words(), *(f"{NAME}  {line}" for line in self.modelfile().splitlines())]

    def write(self, out: Path) -> Written:
        written = super().write(out)
        (written.folder / NAME).write_text(self.modelfile(), encoding="utf-8")
        unsaid = (UNSAID,) if self.chats and self.template is None else ()
        return Written(written.folder, (*written.notes, *unsaid))

    def commands(self, out: Path) -> list[str]:
        name = self.source.name.lower()
        return [
            shlex.join(["ollama", "create", name, "-f", str(out / NAME)]),
            shlex.join(["ollama", "run", name]),
        ]


def plan(source: Source, kind: str | None = None) -> OllamaFolder:
    """Raises RequestError where no GGUF file can be made of it."""
    found = plan_gguf(source, kind)
    tokenizer: Any = load_tokenizer(form_home(source.form, source.files))
    framed = tokenizer("").input_ids[:1]
    bos = tokenizer.bos_token if framed and framed[0] == tokenizer.bos_token_id else ""
    return OllamaFolder(
        source,
        found.plan,
        found.kind,
        found.ends,
        go_template(tokenizer, bos or ""),
        bool(getattr(tokenizer, "chat_template", None)),
        source.system(),
    )


def _quoted(text: str) -> str:
    """A text as a Modelfile has it: between three quotes where one pair would not hold it."""
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'
