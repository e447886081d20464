"""Where models and data are, and the files that are made of them: samples of rows, and
copies with a fault."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Values = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Files:
    """Where models and data are, and a folder for what is made of them."""

    models: Path
    data: Path
    encoder: str
    work: Path

    def model(self, name: str) -> str:
        """Folder of a small language model."""
        return str(self.models / name)

    def rows(self, name: str, count: int | None = None, seed: int = 0) -> list[Row]:
        """All rows of a data set's file, or a sample of them."""
        lines = (self.data / name).read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        return rows if count is None else sample(rows, count, seed)

    def write(self, name: str, rows: Sequence[Row]) -> str:
        """A file of rows in the folder of this run."""
        path = self.work / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    # -- copies with a fault
    # -------------------------------------------------------------------------------------

    def shuffled(self, source: str) -> str:
        """The rows of a file, their labels dealt out anew."""
        rows = self.rows(source)
        labels = [row["label"] for row in rows]
        random.Random(0).shuffle(labels)
        return self.write(
            f"{Path(source).stem}-shuffled",
            [{**row, "label": label} for row, label in zip(rows, labels, strict=True)],
        )

    def repeated(self, source: str, count: int) -> str:
        """A validation file made of training rows."""
        return self.write(f"{Path(source).stem}-repeated", self.rows(source, count))

    def cut_off(self, name: str) -> str:
        """A copy of a Llama whose last block passes its input on: no gradient reaches
        that block's inner layers."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder, source = self.work / f"{name}-cut-off", self.model(name)
        model: Any = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            block = model.model.layers[-1]
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        return str(folder)

    def endless(self, name: str) -> str:
        """A copy of a chat model whose template never closes an answer."""
        folder = self.work / f"{name}-endless"
        folder.mkdir(exist_ok=True)
        for file in Path(self.model(name)).iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
        template = folder / "chat_template.jinja"
        template.write_text(
            template.read_text().replace("{{ m['content'] + '<|im_end|>' }}", "{{ m['content'] }}")
        )
        return str(folder)


def sample(rows: Sequence[Row], count: int, seed: int = 0) -> list[Row]:
    """`count` rows by chance, always the same for one seed."""
    return random.Random(seed).sample(list(rows), count)
