"""What candidates that learn to prefer are held against in a run: the reference, with its
log-probabilities found once."""

from __future__ import annotations

from loraloom.config import names
from loraloom.data.rows import sides_of
from loraloom.evals.preference import PreferenceObjective
from loraloom.facts.remembered import cache_folder
from loraloom.facts.source import model_folder
from loraloom.facts.weights import weights_fingerprint
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import load_peft
from loraloom.lora.untrusted_adapter import adapter_folder
from loraloom.pipeline.initial_adapter import fingerprint_of
from loraloom.pipeline.prepare import Prepared
from loraloom.plan.preference import is_reference_free
from loraloom.plan.rules.reference import BASE

FOLDER = "reference"
"""In the cache folder of loraloom: log-probabilities that earlier runs have found."""


def preference_objective(prepared: Prepared, base: Base, packed: PackedModel) -> PreferenceObjective:
    """The objective of a run of preferences; it knows what the reference makes of the rows that the run
    trains and chooses on.

    Raises:
        ModelError: the reference is no adapter of this base.
    """
    plan = prepared.plan
    place = plan.values()[names.REFERENCE]
    adapter = None if place == BASE else adapter_folder(place)
    reference = None
    if adapter is not None:
        reference = load_peft(adapter, share_copy(base.model, own_biases=True)).get_base_model()
    free = is_reference_free(plan.case)
    objective = PreferenceObjective(
        base.model,
        packed,
        pad_id=base.pad_id,
        token_budget=plan.token_budget,
        reference=reference,
        by_likelihood=free,
    )
    data = prepared.data
    rows = sides_of([*(() if free else data.train), *data.validation, *data.confirm])
    model = prepared.config.model
    folder = model_folder(model.name_or_path or "", model.revision)
    if folder is not None:
        made_of = (
            weights_fingerprint(folder),
            "" if adapter is None else fingerprint_of(adapter),
            str(packed.base_dtype),
            prepared.held,
        )
        objective.note = objective.reference.learn(rows, cache_folder() / FOLDER, made_of)
    return objective
