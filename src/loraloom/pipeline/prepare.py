"""From the request to everything that is known and decided before training: facts,
rows, plan. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.data.augment import augmentations
from loraloom.data.diversity import Diversity, diversity_of
from loraloom.data.duplicates import refuse_duplicates
from loraloom.data.encode import Encoded, Row, encode
from loraloom.data.form_template import form_template
from loraloom.data.recognise import Recognised
from loraloom.data.rows import Example
from loraloom.data.split import Splits, split
from loraloom.errors import ConfigError, RequestError
from loraloom.facts.data import DataFacts, data_facts
from loraloom.facts.device import MODELS, DeviceFacts
from loraloom.facts.model import ModelFacts, model_facts, require_weights
from loraloom.lora.base import Base, load_base, load_tokenizer
from loraloom.lora.quantised import bitsandbytes
from loraloom.lora.quantised_loading import kind_of_stored, stored_in
from loraloom.lora.untrusted_adapter import tokenizer_home
from loraloom.pipeline.classes import classes_to_score, classes_to_train, refuse_unlabelled
from loraloom.pipeline.initial_adapter import initial_folder, read_initial
from loraloom.pipeline.mixing import facts_with_sources
from loraloom.pipeline.places import for_one, machine
from loraloom.pipeline.preflight import foretold, refuse_faults
from loraloom.pipeline.preflight.bits import require_codes, require_moments
from loraloom.pipeline.preflight.pairs import told
from loraloom.pipeline.preflight.subject import Subject
from loraloom.pipeline.replayed import (
    Replay,
    ReplayTables,
    encode_replay,
    read_replay,
    replay_beside,
)
from loraloom.pipeline.retained import retained_rows
from loraloom.pipeline.rewards import as_rewards, why_rewards
from loraloom.pipeline.trackers import require_trackers
from loraloom.pipeline.training_rows import training_rows
from loraloom.pipeline.variants import Variants, variants_of
from loraloom.plan.needs import notes_on_augmentation
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.records import Task, built_as
from loraloom.search.history import PastSearch


@dataclass
class Prepared:
    """A request whose every part was read and found good."""

    config: Config
    facts: Facts
    plan: Plan
    data: Encoded
    recognised: Recognised
    tokenizer: Any
    retain: tuple[Row, ...] = ()
    """Rows of `data.retain`, or held out from those that are replayed: never trained on."""
    replay: tuple[Row, ...] = ()
    """Rows that are trained on beside the task's own."""
    past: tuple[PastSearch, ...] = ()
    """Earlier searches on this base, the latest first."""
    diversity: Diversity | None = None
    """How varied the rows are, where that was asked for."""
    variants: tuple[Variants, ...] = ()
    """Changed copies of the training rows."""

    @property
    def task(self) -> Task:
        return self.data.task

    @property
    def trained(self) -> tuple[Example, ...]:
        """All rows that any candidate may train on: the task's own, then those that are replayed."""
        return (*self.data.train, *self.replay)

    @property
    def held(self) -> str:
        """In which bits the base is trained over: as `Base.held`, without loading it."""
        model = self.facts.model
        stored = stored_in(model.config) if model.prequantized else None
        return (
            self.plan.settings.quantization if stored is None else kind_of_stored(model.config, stored)
        )

    def load_base(self, device: str | None = None) -> Base:
        """The frozen model, in the dtype that the plan chose. Where it has no chat template, its
        tokenizer gets one that writes the form of these rows: it is saved beside each adapter.

        Args:
            device: None for the one that trains.
        """
        model = self.config.model
        values = self.plan.values()
        base = load_base(
            required_model(self.config),
            built_as(self.data.task),
            label_names=self.data.label_names,
            dtype=values[names.DTYPE],
            seed=self.config.training.seed,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            attn_implementation=values[names.ATTN_IMPLEMENTATION],
            device=device or self.facts.device.kind,
            quantization=values[names.QUANTIZATION],
            streaming=values[names.STREAMING],
        )
        if self.facts.initial is not None:
            base.read_with(self.tokenizer)
        if built_as(self.task) == "causal_lm" and not base.tokenizer.chat_template:
            # answers that are compared stand behind their prompts as completions do
            form = "prompt_completion" if self.task == "preference" else self.recognised.format
            base.tokenizer.chat_template = form_template(form, base.tokenizer)
        return base


def required_model(config: Config) -> str:
    """The model's name or folder.

    Raises:
        ConfigError: none was given.
    """
    if config.model.name_or_path is None:
        raise ConfigError(
            "no base model was given", need="a hub name or a local folder", next="--model NAME_OR_FOLDER"
        )
    return config.model.name_or_path


def prepare(
    config: Config,
    *,
    weights: bool = True,
    race: bool = False,
    free_bytes: int | None = None,
    trials: int | None = None,
    device: DeviceFacts | None = None,
    workers: Sequence[str] = (),
    diversity: bool = False,
) -> Prepared:
    """Read model, data and device, encode the data, decide every open value.

    Args:
        race: for a search, which may keep validation rows for its race (`data.split`).
        free_bytes: plan as if this much of the device's memory were free; None for what is.
        trials: plan a search of so many candidates, where the request leaves it open;
            None for the rule's.
        device: plan for it; None for the one that is here, and the workers that are asked for.
        workers: where each of them is, with a device that is one worker's.
        diversity: look at how varied the rows are: seconds, of many rows.

    With `weights`, as for training, whatever `loraloom check` finds without running the model is
    refused. Without them, what of that goes by the rows alone is a warning of the plan.

    Raises:
        RequestError: anything about the request that cannot work; nothing was started.
    """
    read = read_request(config, weights=weights, race=race)
    data = read.encoded()
    if weights:
        _load_libraries(config)
    if device is None:
        device, workers = machine(config if race else for_one(config))
    if free_bytes is not None:
        device = replace(device, free_bytes=free_bytes)
    replayed = encode_replay(read.replay, data, read.tokenizer) if read.replay else None
    counted = facts_with_sources(config.data, data_facts(data), data, replayed)
    facts = read.facts(data, counted, device, workers)
    plan = make_plan(
        config if trials is None else replace(config, search=replace(config.search, trials=trials)),
        facts,
    )
    if weights:
        require_codes(facts.model, plan.settings.quantization, device.kind)
        require_moments(plan.case)
    cut = data.cut(plan.settings.length)
    subject = Subject(config, facts, plan, read.splits, read.recognised, read.tokenizer, data, cut)
    if weights:
        refuse_faults(subject)
        found = told(subject)
    else:
        found = (*foretold(subject), *told(subject))
    plan = replace(plan, warnings=(*found, *plan.warnings))
    length = plan.settings.length
    retain = retained_rows(config, data, read.tokenizer, length)
    replay = replay_beside(replayed.cut(length), cut, retain) if replayed else Replay()
    augmented = notes_on_augmentation(plan.case, race=race)
    plan = replace(plan, notes=(*plan.notes, *augmented, *replay.notes))
    retain = retain or replay.held_out
    prepared = Prepared(config, facts, plan, cut, read.recognised, read.tokenizer, retain, replay.rows)
    if config.data.augment:
        prepared.variants = _variants(read, data, plan, race=race, weights=weights)
    if diversity:
        seed = config.training.seed
        prepared.diversity = diversity_of(read.splits, read.recognised, data, seed)
    return prepared


def _variants(
    read: Read, whole: Encoded, plan: Plan, *, race: bool, weights: bool
) -> tuple[Variants, ...]:
    """Changed copies of the training rows; without weights, only a look at whether there can be any."""
    asked = augmentations(read.config.data.augment, read.recognised)
    if not race and len(asked) > 1:
        raise ConfigError(
            f"`data.augment` names {len(asked)} augmentations, and `train` trains one adapter",
            need="one of them; `tune` trains with each and compares",
            next="loraloom tune, or leave one",
        )
    if not weights:
        return ()
    return variants_of(
        asked,
        read.recognised,
        read.splits.train,
        read.tokenizer,
        lambda table: replace(read, splits=Splits(table)).encoded(),
        whole,
        length=plan.settings.length,
        epochs=plan.settings.epochs,
        seed=read.config.training.seed,
    )


def _load_libraries(config: Config) -> None:
    """Load what a base is made with, so that what it takes is measured and not estimated."""
    import_module(MODELS)
    if config.model.quantization not in ("none", "auto"):
        bitsandbytes()


@dataclass(frozen=True)
class Read:
    """A request as it was read: the model's description, tables, tokenizer. Nothing is
    encoded or decided yet."""

    config: Config
    model: ModelFacts
    splits: Splits
    recognised: Recognised
    tokenizer: Any
    replay: ReplayTables | None = None

    def encoded(self) -> Encoded:
        """Every split as token ids, untruncated. Errors as in `encode`."""
        task = self.recognised.task
        same = self.model.task == built_as(task)
        model = self.model if same else describe(self.config, task)
        folder = initial_folder(self.config)
        known = (
            classes_to_train(self.config, model)
            if folder is None
            else classes_to_score(self.config, model, folder)
        )
        also = self.replay.labels if self.replay else ()
        return encode(self.splits, self.recognised, self.tokenizer, task, known, also)

    def facts(
        self,
        data: Encoded | None,
        described: DataFacts,
        device: DeviceFacts,
        workers: Sequence[str] = (),
    ) -> Facts:
        """What a plan is made for.

        Raises:
            ModelError, ConfigError: the adapter that the run is to begin with does not suit it.
        """
        model = self.model_for(data)
        initial = read_initial(self.config, model, data.task if data else self.recognised.task)
        return Facts(model, described, device, tuple(workers), initial)

    def model_for(self, data: Encoded | None) -> ModelFacts:
        """The model described once more, for the task and the classes that the data
        turned out to have."""
        task = data.task if data else self.recognised.task
        if built_as(task) != "seq_cls" and self.model.task == built_as(task):
            return self.model
        names = data.label_names if data else None
        described = describe(self.config, task, len(names) if names else None)
        known = self.model.classes
        same = names == known or (task == "reward" and len(known) == 1)
        return replace(described, classes=known if same else ())


def read_request(config: Config, *, weights: bool = True, race: bool = False) -> Read:
    """Read what the request names. Arguments as in `prepare`.

    Raises:
        RequestError: it cannot be read.
    """
    required_model(config)
    asked = config.data
    if asked.train is None:
        raise ConfigError(
            "no training data was given",
            need="a file, a folder or a hub name",
            next="--data train.jsonl",
        )
    refuse_unbuilt(config, trains=weights)
    model = describe(config, None if config.task == "auto" else config.task)
    if model.prequantized and config.engine == "packed":
        stored_in(model.config)  # refuses codes that nothing here reads
    if weights:
        model = require_weights(model)
    table, recognised = training_rows(config, encoder_decoder=model.kind == "encoder_decoder")
    why = why_rewards(model, initial_folder(config))
    recognised = as_rewards(recognised, table, config.task, why)
    refuse_unlabelled(model, table, recognised)
    replay = read_replay(config, recognised.task)
    splits = split(
        table,
        asked.validation,
        asked.test,
        recognised,
        group_column=asked.group_column,
        seed=config.training.seed,
        race=race,
    )
    refuse_duplicates(splits, recognised)
    home = tokenizer_home(initial_folder(config), required_model(config))
    own = home == required_model(config)
    tokenizer = load_tokenizer(
        home,
        revision=config.model.revision if own else None,
        trust_remote_code=config.model.trust_remote_code,
    )
    return Read(config, model, splits, recognised, tokenizer, replay)


def describe(config: Config, task: Task | None, num_labels: int | None = None) -> ModelFacts:
    """The request's model, for a task. Errors as in `model_facts`."""
    return model_facts(
        required_model(config),
        revision=config.model.revision,
        trust_remote_code=config.model.trust_remote_code,
        task=None if task is None else built_as(task),
        num_labels=num_labels,
    )


SHARES = {"seq_cls": "accuracy", "preference": "reward_accuracy", "reward": "reward_accuracy"}
"""What the share that is right is called, where it is not that of tokens."""
BY_SHARE = ("seq_cls", "preference")
"""Tasks that are decided by it. Losses of preferences with other betas cannot be compared; those of
reward models can, and tell two of them apart in fewer pairs than it takes to count what is right."""


def share_of(task: str) -> str:
    """Name of the metric that counts what is right."""
    return SHARES.get(task, "token_accuracy")


def deciding_metric(asked: str, task: str) -> tuple[str, Any]:
    """(name without its split, direction) of the metric that decides.

    Raises:
        ConfigError: a metric that the task does not have.
    """
    share = share_of(task)
    name = asked.removeprefix("validation_")
    if name == "auto":
        name = share if task in BY_SHARE else "loss"
    if name not in ("loss", share):
        raise ConfigError(
            f"`search.metric` is {asked}",
            need=f"auto, validation_loss or validation_{share} for {task}",
            next="leave it auto",
        )
    return name, "minimize" if name == "loss" else "maximize"


def refuse_unbuilt(config: Config, *, trains: bool = True) -> None:
    """Say no, before any work, to what the config can name and this release cannot do."""
    if config.engine == "peft" and trains:
        raise RequestError(
            "`engine: peft` is a mode of the forecast, not a trainer", next="leave engine out: packed"
        )
    if config.data.packing is True:
        raise RequestError(
            "`data.packing: true` is not possible here",
            got="dense attention, in which rows that share a sequence would read each other",
            next="leave it auto: rows are grouped by length, so little is padded",
        )
    require_trackers(config.report_to)
