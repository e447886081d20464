"""From facts and request to a plan: every setting with its reason, a forecast, and
candidates to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from loraloom.config.asked import Config
from loraloom.errors import ConfigError, ModelError
from loraloom.lora.targets import resolve_pattern, resolve_targets, short_label
from loraloom.lora.workers import most_at_once
from loraloom.plan import engine, goals, presets
from loraloom.plan.adjust import Case, bent
from loraloom.plan.inputs import CONFIG, Facts, asked_value, is_asked, memory_budget, target_linears
from loraloom.plan.memory import Shape, decided_shape, prepacks
from loraloom.plan.memory_after_training import forecast_afterwards
from loraloom.plan.needs import need, notes_on_device, notes_on_engine, packs_candidates
from loraloom.plan.rules import RULES, batch, max_length, rank, rate
from loraloom.plan.time import forecast_time, trainings_of_search
from loraloom.plan.warnings import warnings_for
from loraloom.records import AdapterSpec, Advice, Candidate, Estimate, TrainingSpec

__all__ = ["Facts", "Plan", "candidate", "make_plan", "search_caps"]

Spec = TypeVar("Spec", AdapterSpec, TrainingSpec)

SEARCH_BATCH_CAP = 64
SEARCH_RANK_CAP = 128
LEAST_SEARCH_STEPS = 50
"""A batch so large that fewer steps than this remain is not worth a candidate."""


@dataclass(frozen=True)
class Plan:
    """Every value that a run uses, by dotted key, and what it will take."""

    settings: Mapping[str, Advice]
    forecast: Mapping[str, Estimate]
    """"memory" of the whole pack, "time" of the whole search; "memory_one" and "time_one" of one
    candidate alone; memory of what comes after, "generation" (where the task writes) and "export"."""
    warnings: tuple[str, ...]
    config: Config
    facts: Facts
    shape: Shape
    """What the forecast of memory is for: the whole pack, and how it is trained."""
    notes: tuple[str, ...] = ()
    """What is worth knowing about the forecast, and is nothing to be warned of."""

    def values(self) -> dict[str, Any]:
        """The value of every setting by dotted key."""
        return {key: advice.value for key, advice in self.settings.items()}

    @property
    def pack_size(self) -> int:
        """How many candidates train at once."""
        return self.settings["limits.max_packed"].value

    @property
    def trials(self) -> int:
        """How many candidates a search tries."""
        return self.settings["search.trials"].value

    @property
    def seeds_for_finalists(self) -> int:
        """Over how many seeds the finalists race."""
        return self.settings["search.seeds_for_finalists"].value

    @property
    def prepack(self) -> bool:
        """Whether frozen weights are laid out anew for faster products, at the memory
        of "layouts" in the forecast."""
        return self.shape.prepack

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
    presets.check(facts, config)
    config = presets.completed(config, facts)
    goals.check(facts, config)
    max_length.check(facts, config)
    _check_modules(facts, config)
    decided = {"goal": goals.advise(config), "preset": presets.advise(config)}
    for key in RULES:
        decided[key] = (
            _asked(config, facts, decided, key)
            if is_asked(config, key)
            else _advised(config, facts, decided, key)
        )
    _check_fit(config, facts, decided)
    shape = _shape_of_pack(config, facts, decided)
    time = forecast_time(
        facts,
        config,
        decided,
        trials=trainings_of_search(config, decided),
        packed=shape.packed,
        token_budget=shape.token_budget,
    )
    forecast = {
        "memory": need(config, facts, decided, shape),
        "memory_one": need(config, facts, decided, decided_shape(decided, prepack=shape.prepack)),
        "time": time,
        "time_one": forecast_time(facts, config, decided),
        **forecast_afterwards(facts, decided),
    }
    warnings = warnings_for(facts, config, decided, forecast)
    notes = (
        *notes_on_engine(config, facts),
        *notes_on_device(facts.device, decided["model.dtype"].value),
    )
    return Plan(decided, forecast, warnings, config, facts, shape, notes)


def _shape_of_pack(config: Config, facts: Facts, decided: Mapping[str, Advice]) -> Shape:
    """How the pack is trained: in the faster ways that memory allows."""
    packed, budget = decided["limits.max_packed"].value, memory_budget(facts, config)
    fast = config.goal != "memory" and packs_candidates(config)
    prepack = fast and prepacks(facts, decided, decided_shape(decided, packed=packed), budget)
    workers = most_at_once(facts.device.kind, facts.device.threads) if fast else 1
    shape = decided_shape(decided, packed=packed, prepack=prepack, workers=workers)
    if need(config, facts, decided, shape).high > budget:
        shape = replace(shape, workers=1)
    return replace(shape, token_budget=token_budget(config, facts, decided, shape))


def token_budget(config: Config, facts: Facts, decided: Mapping[str, Advice], shape: Shape) -> int:
    """Tokens of a pass: the device's own number, and where memory allows as many as the
    whole pack of `shape` has."""
    least, most = (numbers[facts.device.kind] for numbers in (engine.TOKEN_BUDGET, engine.MOST_TOKENS))
    wanted, budget = (
        min(most, shape.packed * shape.micro_batch * shape.length),
        memory_budget(facts, config),
    )
    while (
        wanted > least
        and need(config, facts, decided, replace(shape, token_budget=wanted)).high > budget
    ):
        wanted //= 2
    return max(wanted, least)


def candidate(plan: Plan, id: str, params: Mapping[str, Any], seed_offset: int = 0) -> Candidate:
    """The plan's setting with `params` (dotted key -> value) over it, ready for a slot.

    A batch larger than the plan's own is split into micro-batches that give the same gradient: a
    search's largest batch takes no more memory than was forecast. `seed_offset` makes another seed of
    the same setting.

    Raises:
        ConfigError: a key that no candidate has.
        ModelError: targets that match nothing.
    """
    values = {**plan.values(), **params}
    unknown = [key for key in params if key not in plan.settings]
    if unknown:
        raise ConfigError(
            f"`{unknown[0]}` is not a setting of a candidate",
            need="a dotted key of `adapter` or `training`",
        )
    adapter, training = _section(values, "adapter"), _section(values, "training")
    adapter["modules_to_save"] = whole = tuple(adapter["modules_to_save"])
    adapter["target_modules"] = resolve_targets(
        plan.facts.model.linears, adapter["target_modules"], modules_to_save=whole
    )
    for name in ("rank_pattern", "alpha_pattern"):
        adapter[name] = resolve_pattern(adapter["target_modules"], adapter[name], key=f"adapter.{name}")
    batch_key = "training.per_device_train_batch_size"
    if params.get(batch_key, 0) > plan.settings[batch_key].value:
        training |= _split(plan, params[batch_key] * values["training.gradient_accumulation_steps"])
    training["seed"] += seed_offset
    return Candidate(id, _only(AdapterSpec, adapter), _only(TrainingSpec, training), dict(params))


def search_caps(plan: Plan) -> dict[str, float]:
    """The largest value that a search should try, by dotted key: rate, rank and batch."""
    facts, settings = plan.facts, plan.settings
    value = settings["training.learning_rate"].value
    steps = plan.config.training.max_steps
    rows = facts.data.rows * settings["training.num_train_epochs"].value
    most = SEARCH_BATCH_CAP if steps else min(SEARCH_BATCH_CAP, max(4, rows / LEAST_SEARCH_STEPS))
    windows = settings["training.gradient_accumulation_steps"].value
    return {
        "training.learning_rate": rate.rate_cap(facts, value),
        "adapter.r": float(min(SEARCH_RANK_CAP, rank.width_cap(facts))),
        "training.per_device_train_batch_size": max(1.0, most / windows),
    }


def _advised(config: Config, facts: Facts, decided: Mapping[str, Advice], key: str) -> Advice:
    """What the rule says, as the goal and then the preset bend it."""
    advice, case = RULES[key](facts, config, decided), Case(facts, config, decided)
    advice = bent(advice, f"goal {config.goal}", goals.GOALS[config.goal].bends.get(key), case)
    if config.preset is None:
        return advice
    return bent(advice, f"preset {config.preset}", presets.PRESETS[config.preset].bends.get(key), case)


def _asked(config: Config, facts: Facts, decided: Mapping[str, Advice], key: str) -> Advice:
    value = asked_value(config, key)
    if key == "adapter.modules_to_save":
        value = tuple(path for name in value for path in _module_paths(facts, name))
    reason = "you asked"
    if key == "adapter.target_modules":
        chosen = target_linears(facts, value, decided["adapter.modules_to_save"].value)
        reason = (
            f"you asked: {len(chosen)} layers,"
            f" {short_label((linear.path for linear in chosen), facts.model.linears)}"
        )
    return Advice(value, reason, CONFIG)


def _module_paths(facts: Facts, name: str) -> list[str]:
    return [path for path in facts.model.modules if path == name or path.endswith(f".{name}")]


def _check_modules(facts: Facts, config: Config) -> None:
    asked = config.adapter.modules_to_save
    absent = [name for name in asked if not _module_paths(facts, name)] if asked != "auto" else []
    if absent:
        beside = [path for path in facts.model.modules if "." not in path]
        raise ModelError(
            f"`adapter.modules_to_save` names `{absent[0]}`, which {facts.model.architecture} does not"
            " have",
            got=f"at its top: {', '.join(beside)}",
            need="names or paths of modules with parameters",
            next="leave `adapter.modules_to_save` out: a new classification head is found by itself",
        )


def _check_fit(config: Config, facts: Facts, decided: Mapping[str, Advice]) -> None:
    """What the user fixed may not fit even where the rules, left free, would have found something."""
    if need(config, facts, decided, decided_shape(decided)).high > memory_budget(facts, config):
        fits = batch.largest_micro_batch(facts, config, decided, decided[batch.KEY].value)
        raise batch.micro_batch_too_large(facts, config, decided, fits)


def _split(plan: Plan, rows: int) -> dict[str, int]:
    """Micro-batch and accumulation for a step of exactly `rows` rows, in passes no larger than those
    that the forecast is for."""
    own, length = (plan.settings[key].value for key in (batch.KEY, "data.max_length"))
    most, budget = max(own, plan.token_budget // length), memory_budget(plan.facts, plan.config)
    equal = [micro for micro in range(min(rows, most), 0, -1) if rows % micro == 0]
    fits = (
        m
        for m in equal
        if need(plan.config, plan.facts, plan.settings, _with_micro(plan, m)).high <= budget
    )
    micro = next(fits, 1)
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": rows // micro}


def _with_micro(plan: Plan, micro: int) -> Shape:
    return replace(plan.shape, micro_batch=micro)


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        key.removeprefix(f"{name}."): value
        for key, value in values.items()
        if key.startswith(f"{name}.")
    }


def _only(spec: type[Spec], values: Mapping[str, Any]) -> Spec:
    return spec(**{field.name: values[field.name] for field in fields(spec) if field.name in values})
