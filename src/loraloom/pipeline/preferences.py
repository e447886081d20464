"""What candidates that learn to prefer are held against in a run: the reference, with its
log-probabilities found once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.keys import asked_value, is_asked, keys
from loraloom.data.rows import Encoded, Example, Pair, sides_of
from loraloom.diagnose.already_preferred import already_preferred
from loraloom.evals.choices import TOKENS_A_PASS
from loraloom.evals.objective import Objective
from loraloom.evals.preference import PreferenceObjective
from loraloom.facts.remembered import cache_folder
from loraloom.facts.source import model_folder
from loraloom.facts.weights import weights_fingerprint
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import load_peft
from loraloom.lora.untrusted_adapter import adapter_folder
from loraloom.pipeline.beside import run_around
from loraloom.pipeline.initial_adapter import fingerprint_of
from loraloom.pipeline.joining import join_pairs
from loraloom.pipeline.prepare import Prepared
from loraloom.plan.preference import has_no_reference, is_reference_free
from loraloom.plan.rules.reference import BASE
from loraloom.records import Finding, PreferenceSpec
from loraloom.train.resume import params_of_plain

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
    join_pairs(objective, plan, data)
    examples = [*(() if free else data.train), *data.validation, *data.confirm]
    model = prepared.config.model
    folder = model_folder(model.name_or_path or "", model.revision)
    if folder is not None:
        made_of = (
            weights_fingerprint(folder),
            "" if adapter is None else fingerprint_of(adapter),
            str(packed.base_dtype),
            prepared.held,
        )
        objective.note = objective.reference.learn(examples, cache_folder() / FOLDER, made_of)
    return objective


def preferred_already(objective: Objective, prepared: Prepared) -> list[Finding]:
    """What the reference thinks of the pairs, from the log-probabilities that are known of them."""
    if not isinstance(objective, PreferenceObjective):
        return []
    data = prepared.data
    splits: dict[str, Sequence[Example]] = {"held-out": [*data.validation, *data.confirm]}
    if not objective.by_likelihood:
        splits = {"training": data.train, **splits}
    likelier = {name: _likelier(objective, examples) for name, examples in splits.items()}
    reference = prepared.plan.values()[names.REFERENCE]
    found = already_preferred(likelier, "the base" if reference == BASE else "the reference")
    return [found] if found else []


def _likelier(objective: PreferenceObjective, examples: Sequence[Example]) -> list[bool]:
    """Of each pair whether its chosen answer is likelier to the reference, as a whole and a token."""
    sides = sides_of(one for one in examples if isinstance(one, Pair))
    if not sides:
        return []
    logps_P2 = objective.reference.of(sides).reshape(-1, 2)
    tokens_P2 = logps_P2.new_tensor([side.supervised for side in sides]).reshape(-1, 2)
    each_P2 = logps_P2 / tokens_P2
    return ((logps_P2[:, 0] > logps_P2[:, 1]) & (each_P2[:, 0] > each_P2[:, 1])).tolist()


def spec_of(config: Config, folder: Path | None, data: Encoded) -> PreferenceSpec:
    """The loss that a saved adapter is scored with: as was asked, else as it was trained with, else what
    suits the rows.

    Args:
        folder: the adapter; None for the bare base.
    """
    usual: dict[str, Any] = {"loss_type": ("sigmoid",) if len(data.train[0].sides) > 1 else ("kto",)}
    trained = params_of_plain(_settings(folder))
    for key in (key for key in keys() if key.startswith("preference.") and key != names.REFERENCE):
        if is_asked(config, key):
            usual[key.rpartition(".")[2]] = asked_value(config, key)
        elif key in trained:
            usual[key.rpartition(".")[2]] = trained[key]
    return PreferenceSpec(**usual)


def held_against(
    base: Base, config: Config, folder: Path | None, data: Encoded, spec: PreferenceSpec
) -> PreferenceObjective:
    """The objective by which a saved adapter is scored, against what it was trained against. To be
    called before the adapter is loaded over the base."""
    place = config.preference.reference
    if place == "auto":
        place = _settings(folder).get(names.REFERENCE, BASE)
    reference = None if folder is None and place == BASE else base.model.eval()
    if place != BASE:
        copy = share_copy(base.model, own_biases=True)
        reference = load_peft(adapter_folder(place), copy).get_base_model()
    objective = PreferenceObjective(
        base.model,
        None,
        pad_id=base.pad_id,
        token_budget=TOKENS_A_PASS,
        reference=reference,
        by_likelihood=has_no_reference(spec.loss_type),
    )
    if reference is not None:
        objective.reference.of(data.train)
    return objective


def _settings(folder: Path | None) -> Mapping[str, Any]:
    """What the candidate was trained with whose adapter this is; empty where no run tells."""
    run = None if folder is None else run_around(folder)
    if run is None:
        return {}
    result = run.result()
    own = next((one for one in result.trials if one.adapter and run.path / one.adapter == folder), None)
    made = own or result.trial(result.best or "")
    return {} if made is None else made.settings
