"""From the request to everything that is known and decided before training: facts, rows, plan. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from loraloom.config.asked import Config
from loraloom.data.encode import Encoded, encode
from loraloom.data.load import load_table
from loraloom.data.recognise import Recognised, recognise
from loraloom.data.split import split
from loraloom.errors import ConfigError, RequestError
from loraloom.facts.data import data_facts
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts, require_weights
from loraloom.lora.base import Base, load_base, load_tokenizer
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.records import Task


@dataclass
class Prepared:
    """A request whose every part was read and found good."""

    config: Config
    facts: Facts
    plan: Plan
    data: Encoded
    recognised: Recognised
    tokenizer: Any

    @property
    def task(self) -> Task:
        return self.data.task

    def load_base(self) -> Base:
        """The frozen model, in the dtype that the plan chose."""
        model, values = self.config.model, self.plan.values()
        return load_base(
            required_model(self.config),
            self.data.task,
            label_names=self.data.label_names,
            dtype=values["model.dtype"],
            seed=self.config.training.seed,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            attn_implementation=values["model.attn_implementation"],
            device=self.facts.device.kind,
        )


def required_model(config: Config) -> str:
    """The model's name or folder.

    Raises:
        ConfigError: none was given.
    """
    if config.model.name_or_path is None:
        raise ConfigError("no base model was given", need="a hub name or a local folder", next="--model NAME_OR_FOLDER")
    return config.model.name_or_path


def prepare(config: Config, *, weights: bool = True) -> Prepared:
    """Read model, data and device, encode the data, decide every open value.

    Raises:
        RequestError: anything about the request that cannot work; nothing was started.
    """
    name = required_model(config)
    if config.data.train is None:
        raise ConfigError("no training data was given", need="a file, a folder or a hub name", next="--data train.jsonl")
    refuse_unbuilt(config)
    asked_task = None if config.task == "auto" else config.task
    describe = partial(
        model_facts, name, revision=config.model.revision, trust_remote_code=config.model.trust_remote_code
    )  # fmt: skip
    model = describe(task=asked_task)
    if weights:
        model = require_weights(model)
    data, recognised, tokenizer = read_data(config, model)
    if data.task == "seq_cls" or model.task != data.task:
        model = describe(task=data.task, num_labels=len(data.label_names) if data.label_names else None)
    facts = Facts(model=model, data=data_facts(data), device=device_facts())
    plan = make_plan(config, facts)
    return Prepared(config, facts, plan, data.cut(plan.values()["data.max_length"]), recognised, tokenizer)


def read_data(config: Config, model: ModelFacts) -> tuple[Encoded, Recognised, Any]:
    """Load, recognise, split and encode, untruncated."""
    asked = config.data
    assert asked.train is not None
    table = load_table(asked.train, max_rows=asked.max_rows, seed=config.training.seed)
    recognised = recognise(table, asked, config.task, encoder_decoder=model.kind == "encoder_decoder")
    splits = split(table, asked.validation, asked.test, recognised, seed=config.training.seed)
    tokenizer = load_tokenizer(
        required_model(config), revision=config.model.revision, trust_remote_code=config.model.trust_remote_code
    )
    return encode(splits, recognised, tokenizer, recognised.task), recognised, tokenizer


def refuse_unbuilt(config: Config) -> None:
    """Say no, before any work, to what the config can name and this release cannot do."""
    if config.engine == "peft":
        raise RequestError("`engine: peft` is a mode of the forecast, not a trainer", next="leave engine out: packed")
    if config.data.packing is True:
        raise RequestError(
            "`data.packing: true` is not possible here",
            got="dense attention, in which rows that share a sequence would read each other",
            next="leave it auto: rows are grouped by length, so little is padded",
        )
    if config.model.quantization not in ("auto", "none"):
        raise RequestError(
            f"`model.quantization: {config.model.quantization}` needs a CUDA device and bitsandbytes", next="leave it auto"
        )
    if config.report_to:
        raise RequestError(f"`report_to: {', '.join(config.report_to)}` is not connected yet", next="leave it empty")
