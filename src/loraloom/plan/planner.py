"""From facts and request to a plan: every setting with its reason, a forecast, and
candidates to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.choices import UNIFORM
from loraloom.config.keys import asked_value, is_asked
from loraloom.errors import ConfigError, ModelError
from loraloom.facts.model import ModelFacts
from loraloom.lora.targets import resolve_pattern, resolve_targets, short_label
from loraloom.lora.workers import most_at_once
from loraloom.plan import engine, goals, preference, presets, ranks
from loraloom.plan.adjust import bent
from loraloom.plan.case import CONFIG, Case, Decided, Facts, target_linears
from loraloom.plan.initial_adapter import FOLDER, inherited
from loraloom.plan.memory import streamed
from loraloom.plan.memory_after_training import forecast_afterwards
from loraloom.plan.needs import (
    need,
    notes_on_codes,
    notes_on_device,
    notes_on_engine,
    notes_on_scoring,
    notes_on_streaming,
    notes_on_workers,
    packs_candidates,
    scoring_less,
)
from loraloom.plan.rules import (
    RULES,
    batch,
    checkpointing,
    max_length,
    optimiser,
    quantization,
    rank,
    rate,
    rules_of,
    streaming,
)
from loraloom.plan.shape import Shape, decided_shape
from loraloom.plan.time import forecast_time, trainings_of_search
from loraloom.plan.warnings import warnings_for
from loraloom.records import (
    AdapterSpec,
    Advice,
    Candidate,
    Estimate,
    PreferenceSpec,
    TrainingSpec,
)

__all__ = ["Facts", "Plan", "candidate", "make_plan", "search_caps"]

Spec = TypeVar("Spec", AdapterSpec, TrainingSpec, PreferenceSpec)

SEARCH_BATCH_CAP = 64
SEARCH_RANK_CAP = 128
LEAST_SEARCH_STEPS = 50
"""A batch so large that fewer steps than this remain is not worth a candidate."""


@dataclass(frozen=True)
class Plan:
    """Every value that a run uses, by dotted key, and what it will take."""

    settings: Decided
    forecast: Mapping[str, Estimate]
    """"memory" of the whole pack, "time" of the whole search; "memory_one" and "time_one" of one
    candidate alone; memory of what comes after, "generation" (where the task writes) and "export";
    "streamed" weights, where they are apart from memory."""
    warnings: tuple[str, ...]
    config: Config
    facts: Facts
    shape: Shape
    """What the forecast of memory is for: the whole pack, and how it is trained."""
    rank_weights: Mapping[str, Mapping[str, float]] | None = None
    """Weights of the layers by path, for each rank allocation that was measured; None before that."""
    notes: tuple[str, ...] = ()
    """What is worth knowing about the forecast, but no reason for a warning."""

    @property
    def case(self) -> Case:
        """What the plan was made for, with what it decided: the argument of forecasts."""
        return Case(self.facts, self.config, self.settings)

    def values(self) -> dict[str, Any]:
        """The value of every setting by dotted key."""
        return {key: advice.value for key, advice in self.settings.items()}

    @property
    def pack_size(self) -> int:
        """How many candidates train at once."""
        return self.settings.max_packed

    @property
    def trials(self) -> int:
        """How many candidates a search tries."""
        return self.settings.trials

    @property
    def seeds_for_finalists(self) -> int:
        """Over how many seeds the finalists race."""
        return self.settings.seeds_for_finalists

    @property
    def workers(self) -> int:
        """Passes that run at once: more than one keep the cores of a processor busy,
        where memory allows it."""
        return self.shape.workers

    @property
    def token_budget(self) -> int:
        """Padded tokens of one training pass; one candidate's micro-batch may exceed it."""
        return self.shape.budget(self.facts.device.kind)


def make_plan(config: Config, facts: Facts) -> Plan:
    """Decide every setting that the user left open; pure, nothing is read or written.

    Raises:
        ModelError: a target that matches nothing, a module to save that the model does not have.
        ConfigError: a length above the model's positions; a goal or preset that does not suit the task.
        MemoryBudgetError: nothing fits into the memory that was allowed.
    """
    case = Case(facts, config, Decided())
    presets.check(case)
    case = presets.completed(case)
    goals.check(case)
    max_length.check(case)
    checkpointing.check(case)
    preference.check(case)
    _check_modules(case)
    decided = case.decided
    decided["goal"] = goals.advise(case)
    decided["preset"] = presets.advise(case)
    for key in rules_of(facts.data.task):
        advice = _asked(case, key) if is_asked(case.asked, key) else _advised(case, key)
        decided[key] = inherited(case, key, advice) or advice
        if key == names.OPTIM:
            optimiser.check(case)
        if key == names.QUANTIZATION:
            quantization.check(case)
        if key == names.STREAMING:
            streaming.check(case)
    ranks.check(case)
    _check_fit(case)
    shape = _shape_of_pack(case)
    trainings = trainings_of_search(case)
    forecast = {
        "memory": need(case, shape),
        "memory_one": need(case, decided_shape(decided)),
        "time": forecast_time(
            case,
            trials=trainings / max(1, len(facts.workers)),
            packed=shape.packed,
            token_budget=shape.token_budget,
        ),
        "time_one": forecast_time(case),
        **forecast_afterwards(case),
    }
    if shape.streaming:
        forecast["streamed"] = streamed(case, shape)
    notes = (
        *notes_on_engine(case),
        *notes_on_codes(case),
        *notes_on_streaming(case, shape),
        *notes_on_scoring(case, shape),
        *notes_on_device(facts.device, decided.dtype),
        *notes_on_workers(case, forecast["memory"]),
        *ranks.notes_on_measuring(case),
    )
    return Plan(decided, forecast, warnings_for(case, forecast), case.asked, facts, shape, notes=notes)


def _shape_of_pack(case: Case) -> Shape:
    """How the pack is trained: in the faster ways that memory allows."""
    packed = case.decided.max_packed
    fast = case.asked.goal != "memory" and packs_candidates(case)
    workers = most_at_once(case.facts.device.kind, case.facts.device.threads) if fast else 1
    shape = decided_shape(case.decided, packed=packed, workers=workers)
    if need(case, shape).high > case.memory_budget:
        shape = replace(shape, workers=1)
    shape = scoring_less(case, shape)
    if shape.token_budget:
        return shape
    return replace(shape, token_budget=token_budget(case, shape))


def token_budget(case: Case, shape: Shape) -> int:
    """Tokens of a pass: the device's own number, and where memory allows as many as the
    whole pack of `shape` has."""
    kind = case.facts.device.kind
    least = engine.TOKEN_BUDGET[kind]
    wanted = min(
        engine.MOST_TOKENS[kind],
        shape.packed * shape.of_sides(case.facts.data.sides).micro_batch * shape.length,
    )
    while wanted > least and need(case, replace(shape, token_budget=wanted)).high > case.memory_budget:
        wanted //= 2
    return max(wanted, least)


def candidate(plan: Plan, id: str, params: Mapping[str, Any], seed_offset: int = 0) -> Candidate:
    """The plan's setting with `params` (dotted key -> value) over it.

    A batch larger than the plan's own is split into micro-batches that give the same gradient: a
    search's largest batch takes no more memory than was forecast. `seed_offset` makes another seed of
    the same setting.

    Raises:
        ConfigError: a key that no candidate has.
        ModelError: targets that match nothing.
    """
    values = {**plan.values(), **params}
    unknown = [key for key in params if key not in plan.settings and key != names.AUGMENT]
    if unknown:
        raise ConfigError(
            f"`{unknown[0]}` is not a setting of a candidate",
            need="a dotted key of `adapter` or `training`",
            next=f"leave `{unknown[0]}` out of the candidate",
        )
    adapter = _section(values, "adapter")
    training = _section(values, "training")
    whole = tuple(adapter["modules_to_save"])
    targets = resolve_targets(plan.facts.model.linears, adapter["target_modules"], modules_to_save=whole)
    adapter |= {"modules_to_save": whole, "target_modules": targets}
    for name in ("rank_pattern", "alpha_pattern"):
        adapter[name] = resolve_pattern(targets, adapter[name], key=f"adapter.{name}")
    if adapter["rank_allocation"] != UNIFORM:
        linears = target_linears(plan.facts.model, targets, whole)
        adapter |= ranks.patterns(linears, adapter, plan.rank_weights)
    micro = params.get(names.PER_DEVICE_TRAIN_BATCH_SIZE, 0)
    if micro > plan.settings.micro_batch:
        training |= _split(plan, micro * values[names.GRADIENT_ACCUMULATION_STEPS])
    training["seed"] += seed_offset
    if formed := _section(values, "preference"):
        training["preference"] = _only(PreferenceSpec, formed)
    training["replay_share"] = values[names.REPLAY_SHARE]
    start = None if plan.facts.initial is None else FOLDER
    return Candidate(id, _only(AdapterSpec, adapter), _only(TrainingSpec, training), dict(params), start)


def search_caps(plan: Plan) -> dict[str, float]:
    """The largest value that a search should try, by dotted key: rate, rank and batch."""
    model, settings = plan.facts.model, plan.settings
    rows = plan.facts.data.rows * settings.epochs
    most = min(SEARCH_BATCH_CAP, max(4, rows / LEAST_SEARCH_STEPS))
    # A number of steps that was asked for stays, whatever the batch: no batch leaves too few of them.
    batch_cap = SEARCH_BATCH_CAP if plan.config.training.max_steps else most
    return {
        names.LEARNING_RATE: rate.rate_cap(model, settings[names.LEARNING_RATE].value),
        names.R: float(min(SEARCH_RANK_CAP, rank.width_cap(model))),
        names.PER_DEVICE_TRAIN_BATCH_SIZE: max(1.0, batch_cap / settings.accumulation),
    }


def _advised(case: Case, key: str) -> Advice:
    """What the rule says, as the goal and then the preset bend it."""
    goal, preset = case.asked.goal, case.asked.preset
    advice = bent(RULES[key](case), f"goal {goal}", goals.GOALS[goal].bends.get(key), case)
    if preset is None:
        return advice
    return bent(advice, f"preset {preset}", presets.PRESETS[preset].bends.get(key), case)


def _asked(case: Case, key: str) -> Advice:
    model = case.facts.model
    value = asked_value(case.asked, key)
    reason = "you asked"
    if key == names.MODULES_TO_SAVE:
        value = tuple(path for name in value for path in _module_paths(model, name))
    if key == names.TARGET_MODULES:
        chosen = target_linears(model, value, case.decided.modules_to_save)
        reason = (
            f"you asked: {len(chosen)} layers,"
            f" {short_label((linear.path for linear in chosen), model.linears)}"
        )
    return Advice(value, reason, CONFIG)


def _module_paths(model: ModelFacts, name: str) -> list[str]:
    return [path for path in model.modules if path == name or path.endswith(f".{name}")]


def _check_modules(case: Case) -> None:
    model = case.facts.model
    asked = case.asked.adapter.modules_to_save
    absent = [name for name in asked if not _module_paths(model, name)] if asked != "auto" else []
    if absent:
        beside = [path for path in model.modules if "." not in path]
        raise ModelError(
            f"`adapter.modules_to_save` names `{absent[0]}`, which {model.architecture} does not have",
            got=f"at its top: {', '.join(beside)}",
            need="names or paths of modules with parameters",
            next="leave `adapter.modules_to_save` out: a new classification head is found by itself",
        )


def _check_fit(case: Case) -> None:
    """What the user fixed may not fit even where the rules, left free, would have found something."""
    if need(case, decided_shape(case.decided)).high > case.memory_budget:
        fits = batch.largest_micro_batch(case, case.decided.micro_batch)
        raise batch.micro_batch_too_large(case, fits)


def _split(plan: Plan, rows: int) -> dict[str, int]:
    """Micro-batch and accumulation for a step of exactly `rows` rows, in passes no larger than those
    that the forecast is for."""
    case = plan.case
    most = max(case.decided.micro_batch, plan.token_budget // case.decided.length)
    equal = (micro for micro in range(min(rows, most), 0, -1) if rows % micro == 0)
    fits = (
        m for m in equal if need(case, replace(plan.shape, micro_batch=m)).high <= case.memory_budget
    )
    micro = next(fits, 1)
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": rows // micro}


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        key.removeprefix(f"{name}."): value
        for key, value in values.items()
        if key.startswith(f"{name}.")
    }


def _only(spec: type[Spec], values: Mapping[str, Any]) -> Spec:
    return spec(**{field.name: values[field.name] for field in fields(spec) if field.name in values})
