"""The base that an adapter goes into: its files by name, and its modules on torch's meta device.

Nothing of the weights is read before it is asked for. The modules are built, and transformers imported
(350 MiB), only for what names and shapes in the files leave open: weights that two modules may share,
prefixes, transposed layers, heads and modules that come with the adapter.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from loraloom.adapters.form import Factor, Form
from loraloom.adapters.shards import Stored, read_headers
from loraloom.errors import ModelError, first_line
from loraloom.lora.base import quiet_transformers

AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
CLASSES = {
    "CAUSAL_LM": ("ForCausalLM", "LMHeadModel"),
    "SEQ_2_SEQ_LM": ("ForConditionalGeneration",),
}
"""How the names of classes end that are made for a task; a classifier is made of any."""


class BaseFiles:
    """A model folder, as the task of an adapter needs it.

    Args:
        folder: config.json and safetensors.
        form: the adapter, which says for which task the model is built.

    Raises:
        ModelError: the weights are quantised or cannot be read.
    """

    def __init__(self, folder: Path, form: Form) -> None:
        self.folder, self.form = folder, form
        self.config = _read_config(folder)
        quantised = self.config.get("quantization_config")
        if quantised:
            method = quantised.get("quant_method") if isinstance(quantised, dict) else None
            raise ModelError(
                f"the weights of this base are quantised{f' by {method}' if method else ''}",
                where=str(folder),
                need="the full weights that it was made from: a sum rounded to few levels loses the"
                " adapter",
                next="--model ORIGINAL",
            )
        self.files = read_headers(folder)
        self._stored = {one.name: one for tensors in self.files.values() for one in tensors}

    @cached_property
    def model(self) -> Any:
        """The task's model, with shapes and no numbers.

        Raises:
            ModelError: transformers has no such model.
        """
        try:
            with quiet_transformers(), torch.device("meta"):
                model = self._built(None)
                classes = self._classes(model)
                return model if classes is None else self._built(classes)
        # a config is input: whatever a model's constructor raises on it is a wrong request
        except Exception as error:
            raise ModelError(
                f"no model for {self.form.config.get('task_type') or 'this adapter'} can be built",
                where=str(self.folder),
                got=first_line(error),
                next="give the folder of the base that the adapter was trained on",
            ) from error

    def _built(self, classes: int | None) -> Any:
        import transformers

        config: Any = transformers.AutoConfig.from_pretrained(self.folder)
        if classes is not None:
            config.num_labels = classes
        auto = AUTO_CLASSES.get(str(self.form.config.get("task_type")))
        if auto is not None:
            return getattr(transformers, auto).from_config(config)
        return getattr(transformers, config.architectures[0])(config)

    def _classes(self, model: Any) -> int | None:
        """How many classes the head has that comes with the adapter; None where they are as many as the
        base's config says."""
        if self.form.config.get("task_type") != "SEQ_CLS":
            return None
        count = model.config.num_labels
        for name, tensor in model.state_dict().items():
            brought = self.form.whole.get(name)
            if brought is None or tensor.ndim != 2 or tensor.shape[0] != count:
                continue
            if brought.shape[1:] == tensor.shape[1:] and brought.shape[0] != count:
                return brought.shape[0]
        return None

    @cached_property
    def architecture(self) -> str:
        """The name of the task's class: that of config.json where it is one of the task."""
        ends = CLASSES.get(str(self.form.config.get("task_type")), ())
        named: Any = self.config.get("architectures")
        one = named[0] if isinstance(named, list) and len(named) == 1 else None
        return one if isinstance(one, str) and one.endswith(ends) else type(self.model).__name__

    def stored(self, name: str) -> Stored | None:
        """Where the files have a tensor that the model calls so: base models are saved without the
        prefix that the task's model gives them, and the other way round. A tied name is its twin's."""
        found = map(self.stored_alone, (name, *self.twins(name)))
        return next((stored for stored in found if stored is not None), None)

    def stored_alone(self, name: str) -> Stored | None:
        """The same for this name only, whatever shares the parameter."""
        if name in self._stored:
            return self._stored[name]
        prefix = str(getattr(self.model, "base_model_prefix", ""))
        keys = (name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
        return next((self._stored[key] for key in keys if key in self._stored), None)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors that the model has, by its own names."""
        return {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Names of the tensors with a row for each token."""
        ends = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        found = (name for name, module in self.model.named_modules() if any(module is m for m in ends))
        return frozenset(f"{name}.weight" for name in found)

    def layer(self, factor: Factor) -> tuple[Stored, bool]:
        """Where the weight lies that a factor changes, and whether it is kept as in x out, as GPT-2's
        Conv1D and embeddings keep theirs.

        Raises:
            ModelError: the base has no such layer, or one of another shape.
        """
        stored = self.stored(f"{factor.path}.weight")
        if stored is not None and self._is_plain(factor, stored):
            return stored, False
        try:
            module = self.model.get_submodule(factor.path)
        except AttributeError:
            module = None
        if stored is None or module is None:
            raise self.no_layer(factor.path)
        transposed = factor.is_embedding or type(module).__name__ == "Conv1D"
        outer = (factor.b_OR.shape[0], factor.a_RD.shape[1])
        need = outer[::-1] if transposed else outer
        brought = self.form.whole.get(f"{factor.path}.weight")
        shape = stored.shape if brought is None else tuple(brought.shape)
        if shape != need:
            raise self.misfit(factor.path, need, shape)
        return stored, transposed

    def _is_plain(self, factor: Factor, stored: Stored) -> bool:
        """Whether a weight is the [O, D] of a layer of its own by its name and shape alone.

        PEFT notes `fan_in_fan_out` for the layers that it finds transposed.
        """
        return (
            stored.name == f"{factor.path}.weight"
            and stored.shape == (factor.b_OR.shape[0], factor.a_RD.shape[1])
            and not factor.is_embedding
            and not self.form.config.get("fan_in_fan_out")
            and f"{factor.path}.weight" not in self.form.whole
            and not self._may_be_shared(stored)
        )

    def _may_be_shared(self, stored: Stored) -> bool:
        """Only matrices with a row for each token are one weight of two modules."""
        text = self.config.get("text_config")
        sizes = [one.get("vocab_size") for one in (self.config, text) if isinstance(one, dict)]
        known = [size for size in sizes if isinstance(size, int)]
        return not known or stored.shape[:1] in [(size,) for size in known]

    @cached_property
    def _aliases(self) -> dict[int, list[str]]:
        """Names of each parameter, more than one where modules share it."""
        found: dict[int, list[str]] = {}
        for name, parameter in cast(nn.Module, self.model).named_parameters(remove_duplicate=False):
            found.setdefault(id(parameter), []).append(name)
        return found

    def twins(self, name: str) -> list[str]:
        """All other names of the same parameter."""
        own = self._stored.get(name)
        if own is not None and not self._may_be_shared(own):
            return []
        for names in self._aliases.values():
            if name in names and len(names) > 1:
                return [other for other in names if other != name]
        return []

    def no_layer(self, path: str) -> ModelError:
        """The refusal of an adapter of another model."""
        return ModelError(
            f"the base has no layer `{path}`, which the adapter changes",
            where=str(self.folder),
            got=f"a {self.config.get('model_type')}",
            need=f"the base that it was trained on:"
            f" {self.form.config.get('base_model_name_or_path') or 'its config does not name it'}",
            next="--model BASE",
        )

    def misfit(self, path: str, got: tuple[int, ...], base: tuple[int, ...]) -> ModelError:
        """The refusal of an adapter of another size."""
        return ModelError(
            f"the adapter changes a `{path}` of {_size(got)}, the base has one of {_size(base)}",
            where=str(self.folder),
            need=f"the base that it was trained on:"
            f" {self.form.config.get('base_model_name_or_path') or 'its config does not name it'}",
            next="--model BASE",
        )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "the base has no config.json that can be read",
            where=str(folder),
            got=str(error),
            need="a folder with config.json and model.safetensors",
            next="--model BASE",
        ) from error
    return cast(dict[str, Any], found)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
