"""A memory with its base in memory: encodes questions, plans, seats what was learnt, makes trainers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from loraloom.config import names
from loraloom.config.asked import Config, ModelConfig, TrainingConfig
from loraloom.data.causal import framing_of
from loraloom.data.chat import chat_rows, prompt_ids
from loraloom.data.conversation import Conversation
from loraloom.data.form_template import form_template, in_form
from loraloom.data.plain import pair_rows
from loraloom.data.render import Renderer
from loraloom.data.rows import Encoded, Row
from loraloom.errors import ModelError, RequestError, VerificationError
from loraloom.evals.mixed import MixedObjective
from loraloom.evals.scoring import EVALUATION_FACTOR, RowSums, row_sums
from loraloom.evals.writing import continuations, of_one_length
from loraloom.facts.data import data_facts
from loraloom.facts.device import device_facts
from loraloom.facts.model import model_facts, require_weights
from loraloom.facts.speed import cores_share
from loraloom.facts.weights import weights_fingerprint
from loraloom.lora.base import Base, load_base, load_tokenizer, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import BASE, Routing
from loraloom.lora.segment import Segment
from loraloom.pipeline.adapters import base_folder
from loraloom.pipeline.recall.states import States
from loraloom.pipeline.recall.update import SCALE, Update, place, read_update
from loraloom.plan.planner import Facts, Plan, candidate, make_plan
from loraloom.recall.forms import Form
from loraloom.recall.memory import PARTS, BaseOf, Memory, Part
from loraloom.recall.presets import preset_of
from loraloom.records import AdapterSpec, Candidate
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import OrderOf

FORMAT = "question_answer"
CURRENT = "memory"
"""The name under which what was learnt sits in the pack."""
MAX_NEW_TOKENS = 48
Watch = Callable[[str], None]
"""Told, in a sentence, of what is being done."""


def base_of_model(model: str) -> BaseOf:
    """A base by name and fingerprint.

    Raises:
        ModelError: it is not here, or is none that writes after a prompt.
    """
    facts = require_weights(model_facts(model))
    if facts.kind != "decoder" or facts.task != "causal_lm":
        raise ModelError(
            f"{facts.architecture} does not answer questions",
            need="a decoder: a model that writes on",
            next="--model NAME of a chat model, or of any causal language model",
        )
    return BaseOf(model, weights_fingerprint(base_folder(model)))


class MemoryBench:
    """The base of a memory, loaded once.

    Args:
        forms: questions that are about to be used: the plan is made for rows like these.

    Raises:
        ModelError: the base is not the one that the memory was made over.
    """

    def __init__(self, memory: Memory, forms: Sequence[Form], watch: Watch) -> None:
        self.memory, self.watch = memory, watch
        name = memory.base.name_or_path
        found = base_of_model(name)
        if found.fingerprint != memory.base.fingerprint:
            raise ModelError(
                "the base has other weights than when this memory was made",
                where=name,
                got=f"fingerprint {found.fingerprint}",
                need=memory.base.fingerprint,
                next="bring the old files back, or write a new memory over this base",
            )
        self._facts = require_weights(model_facts(name))
        tokenizer = self._given_form(load_tokenizer(name))
        self._tokenizer = tokenizer
        self.plan = self.planned(self.rows(forms or [Form("", "What is it?", "It is.")]), 100)
        values = self.plan.values()
        watch(f"loading {name}")
        self.base: Base = load_base(
            name,
            "causal_lm",
            dtype=values[names.DTYPE],
            attn_implementation=values[names.ATTN_IMPLEMENTATION],
            device=self.plan.facts.device.kind,
            quantization=values[names.QUANTIZATION],
            streaming=values[names.STREAMING],
        )
        self.base.tokenizer = tokenizer
        self.packed = PackedModel(share_copy(self.base.model))
        self.objective = MixedObjective(self.base.model, self.packed)

    @staticmethod
    def _given_form(tokenizer: Any) -> Any:
        if not tokenizer.chat_template:
            tokenizer.chat_template = form_template(FORMAT, tokenizer)
        return tokenizer

    # -- questions --------------------------------------------------------------------------------------

    def rows(self, forms: Sequence[Form]) -> list[Row]:
        """A row of each question, its answer supervised.

        Raises:
            RequestError: one is longer than the model's positions.
        """
        rows = self.encoded(forms)
        for form, row in zip(forms, rows, strict=True):
            if self.positions is not None and len(row) > self.positions:
                raise RequestError(
                    f"`{form.question[:60]}` and its answer have {len(row):,} tokens",
                    need=f"at most {self.positions:,}, the model's positions",
                    next="say it shorter, or in several items",
                )
        return rows

    def encoded(self, forms: Sequence[Form]) -> list[Row]:
        """The same, however long they are."""
        if not self._tokenizer.chat_template:
            pairs = [(in_form(FORMAT, form.question), form.answer) for form in forms]
            return pair_rows(pairs, self._tokenizer, framing_of(self._tokenizer))
        talks = [(form.question, _talk(form)) for form in forms]
        rows = chat_rows(talks, Renderer(self._tokenizer)) if talks else []
        return [replace(row, cluster=-1) for row in rows]

    @property
    def positions(self) -> int | None:
        """Tokens of a row, at most; None where there is no limit."""
        return self._facts.max_positions

    def prompt(self, question: str) -> list[int]:
        """What the model reads before it answers."""
        asked = question if self._tokenizer.chat_template else in_form(FORMAT, question)
        return prompt_ids(asked, self._tokenizer, continued=True)

    # -- plans ------------------------------------------------------------------------------------------

    def planned(self, rows: Sequence[Row], steps: int, size: int = 16) -> Plan:
        """Every setting of a training of so many steps, by the preset of what the memory mostly holds
        and the plan's own rules."""
        config = Config(
            model=ModelConfig(name_or_path=self.memory.base.name_or_path),
            preset=preset_of(entry.item.kind for entry in self.memory.state.kept),
            training=TrainingConfig(max_steps=steps, per_device_train_batch_size=size),
        )
        device = device_facts()
        device = replace(device, share=cores_share(device.kind))
        data = Encoded(tuple(rows), (), (), (), "causal_lm", FORMAT)
        return make_plan(config, Facts(model=self._facts, data=data_facts(data), device=device))

    def candidate(
        self, plan: Plan, trial: str, *, rank: int, rate: float, rows: int, seed: int = 0, **more: Any
    ) -> Candidate:
        """A candidate of a plan.

        Args:
            rank: of its slot.
            rate: what the plan's rate is multiplied by.
            rows: of a pass, at most; a step takes as many passes as its rows need.
            more: other fields of its training.
        """
        made = candidate(plan, trial, {names.R: rank, names.LORA_ALPHA: SCALE * rank}, seed_offset=seed)
        # What is held may not decay: AdamW then leaves it alone.
        training = replace(
            made.training,
            learning_rate=made.training.learning_rate * rate,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=1,
            weight_decay=0.0,
            **more,
        )
        return replace(made, training=training)

    def spec(self, rank: int) -> AdapterSpec:
        """An adapter of this memory."""
        return self.candidate(self.plan, "", rank=rank, rate=1.0, rows=1).adapter

    @property
    def rank(self) -> int:
        """Of fast and slow each: the plan's, and never less than what is there already, so that nothing
        is cut off when the memory comes to hold mostly another kind."""
        return max(int(self.plan.values()[names.R]), *(part.rank for part in self.parts.values()), 0)

    def trainer(self, rows: Sequence[Row], order_of: OrderOf) -> PackTrainer:
        """A trainer over these rows."""
        values = self.plan.values()
        return PackTrainer(
            self.packed,
            rows,
            self.objective,
            task="causal_lm",
            pad_id=self.base.pad_id,
            token_budget=self.plan.token_budget,
            checkpointing=values[names.GRADIENT_CHECKPOINTING],
            signals=False,
            workers=self.plan.workers,
            graphs=False,
            order_of=order_of,
        )

    # -- what was learnt --------------------------------------------------------------------------------

    @cached_property
    def parts(self) -> dict[Part, Update]:
        """Fast and slow, as the generation that answers has them; empty where nothing was learnt."""
        found: dict[Part, Update] = {}
        for part in PARTS:
            if (folder := self.memory.part(part)) is not None:
                found[part] = read_update(folder)
        return found

    @property
    def total(self) -> Update | None:
        """Both together, slow first."""
        found = [self.parts[part] for part in PARTS if part in self.parts]
        if not found:
            return None
        return found[0] if len(found) == 1 else found[0].beside(found[1])

    @contextmanager
    def seated(self, updates: Mapping[str, Update | None]) -> Generator[list[str]]:
        """Updates in the pack for a while; gives their names, without those that are None."""
        found = {name: update for name, update in updates.items() if update is not None}
        try:
            for name, update in found.items():
                place(update, self.packed.add(name, self.spec(update.rank), None))
            yield list(found)
        finally:
            for name in found:
                if name in self.packed.adapters:
                    self.packed.remove(name)

    def sums(self, rows: Sequence[Row], trials: Sequence[str]) -> dict[str, RowSums]:
        """Losses of rows under adapters in the pack; under the bare base, as "", where none is named."""
        return row_sums(
            self.packed,
            self.objective,
            rows,
            trials,
            task="causal_lm",
            pad_id=self.base.pad_id,
            token_budget=EVALUATION_FACTOR * self.plan.token_budget,
        )

    def answers(
        self, questions: Sequence[str], trial: str | None, *, most: int = MAX_NEW_TOKENS
    ) -> list[str]:
        """What is written for questions, always taking the likeliest token.

        Args:
            trial: an adapter in the pack; None for the bare base.
            most: tokens of an answer.
        """
        prompts = [self.prompt(question) for question in questions]
        found = [""] * len(prompts)
        for lot in of_one_length(prompts):
            routing = BASE if trial is None else Routing((Segment(trial, 0, len(lot)),))
            with torch.no_grad(), self.packed.route(routing) as model:
                texts = continuations(
                    model,
                    [prompts[number] for number in lot],
                    self._tokenizer,
                    task="causal_lm",
                    pad_id=self.base.pad_id,
                    max_new_tokens=most,
                )
            for number, text in zip(lot, texts, strict=True):
                found[number] = text
        return found

    @cached_property
    def states(self) -> States:
        """Hidden states of the bare base, of stored questions and of others."""
        return States(self.memory, self.base, self.packed)

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._tokenizer([text], add_special_tokens=False)["input_ids"][0])

    def writer(self, part: Update) -> Callable[[Path], None]:
        """What writes an adapter into a folder, and reads it again before it may count."""

        def write(folder: Path) -> None:
            part.save(folder, self.spec(part.rank), self.base)
            if not read_update(folder).equals(part):
                raise VerificationError(
                    f"the adapter in {folder} is not read as it was written; the memory is as it was",
                    next="give the command again; if it says so again, report it",
                )

        return write


def _talk(form: Form) -> Conversation:
    turns = {"role": "user", "content": form.question}, {"role": "assistant", "content": form.answer}
    return Conversation(turns, (False, True))
