"""An adapter of mlx-lm: adapters.safetensors and adapter_config.json (mlx_lm/tuner/utils.py).

    y = W x + scale B^T (A^T x)        lora_a = A^T [D, R]        lora_b = B^T [R, O]

One rank, one scale and one list of layers hold for all blocks: B takes every scale on, smaller ranks and
layers that were not trained are filled up with zeros.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from loraloom.adapters.artefacts import Artefact, mlx_folder
from loraloom.adapters.export.target import Export, Source, Written, refuse_beyond, refuse_classes
from loraloom.adapters.folder import refuse_taken, unfinished
from loraloom.adapters.form import Factor
from loraloom.adapters.shards import CODES, Entry, bytes_of, write_file
from loraloom.errors import ModelError

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
_BLOCK = re.compile(r"(?P<list>.*\blayers)\.(?P<number>\d+)\.(?P<key>.+)")


@dataclass(frozen=True)
class MlxFolder(Export):
    """Attributes:
    blocks: how many there are, trained or not.
    keys: what is trained, by its path in a block, or by its whole path outside of them.
    """

    rank: int
    blocks: int
    keys: tuple[str, ...]

    @property
    def format(self) -> str:
        return "MLX"

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """Outputs and inputs of every layer that is written, by its path."""
        known: dict[str, tuple[int, int]] = {}
        for path, factor in self.source.form.factors.items():
            shape = (factor.b_OR.shape[0], factor.a_RD.shape[1])
            match = _BLOCK.fullmatch(path)
            every = [path]
            if match is not None:
                every = [f"{match['list']}.{n}.{match['key']}" for n in range(self.blocks)]
            for one in every:
                known.setdefault(one, shape)
            known[path] = shape
        return known

    @property
    def bytes(self) -> int:
        return 4 * self.rank * sum(sum(shape) for shape in self.shapes.values())

    def words(self) -> list[str]:
        form, filled = self.source.form, len(self.shapes) - len(self.source.form.factors)
        return [
            f"turn     A and B of {len(form.factors)} layers, B takes their scale on",
            f"pad      to rank {self.rank}; {filled} layers of zeros",
            f"write    {self.bytes / 2**20:,.1f} MiB in mlx-lm's format",
        ]

    def write(self, out: Path) -> Written:
        tensors = {
            f"{path}.{name}": value
            for path, shape in self.shapes.items()
            for name, value in _halves(self.source.form.factors.get(path), shape, self.rank).items()
        }
        entries = [
            Entry(name, CODES[value.dtype], tuple(value.shape))
            for name, value in sorted(tensors.items())
        ]
        refuse_taken(out)
        with unfinished(out) as partial:
            contents = {name: iter([bytes_of(value)]) for name, value in tensors.items()}
            write_file(partial / WEIGHTS, entries, contents)
            text = json.dumps(self._config(), indent=2, ensure_ascii=False) + "\n"
            (partial / CONFIG).write_text(text, encoding="utf-8")
        return Written(partial)

    def _config(self) -> dict[str, Any]:
        asked = {"rank": self.rank, "scale": 1.0, "dropout": 0.0, "keys": list(self.keys)}
        kind = "dora" if self.source.form.uses_dora else "lora"
        return {
            "fine_tune_type": kind,
            "model": self.source.base,
            "num_layers": self.blocks,
            "lora_parameters": asked,
        }

    def missing(self) -> str | None:
        return None if find_spec("mlx_lm") else "mlx-lm is not installed here: pip install mlx-lm"

    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        return mlx_folder(folder, self.source.files.folder)

    def commands(self, out: Path) -> list[str]:
        words = ["mlx_lm.generate", "--model", self.source.base, "--adapter-path", str(out)]
        return [shlex.join([*words, "--prompt", "..."])]


def plan(source: Source, kind: str | None = None) -> MlxFolder:
    """Raises ModelError where mlx-lm does not take the adapter."""
    form = source.form
    refuse_classes(source, "mlx-lm")
    refuse_beyond(form, "mlx-lm", dora=True)
    matches = {path: _BLOCK.fullmatch(path) for path in form.factors}
    keys = {match["key"] if match else path for path, match in matches.items()}
    text: Any = source.files.config.get("text_config")
    config = text if isinstance(text, dict) else source.files.config
    blocks = int(config.get("num_hidden_layers") or 0)
    found = MlxFolder(source, max([1, *form.ranks]), blocks, tuple(sorted(keys)))
    whole = [one.is_embedding or form.config.get("fan_in_fan_out") for one in form.factors.values()]
    uneven = form.uses_dora and len(found.shapes) != len(form.factors)
    outside = [path for path, match in matches.items() if match is None and path != "lm_head"]
    if any(whole) or outside or not blocks or uneven:
        raise ModelError(
            "mlx-lm has no place for all of this adapter",
            where=str(form.folder),
            got="DoRA in some of the blocks only" if uneven else ", ".join(outside[:3]) or None,
            need="linear layers in blocks called `layers`",
            next="--to merged: mlx_lm.generate --model FOLDER takes the merged model",
        )
    return found


def _halves(factor: Factor | None, shape: tuple[int, int], rank: int) -> dict[str, Tensor]:
    """The tensors of one layer; zeros where it was not trained."""
    outputs, inputs = shape
    if factor is None:
        return {"lora_a": torch.zeros(inputs, rank), "lora_b": torch.zeros(rank, outputs)}
    wider = rank - factor.rank
    found = {
        "lora_a": pad(factor.a_RD.T, (0, wider)),
        "lora_b": pad((factor.b_OR * factor.scale).T, (0, 0, 0, wider)),
    }
    return found if factor.magnitude_O is None else {**found, "m": factor.magnitude_O}
