"""An adapter merged into its base: which operation each tensor needs.

Every sum is computed in float32 and rounded once. Embeddings and an output layer that share one weight
are untied where the adapter changes one of the two; PEFT 0.21 writes such an update into both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.operations import (
    Add,
    Copy,
    Operation,
    Patch,
    PatchRows,
    Plan,
    Replace,
    Untie,
)
from loraloom.adapters.shards import INDEX, Stored
from loraloom.errors import ModelError
from loraloom.lora.record import read_record
from loraloom.lora.untrusted_adapter import TOKENIZER_FILES, has_tokenizer

TOKENIZER = (
    *TOKENIZER_FILES,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
SMALL_FILES = (".json", ".txt", ".model", ".jinja", ".py")
"""Ends of the names of files that belong to a model beside its weights."""


def plan_merge(form: Form, files: BaseFiles, dtype: torch.dtype | None = None) -> Plan:
    """What is to be written for the base with the adapter in it.

    Args:
        dtype: of all weights; None keeps what the base has.

    Raises:
        ModelError: the adapter does not belong to this base.
    """
    planner = _Planner(form, files)
    changed = planner.changes()
    shards: dict[str, list[Operation]] = {
        name: [changed.pop(one.name, None) or Copy(one) for one in tensors]
        for name, tensors in files.files.items()
    }
    shards[max(shards)] += changed.values()  # what the base does not have
    every = [one for tensors in files.files.values() for one in tensors]
    default = next(one.dtype for one in every if one.dtype.is_floating_point)
    config = planner.config(None if dtype is None else str(dtype).removeprefix("torch."))
    return Plan(shards, config, _beside(form.folder, files.folder), dtype, default)


class _Planner:
    """Operations of one merge, by the name that each tensor has in the files."""

    def __init__(self, form: Form, files: BaseFiles) -> None:
        self._form, self._files = form, files
        self._found: dict[str, Operation] = {}
        self._config = dict(files.config)

    def changes(self) -> dict[str, Operation]:
        """Raises ModelError for a layer that the base does not have, or has in another size."""
        for name, tensor in self._form.whole.items():
            self._whole(name, tensor)
        for path, factor in self._form.factors.items():
            stored, transposed = self._files.layer(factor)
            if factor.b_OR.any() or factor.magnitude_O is not None:
                name = f"{path}.weight"
                brought = self._form.whole.get(name)
                self._put(name, Patch(stored, factor, transposed, brought), stored)
        for path, (tokens, rows) in self._form.tokens.items():
            stored = self._files.stored(f"{path}.weight")
            if stored is None or stored.shape[1:] != rows.shape[1:]:
                raise self._files.no_layer(path)
            if max(tokens) >= stored.shape[0] or stored.name in self._found:
                raise ModelError(
                    f"the adapter trains token {max(tokens)} of `{path}`, which has"
                    f" {stored.shape[0]} rows or is replaced as well",
                    need="rows of the base's own tokens",
                    next="save the adapter again with PEFT: save_embedding_layers=True",
                )
            self._found[stored.name] = PatchRows(stored, tokens, rows)
        return self._found

    def _whole(self, name: str, tensor: torch.Tensor) -> None:
        stored = self._files.stored(name)
        path = name.rpartition(".")[0]
        expected = self._files.shapes.get(name)
        if expected is None:
            raise self._files.no_layer(path)
        if stored is None:
            if expected != tuple(tensor.shape):
                raise self._files.misfit(path, tuple(tensor.shape), expected)
            self._found[name] = Add(name, tensor)
            return
        grows = tensor.ndim == 2 and stored.shape[1:] == tuple(tensor.shape[1:])
        is_vocabulary = name in self._files.vocabulary
        if expected != tuple(tensor.shape) and not (grows and is_vocabulary):
            raise self._files.misfit(path, tuple(tensor.shape), expected)
        if is_vocabulary:
            self._config["vocab_size"] = tensor.shape[0]
        if self._is_trained_whole(path):
            self._put(name, Replace(stored, tensor), stored)
        else:  # saved with the adapter, and shared as in the base
            self._found[stored.name] = Replace(stored, tensor)

    def _is_trained_whole(self, path: str) -> bool:
        """Whether a module is one of `modules_to_save`, of which PEFT makes a copy."""
        asked: Sequence[str] = self._form.config.get("modules_to_save") or ()
        return any(path == one or path.endswith(one) for one in asked)

    def _put(self, name: str, operation: Patch | Replace, stored: Stored) -> None:
        """Note a change; a shared weight is changed under this name alone.

        Raises:
            ModelError: more than two modules share it, or PEFT was asked to keep them one.
        """
        twins = self._files.twins(name)
        shared = self._found.get(stored.name)
        own = self._files.stored_alone(name)
        if not twins or (own is not None and self._files.config.get("tie_word_embeddings") is False):
            self._found[stored.name] = operation
            return
        if len(twins) > 1 or self._form.config.get("ensure_weight_tying"):
            raise ModelError(
                f"`{name}` is one weight with {', '.join(twins)}, and the adapter changes it",
                need="an adapter that leaves shared weights alone",
                next="take it out of target_modules or modules_to_save and train again",
            )
        self._config["tie_word_embeddings"] = False
        twin = twins[0]
        if own is not None:
            self._found[own.name] = operation
            if self._files.stored_alone(twin) is None and twin not in self._found:
                kept = shared if isinstance(shared, Replace | PatchRows) else Copy(stored)
                self._found[twin] = Untie(twin, kept)
        else:
            self._found[name] = Untie(name, operation)

    def config(self, dtype: str | None) -> dict[str, Any]:
        """config.json of the merged model."""
        found = {**self._config, "architectures": [self._files.architecture]}
        if dtype is not None:
            found.pop("torch_dtype", None)
            found["dtype"] = dtype
        if self._form.config.get("task_type") == "SEQ_CLS":
            model = self._files.model
            count = int(model.config.num_labels)
            names = read_record(self._form.folder).label_names
            known = dict(model.config.id2label)
            if len(names) == count:
                known = dict(enumerate(names))
            found["id2label"] = {str(number): name for number, name in known.items()}
            found["label2id"] = {name: number for number, name in known.items()}
            found |= _pad_token(self._form.folder)
        return found


def _pad_token(folder: Path) -> dict[str, int]:
    """By which a decoder that classifies finds a row's last token: that of the adapter's tokenizer."""
    if not has_tokenizer(folder):
        return {}
    from loraloom.lora.base import load_tokenizer

    number = load_tokenizer(str(folder)).pad_token_id
    return {} if number is None else {"pad_token_id": number}


def _beside(adapter: Path, base: Path) -> Mapping[str, Path]:
    """Files that go along: the base's, with the adapter's tokenizer in the place of the base's."""
    left_out = {INDEX, "config.json", *(TOKENIZER if has_tokenizer(adapter) else ())}
    found = {
        path.name: path
        for path in sorted(base.iterdir())
        if path.is_file() and path.name.endswith(SMALL_FILES) and path.name not in left_out
        if not path.name.endswith(".index.json") and not path.name.startswith("proof")
    }
    own = (adapter / name for name in TOKENIZER if has_tokenizer(adapter))
    return found | {path.name: path for path in own if path.is_file()}


def describe(plan: Plan) -> list[str]:
    """The operations of a plan in words, one a line; copies are counted."""
    copies = len(plan.operations) - len(plan.changes)
    return [
        *(operation.words() for operation in plan.changes),
        f"copy     {copies} tensors as they are",
        f"write    {plan.bytes / 2**20:,.1f} MiB in {len(plan.files)} files",
    ]


def to_json(plan: Plan) -> list[dict[str, Any]]:
    """The operations of a plan for `--json`."""
    return [
        {
            "operation": type(one).__name__.lower(),
            "tensor": one.name,
            "dtype": str(plan.written_as(one)).removeprefix("torch."),
            "shape": list(one.shape),
        }
        for one in plan.operations
    ]
