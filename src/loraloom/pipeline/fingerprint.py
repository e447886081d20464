"""What a run was begun with, in a few characters each: rows and weights must be the
same when it goes on."""

from __future__ import annotations

from collections.abc import Mapping

from loraloom.data.load import shown
from loraloom.errors import DataError, ModelError
from loraloom.evals.scoring import fingerprint
from loraloom.facts.source import model_folder
from loraloom.facts.weights import weights_fingerprint
from loraloom.pipeline.initial_adapter import fingerprint_of
from loraloom.pipeline.prepare import Prepared, required_model

MODEL, INITIAL = "model", "initial_adapter"
OF_WEIGHTS = (MODEL, INITIAL)
"""Which of the marks are no split's."""


def fingerprints(prepared: Prepared) -> dict[str, str]:
    """Of each split's rows (encoded, so that the tokenizer counts too), of the base model's files and of
    the adapter that the run begins with."""
    config = prepared.config.model
    folder = model_folder(required_model(prepared.config), config.revision)
    rows = {split: fingerprint(rows) for split, rows in prepared.data.splits.items()}
    if prepared.replay:
        rows["replay"] = fingerprint(prepared.replay)
    initial = prepared.facts.initial
    return (
        rows
        | ({MODEL: weights_fingerprint(folder)} if folder else {})
        | ({INITIAL: fingerprint_of(initial.folder)} if initial else {})
    )


def refuse_changes(before: Mapping[str, str], now: Mapping[str, str], prepared: Prepared) -> None:
    """Go on only with what the run was begun with.

    Raises:
        DataError: rows of a split are others.
        ModelError: the base model is another.
    """
    asked = prepared.config
    changed = [split for split in before if split not in OF_WEIGHTS and before[split] != now.get(split)]
    if changed:
        raise DataError(
            f"the data is no longer what the run was begun with: other rows in {', '.join(changed)}",
            where=shown(asked.data.train_names),
            need="the same files and the same tokenizer",
            next="put the files back as they were, or begin a new run: --name NAME",
        )
    if before.get(MODEL) != now.get(MODEL):
        raise ModelError(
            "the base model is no longer the one that the run was begun with",
            where=required_model(asked),
            got="other weights, or another config.json",
            need="the same files",
            next="put the model back as it was, or begin a new run: --name NAME",
        )
    if before.get(INITIAL) != now.get(INITIAL):
        raise ModelError(
            f"{asked.adapter.init_from} is no longer the adapter that the run was begun with",
            need="the same files",
            next="put it back as it was, or begin a new run: --name NAME",
        )
