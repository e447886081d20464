"""`adapter combine --method regmean`: rows of each task are read, and the adapters meet in the update
that does on each one's inputs what its own adapter does there."""

from __future__ import annotations

import os
from collections.abc import Sequence

from loraloom.adapters.combine.adapters import Combined, combine
from loraloom.adapters.form import Form
from loraloom.adapters.inputs import Moments, input_moments, moment_bytes
from loraloom.config import names
from loraloom.config.decode import load_config
from loraloom.data.batches import collate
from loraloom.data.rows import sides_of
from loraloom.errors import RequestError
from loraloom.evals.choices import by_length
from loraloom.evals.objective import objective_for
from loraloom.facts.model import model_facts, require_weights
from loraloom.lora.base import load_base
from loraloom.pipeline.adapters import base_for
from loraloom.pipeline.evaluate import rows_of
from loraloom.records import built_as

ROWS = 256
"""Of each task that are read; a few thousand tokens tell what a layer of some thousand inputs reads."""
ROUNDS = 2
"""The first over what each adapter's own layers read, each next one over what the combination's read."""


def combine_by_inputs(
    forms: Sequence[Form], weights: Sequence[float], data: Sequence[str], model: str | None
) -> Combined:
    """Adapters combined by what their layers read.

    Args:
        weights: of the tasks; a larger one keeps more of that task.
        data: rows of each adapter's task.
        model: their base; what the first one's config names when None.

    Raises:
        RequestError: the rows, the base or the adapters cannot be used, or memory is short.
    """
    if len(data) != len(forms):
        raise RequestError(
            f"{len(forms)} adapters and rows of {len(data)} tasks",
            need="rows of each adapter's task, in the order of the adapters",
            next=" ".join(f"--data TASK_{number + 1}.jsonl" for number in range(len(forms))),
        )
    if min(weights) <= 0:
        raise RequestError("a weight of regmean is not above 0", next="--weights 1,2")
    _refuse(forms)
    folder = base_for(forms[0].folder, model)
    facts = require_weights(model_facts(str(folder)))
    encoded = [
        rows_of(
            load_config(flags={names.TRAIN: place, names.MAX_ROWS: ROWS}), "train", form.folder, facts
        )
        for place, form in zip(data, forms, strict=True)
    ]
    base = load_base(str(folder), built_as(encoded[0].task))
    objective = objective_for(base.task, base.model)
    tasks = [
        [collate([rows[i] for i in lot], base.pad_id, base.task) for lot in by_length(rows)]
        for rows in (sides_of(one.train) for one in encoded)
    ]

    def moments(inforce: Sequence[Form]) -> list[Moments]:
        return [
            input_moments(base.model.eval(), form, batches, lambda one: objective.rows(base.model, one))
            for form, batches in zip(inforce, tasks, strict=True)
        ]

    found = combine(forms, weights, "regmean", moments=moments(forms))
    for _ in range(ROUNDS - 1):
        found = combine(forms, weights, "regmean", moments=moments([found.form] * len(forms)))
    return found


def _refuse(forms: Sequence[Form]) -> None:
    """Raises RequestError for what RegMean cannot do here."""
    embedding = next((f.path for form in forms for f in form.factors.values() if f.is_embedding), None)
    if embedding is not None:
        raise RequestError(
            f"regmean has no meaning for the embedding `{embedding}`", next="--method cat"
        )
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if moment_bytes(forms) > free:
        raise RequestError(
            "what the layers read does not fit into memory",
            got=f"{free / 2**30:.1f} GiB free",
            need=f"{moment_bytes(forms) / 2**30:.1f} GiB",
            next="--method cat, or adapters of fewer layers",
        )
