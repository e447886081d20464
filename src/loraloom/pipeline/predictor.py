"""Labels or answers for rows that need have neither: how an adapter, or a bare base, reads and answers
them, as many rows at a time as are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loraloom.config.asked import Config
from loraloom.data.classes import Known
from loraloom.data.encode import encode
from loraloom.data.gaps import (
    BLANK,
    filled,
    recognise_scored,
    recognise_unanswered,
    without_verdicts,
)
from loraloom.data.recognise import Recognised, check
from loraloom.data.rows import Example, Pair, Row, sides_of
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.data.tokens import document_end, frame_of
from loraloom.errors import ConfigError, ModelError
from loraloom.evals.choices import by_length, class_probabilities
from loraloom.evals.reward import rewards_of
from loraloom.evals.writing import continuations, exercise, of_one_length, position_limit
from loraloom.facts.device import device_facts
from loraloom.facts.model import ModelFacts, model_facts, require_weights
from loraloom.lora.base import load_base, load_tokenizer
from loraloom.lora.state import PEFT_TASKS, load_peft, require_embeddings
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.pipeline.beside import base_of, quantization_of, revision_of, tokenizer_beside
from loraloom.pipeline.classes import classes_to_score
from loraloom.pipeline.evaluate import longest_row
from loraloom.pipeline.rewards import one_output
from loraloom.records import Task, built_as

COLUMN = "predicted"
PROBABILITY = "probability"
SCORE = "score"
"""Columns that are added to a row: the label or the answer; of classes, how probable each is; of a
reward model its reward alone, of a pair {"chosen": ..., "rejected": ...}."""

Added = dict[str, Any]
"""What is added to one row."""


@dataclass(frozen=True)
class Reading:
    """Rows as the model takes them.

    Attributes:
        rows: whole rows; of a reward model examples, whose answers may be two.
        prompts: of a language model, all that comes before the answers.
        cut: rows that were shortened.
        silent: rows that ask nothing, or have no answer to score, and are none of `rows`.
    """

    rows: tuple[Example, ...]
    prompts: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    cut: int
    silent: int


@dataclass(frozen=True)
class Reader:
    """How rows are read: as in the training of the adapter, or as the base does it."""

    config: Config
    facts: ModelFacts
    folder: Path | None
    task: Task
    known: Known | None
    tokenizer: Any
    recognised: Recognised
    longest: tuple[int, str] | None
    """Of a classifier: tokens after which a row is cut, and why."""

    @property
    def classifies(self) -> bool:
        """Whether the model reads rows whole, and writes nothing."""
        return built_as(self.task) == "seq_cls"

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that a row may get."""
        return (SCORE,) if self.task == "reward" else (COLUMN, PROBABILITY)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.known.names if self.known else ()

    def read(self, table: Table) -> Reading:
        """Rows of the same columns as those that the reader was made for.

        Raises:
            DataError: a row is not as the format has it, or the chat template refuses it.
        """
        if self.task == "reward":
            full = without_verdicts(table)
        else:
            full = filled(table, self.config.data, self.task, _label(self.known))
        check(full, self.recognised)
        data = encode(Splits(full), self.recognised, self.tokenizer, self.task, self.known)
        cut = 0
        if self.longest is not None:
            data = data.cut(self.longest[0])
            cut = data.report["train"].cut
        # A cut may take a whole answer away.
        silent = len(table) - len(data.train)
        prompts = () if self.classifies else tuple(map(self._prompt, sides_of(data.train)))
        return Reading(data.train, prompts, data.notes, cut, silent)

    def _prompt(self, row: Row) -> tuple[int, ...]:
        """What comes before the answer; of a plain text all of it but the end of the document."""
        if self.recognised.format != "text":
            return exercise(row, self.task).prompt
        ids = tuple(row.input_ids.tolist())
        end = document_end(self.tokenizer, frame_of(self.tokenizer))
        return ids[: len(ids) - len(end)] if end and ids[-len(end) :] == end else ids


def reader_of(config: Config, adapter: str | None, table: Table) -> Reader:
    """How rows with the columns of `table` are read.

    Args:
        config: `model.name_or_path` may be left out with an adapter, which knows its base.
        adapter: folder of a PEFT adapter, or of a run (its best/); None asks the bare base.

    Raises:
        RequestError: the adapter, the model or the columns cannot be used.
    """
    folder = None if adapter is None else adapter_folder(adapter)
    described = {} if folder is None else read_adapter_config(folder)
    name = base_of(config.model.name_or_path, [described])
    revision = revision_of(config.model.revision, name, [] if folder is None else [folder])
    config = replace(config, model=replace(config.model, name_or_path=name, revision=revision))
    trust = config.model.trust_remote_code
    facts = require_weights(model_facts(name, revision=revision, trust_remote_code=trust))
    task = _task(config, described, facts)
    classifies = built_as(task) == "seq_cls"
    if classifies and facts.task != "seq_cls":
        facts = model_facts(name, revision=revision, trust_remote_code=trust, task="seq_cls")
    known = classes_to_score(config, facts, folder) if classifies else None
    if task == "reward":
        known = one_output(known, facts, folder)
    if classifies and known is None:
        raise ModelError(
            f"{name} has no trained head for {'rewards' if task == 'reward' else 'classes'}",
            next="name a classifier's adapter with --adapter, and leave --base out",
        )
    if known is not None and len(known.names) == 1:
        task = "reward"
        recognised = recognise_scored(table, config.data)
    else:
        recognised = recognise_unanswered(
            table,
            config.data,
            task,
            encoder_decoder=facts.kind == "encoder_decoder",
            label=_label(known),
        )
    own = load_tokenizer(name, revision=revision, trust_remote_code=trust)
    tokenizer = own if folder is None else tokenizer_beside(folder, own)
    longest = longest_row(config, folder, facts) if classifies else None
    return Reader(config, facts, folder, task, known, tokenizer, recognised, longest)


def _label(known: Known | None) -> str:
    return known.names[0] if known else BLANK


def _task(config: Config, described: Mapping[str, Any], facts: ModelFacts) -> Task:
    """What the adapter was trained for, as its config says; else what was asked, else
    what the base is made for."""
    tasks: tuple[Task, ...] = ("causal_lm", "seq_cls", "seq2seq_lm")
    for task in tasks:
        if PEFT_TASKS[task] == described.get("task_type"):
            if config.task == "reward" and task == "seq_cls":
                return "reward"
            if config.task not in ("auto", task):
                raise ConfigError(
                    f"the adapter was trained for {task}, not for {config.task}", next="leave --task out"
                )
            return task
    return facts.task if config.task == "auto" else config.task


class Predictor:
    """The loaded model behind a reader.

    Args:
        probabilities: add that of each class.
        max_new_tokens: longest answer.

    Raises:
        RequestError: the base or the adapter cannot be loaded.
    """

    def __init__(
        self, reader: Reader, *, probabilities: bool = False, max_new_tokens: int = 128
    ) -> None:
        asked = reader.config
        self.reader, self.probabilities, self.max_new_tokens = reader, probabilities, max_new_tokens
        self.base = load_base(
            reader.facts.name_or_path,
            built_as(reader.task),
            label_names=reader.label_names or None,
            dtype="float32" if asked.model.dtype == "auto" else asked.model.dtype,
            seed=asked.training.seed,
            revision=asked.model.revision,
            trust_remote_code=asked.model.trust_remote_code,
            device=device_facts().kind,
            quantization=quantization_of(asked.model.quantization, reader.folder),
        )
        self.base.read_with(reader.tokenizer)
        self.limit = position_limit(self.base.model, built_as(reader.task))
        self.model: Any = (
            self.base.model.eval()
            if reader.folder is None
            else load_peft(reader.folder, self.base.model).get_base_model()
        )

    def require_embeddings(self, largest: int) -> None:
        """Raises ModelError where a token id up to `largest` has no embedding."""
        require_embeddings(self.model, [largest])

    def lots(self, reading: Reading) -> Iterator[list[int]]:
        """Numbers of rows that are answered together, always the same for the same rows.

        The longest come first: what they leave free serves all others, and too little memory shows at
        once.
        """
        shortest_first = (
            by_length(reading.rows) if self.reader.classifies else of_one_length(reading.prompts)
        )
        return reversed(list(shortest_first))

    def answer(self, reading: Reading, lot: Sequence[int]) -> list[Added]:
        """What is added to the rows of one lot, in its order. A prompt that fills the model's positions
        has no answer: None."""
        examples = [reading.rows[i] for i in lot]
        if self.reader.task == "reward":
            return self._scores(examples)
        if self.reader.task == "seq_cls":
            return self._labels(sides_of(examples))
        prompts = [reading.prompts[i] for i in lot]
        if self.limit is not None and len(prompts[0]) >= self.limit:
            return [{COLUMN: None} for _ in lot]
        texts = continuations(
            self.model,
            prompts,
            self.reader.tokenizer,
            task=self.reader.task,
            pad_id=self.base.pad_id,
            max_new_tokens=self.max_new_tokens,
        )
        return [{COLUMN: text} for text in texts]

    def labels_of(self, texts: Sequence[str]) -> list[Added]:
        """What a classifier says of texts, in their order."""
        reading = self.reader.read(table_of(texts))
        found: dict[int, Added] = {}
        for lot in self.lots(reading):
            found |= zip(lot, self.answer(reading, lot), strict=True)
        return [found[i] for i in range(len(texts))]

    def _scores(self, examples: Sequence[Example]) -> list[Added]:
        """The reward of each answer."""
        rewards = iter(rewards_of(self.model, sides_of(examples), self.base.pad_id).tolist())
        return [
            {SCORE: {name: next(rewards) for name in one.side_names}}
            if isinstance(one, Pair)
            else {SCORE: next(rewards)}
            for one in examples
        ]

    def _labels(self, rows: Sequence[Row]) -> list[Added]:
        names = self.reader.label_names
        found: list[Added] = []
        for shares_C in class_probabilities(self.model, rows, self.base.pad_id):
            added: Added = {COLUMN: names[int(shares_C.argmax())]}
            if self.probabilities:
                added[PROBABILITY] = dict(zip(names, map(float, shares_C), strict=True))
            found.append(added)
        return found


def table_of(texts: Sequence[str]) -> Table:
    """Texts as rows."""
    places = tuple(("prompt ", number) for number in range(1, len(texts) + 1))
    return Table("the prompts", tuple({"text": text} for text in texts), places)


def labeller(config: Config, adapter: str | None) -> Predictor:
    """A classifier for texts, with probabilities. Arguments as of `reader_of`.

    Raises:
        RequestError: as there, or it is a reward model, for which a prompt alone is nothing to score.
    """
    reader = reader_of(config, adapter, table_of(["..."]))
    if reader.task == "reward":
        raise ConfigError(
            "a reward model scores answers, and writes none",
            need="a file of prompts with answers, of pairs, messages or texts",
            next="loraloom predict --adapter FOLDER --data FILE",
        )
    return Predictor(reader, probabilities=True)
