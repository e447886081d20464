"""A candidate that a user makes of another one, with other settings, while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from loraloom.config import names
from loraloom.errors import RequestError
from loraloom.pipeline.candidates import job
from loraloom.pipeline.job import Job
from loraloom.pipeline.prepare import Prepared
from loraloom.plan.needs import need
from loraloom.plan.numbers import bytes_text
from loraloom.plan.rules import optimiser
from loraloom.plan.shape import decided_shape

ROLE = "hand"
"""Why such a candidate is there (`Job.role`)."""
FREE = "lora_dropout"
"""What of the adapter a clone may change although it begins with its parent's weights."""


def clone_of(prepared: Prepared, parent: Job, trial: str, changes: Mapping[str, Any]) -> Job:
    """The parent's settings and seed with `changes` (by dotted key) over them, as trial `trial`.

    Raises:
        ConfigError, ModelError: there is no such candidate.
    """
    made = parent.candidate
    offset = made.training.seed - prepared.plan.settings[names.SEED].value
    params = {**made.params, **changes}
    own = job(prepared, trial, params, seed_offset=offset, role=ROLE)
    return replace(own, parent=made.id)


def require_clone(prepared: Prepared, parent: Job, changes: Mapping[str, Any], *, warm: bool) -> None:
    """Refuse a clone that could not be trained, or would tell nothing.

    Raises:
        RequestError: its setting cannot be, does not fit into memory, is its parent's, or has another
            adapter than the weights that it is to begin with.
    """
    initial = prepared.config.adapter.init_from
    made, own = parent.candidate, clone_of(prepared, parent, "clone", changes).candidate
    if not warm and (made.adapter, made.training) == (own.adapter, own.training):
        raise RequestError(f"that is {made.id} as it is", next="change a setting")
    before, after = asdict(made.adapter), asdict(own.adapter)
    begins = warm or own.start is not None
    if begins and (other := [key for key in after if key != FREE and after[key] != before[key]]):
        raise RequestError(
            f"it cannot begin with the weights of {made.id if warm else initial}: its adapter would be"
            " another"
            f" ({', '.join(other)})",
            next=f"leave adapter.{other[0]} as it is"
            + (", or begin with fresh weights" if initial is None else ""),
        )
    micro = {names.PER_DEVICE_TRAIN_BATCH_SIZE: own.training.per_device_train_batch_size}
    case = prepared.plan.case.assuming({**made.params, **changes, **micro})
    optimiser.check(case)
    needed = need(case, decided_shape(case.decided)).high
    if needed > case.memory_budget:
        raise RequestError(
            f"it would need {bytes_text(needed)} of memory, and the run may use"
            f" {bytes_text(case.memory_budget)}",
            next="choose a smaller rank or batch",
        )
