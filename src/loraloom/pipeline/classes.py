"""Which class each output of a head stands for: what the person, the adapter or the model says of it."""

from __future__ import annotations

from pathlib import Path

from loraloom.config.asked import Config
from loraloom.data.classes import Known, unnamed
from loraloom.data.label_column import label_advice
from loraloom.data.recognise import Recognised
from loraloom.data.table import Table, listed
from loraloom.errors import ConfigError, DataError
from loraloom.facts.model import ModelFacts
from loraloom.lora.untrusted_adapter import adapter_shapes
from loraloom.pipeline.beside import record_of
from loraloom.records import built_as


def refuse_unlabelled(model: ModelFacts, table: Table, recognised: Recognised) -> None:
    """Say what an encoder needs, which can only classify, before it is asked for something else.

    Raises:
        DataError: the rows were read without a label.
    """
    if model.kind != "encoder" or built_as(recognised.task) == "seq_cls":
        return
    raise DataError(
        f"{model.name_or_path} is an encoder, which tells classes apart, and these rows were read"
        " without a label",
        where=table.source,
        got=f"the columns {listed(table.columns)}, read as {recognised.format}",
        need="a text and a label in each row",
        next=label_advice(table, recognised.columns.values())
        or "name their column: --set data.label_column=NAME",
    )


def classes_to_train(config: Config, model: ModelFacts) -> Known | None:
    """Of a run: as asked, else those of the head that the base has; None where the data decide.

    Args:
        model: described for the run's task.
    """
    if config.data.label_names:
        return Known(config.data.label_names, "`data.label_names`")
    return (
        Known(model.classes, f"the head of {model.name_or_path}", binding=False)
        if model.classes
        else None
    )


def classes_to_score(config: Config, model: ModelFacts, folder: Path | None) -> Known | None:
    """Of an evaluation: as asked, else as the adapter or its run recorded them, else those of the base's
    head; None for a base without one.

    Args:
        model: described for classification.
        folder: of the adapter.

    Raises:
        ConfigError: names were asked for that are more or fewer than the head's outputs.
    """
    outputs = _outputs(model, folder) or len(model.classes)
    asked = config.data.label_names
    if asked and outputs and len(asked) != outputs:
        raise ConfigError(
            f"`data.label_names` has {len(asked)} names, the head {outputs} outputs",
            need="one name an output, in their order",
            next="--set 'data.label_names=[NAME, ...]'",
        )
    if asked:
        return Known(asked, "`data.label_names`")
    if not outputs:
        return None
    source = f"the head of {model.name_or_path}" if folder is None else "the adapter"
    own = record_of(folder).label_names if folder else ()
    found = [Known(names, source) for names in (own, model.classes) if len(names) == outputs]
    return next((known for known in found if known.named), Known(unnamed(outputs), source))


def _outputs(model: ModelFacts, folder: Path | None) -> int:
    """Classes of the head that an adapter brings along; 0 where it brings none."""
    heads = [linear.path for linear in model.linears if linear.role == "head"]
    if folder is None or not heads:
        return 0
    ends = (f".{heads[-1]}.weight", f".{heads[-1]}.modules_to_save.weight")
    return next(
        (shape[0] for key, shape in adapter_shapes(folder).items() if key.endswith(ends) and shape), 0
    )
