"""`loraloom check`: everything that can be known to go wrong, before anything is trained."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loraloom.config.asked import Config
from loraloom.data.diversity import Diversity, diversity_of
from loraloom.data.encode import Encoded, preview
from loraloom.errors import (
    DataError,
    LoraloomError,
    MemoryBudgetError,
    ModelError,
    RequestError,
    TemplateError,
)
from loraloom.facts.data import assumed_data, data_facts
from loraloom.facts.device import device_facts
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.fingerprint import fingerprints, refuse_changes
from loraloom.pipeline.mixing import facts_with_sources
from loraloom.pipeline.preflight import bits, memory, run_check, run_checks
from loraloom.pipeline.preflight.rehearsal import rehearse, with_rows_beside
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.pipeline.prepare import Prepared, Read, read_request
from loraloom.pipeline.replayed import Replay, encode_replay, replay_beside
from loraloom.pipeline.retained import retained_rows
from loraloom.pipeline.run_log import space_needed
from loraloom.plan.needs import notes_on_device
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.report.diversity import Line, lines_of
from loraloom.store.folder import RunFolder
from loraloom.train.checkpoint import load as load_checkpoint

PREVIEWED = 3
"""Rows whose supervised tokens are shown."""


@dataclass(frozen=True)
class Preview:
    """The first rows, token by token as (text, whether it is learnt), and counts of the
    training rows."""

    rows: int
    tokens: int
    supervised_share: float
    cut_share: float
    dropped: int
    examples: tuple[tuple[tuple[str, bool], ...], ...]


@dataclass(frozen=True)
class Checked:
    """What every check said."""

    model: str
    task: str
    note: str
    """What was recognised in the data."""
    rows: dict[str, int]
    """Rows by split, empty ones left out."""
    warnings: tuple[str, ...]
    """How the data were read, where a person should know: what is not used, what was guessed."""
    results: tuple[CheckResult, ...]
    preview: Preview | None
    diversity: Diversity
    """How varied the rows are, and what held-out rows have that training lacks."""

    @property
    def lines(self) -> list[Line]:
        """The same in words."""
        return lines_of(self.diversity)

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.level == "fail")

    @property
    def ok(self) -> bool:
        """Whether nothing fails; warnings are allowed."""
        return not self.failed

    def to_json(self) -> dict[str, Any]:
        """The document of `check --json`."""
        return {
            "ok": self.ok,
            "model": self.model,
            "task": self.task,
            "data": self.note,
            "rows": self.rows,
            "warnings": list(self.warnings),
            "checks": [asdict(result) for result in self.results],
            "diversity": {
                "lines": [asdict(line) for line in self.lines],
                "figures": self.diversity.to_json(),
            },
            "preview": None if self.preview is None else _preview_json(self.preview),
        }


@device_errors()
def check(config: Config, *, quick: bool = False) -> Checked:
    """Look at model, data, adapter, memory and deployment target; one batch goes
    through the model, nothing is kept.

    A fault does not hide the next one: where a part of the request is refused, the rest
    is looked at without it.

    Args:
        quick: leave out what needs the weights.

    Raises:
        RequestError: model or data cannot even be read, or a value of the config cannot be.
    """
    read = read_request(config, weights=not quick, race=_searches(config))
    subject = subject_of(read)
    if quick:
        subject = replace(subject, unrehearsed="left out by --quick")
    elif subject.data is None:
        subject = replace(subject, unrehearsed="the data could not be encoded")
    elif run_check(memory.NAME, subject).level == "fail":
        subject = replace(subject, unrehearsed="by forecast, it does not fit into memory")
    elif run_check(bits.NAME, subject).level == "fail":
        subject = replace(subject, unrehearsed="the base cannot be held in these bits here")
    elif subject.refused:
        subject = replace(subject, unrehearsed=f"{', '.join(subject.refused)} failed first")
    else:
        prepared = _prepared(subject, subject.data)
        rows = with_rows_beside(subject.data, subject.replay, subject.retain)
        try:
            subject = replace(subject, rehearsal=rehearse(prepared.load_base, subject.plan, rows))
        except ModelError as error:
            subject = replace(
                subject, refused={"targets": error}, unrehearsed="the model refuses the adapter"
            )
    return Checked(
        model=subject.facts.model.name_or_path,
        task=subject.facts.data.task,
        note=read.recognised.note,
        rows={name: len(table) for name, table in read.splits.tables.items() if len(table)},
        warnings=(
            *(subject.whole.notes if subject.whole else read.recognised.notes),
            *notes_on_device(subject.facts.device, subject.plan.settings.dtype),
        ),
        results=run_checks(subject),
        preview=_preview(subject),
        diversity=diversity_of(read.splits, read.recognised, subject.whole, config.training.seed),
    )


def refuse_failed(checked: Checked) -> None:
    """End with the exit code of a wrong request where a check fails.

    Raises:
        RequestError: one does; its `document` holds all of them.
    """
    if checked.ok:
        return
    failed = checked.failed
    error = RequestError(
        f"{len(failed)} of {len(checked.results)} checks fail:"
        f" {', '.join(result.name for result in failed)}",
        next=failed[0].command,
    )
    error.document = checked.to_json()
    raise error


def subject_of(read: Read) -> Subject:
    """Encode and plan as a run would; what is refused on the way is noted and left out,
    so that the rest can be looked at."""
    config = read.config
    refused = dict[str, LoraloomError]()
    whole = _encoded(read, refused)
    replayed = _replayed(read, whole, refused)
    described = assumed_data(read.recognised.task)
    if whole is not None:
        described = facts_with_sources(config.data, data_facts(whole), whole, replayed)
    facts = read.facts(whole, described, device_facts())
    plan = _planned(config, facts, refused)
    data = None
    if whole is not None:
        try:
            data = whole.cut(plan.settings.length)
        except DataError as error:
            refused["labels"] = error
    subject = Subject(
        config, facts, plan, read.splits, read.recognised, read.tokenizer, whole, data, refused=refused
    )
    if data is None:
        return subject
    try:
        subject = _with_rows_beside(subject, data, replayed)
    except LoraloomError as error:
        refused["labels"] = error
    if (changed := _changed(_prepared(subject, data))) is not None:
        refused["safety"] = changed
    return replace(subject, disk_bytes=_disk_bytes(subject, data))


def _encoded(read: Read, refused: dict[str, LoraloomError]) -> Encoded | None:
    try:
        return read.encoded()
    # the only thing that encoding asks of a model is its chat template
    except (ModelError, TemplateError) as error:
        refused["template"] = error
    except DataError as error:
        refused["labels"] = error
    return None


def _replayed(read: Read, whole: Encoded | None, refused: dict[str, LoraloomError]) -> Encoded | None:
    """The rows of `data.replay`; None where there are none that can be read."""
    if read.replay is None or whole is None:
        return None
    try:
        return encode_replay(read.replay, whole, read.tokenizer)
    except (DataError, ModelError, TemplateError) as error:
        refused["labels"] = error
    return None


def _with_rows_beside(subject: Subject, data: Encoded, replayed: Encoded | None) -> Subject:
    """The subject with rows that are replayed, and with those that are only scored."""
    length = subject.plan.settings.length
    retain = retained_rows(subject.config, data, subject.tokenizer, length)
    replay = replay_beside(replayed.cut(length), data, retain) if replayed else Replay()
    return replace(subject, replay=replay.rows, retain=retain or replay.held_out)


def _planned(config: Config, facts: Facts, refused: dict[str, LoraloomError]) -> Plan:
    """The plan; where targets, a start or memory are refused, that of the same request without them."""
    try:
        return make_plan(config, facts)
    except ModelError as error:
        refused["targets"] = error
        free = replace(
            config.adapter,
            target_modules="auto",
            modules_to_save="auto",
            rank_pattern={},
            alpha_pattern={},
            init_lora_weights=True,
        )
        return _planned(replace(config, adapter=free), facts, refused)
    except MemoryBudgetError:  # told by the check of memory, which names the largest batch that fits
        return _planned(replace(config, limits=replace(config.limits, memory=2**60)), facts, refused)


def _prepared(subject: Subject, data: Encoded) -> Prepared:
    return Prepared(
        subject.config,
        subject.facts,
        subject.plan,
        data,
        subject.recognised,
        subject.tokenizer,
        subject.retain,
        subject.replay,
    )


def _searches(config: Config) -> bool:
    """Whether rows are divided as for a search: they are, unless `train` began the run of this name."""
    if config.name is None:
        return True
    with suppress(LoraloomError):
        return RunFolder(Path(config.output_dir) / config.name).result().verb != "train"
    return True


def _changed(prepared: Prepared) -> LoraloomError | None:
    """Why the unfinished run of this name could not go on: its data or its base are no
    longer what they were."""
    if prepared.config.name is None:
        return None
    folder = RunFolder(Path(prepared.config.output_dir) / prepared.config.name)
    try:
        checkpoint = load_checkpoint(folder.checkpoints)
        if checkpoint is not None:
            refuse_changes(checkpoint.run["fingerprints"], fingerprints(prepared), prepared)
    except LoraloomError as error:
        return error
    return None


def _disk_bytes(subject: Subject, data: Encoded) -> int:
    """What the run writes, and a whole model where it is to be merged, for whatever runs that."""
    model = subject.facts.model
    merged = model.weight_bytes or 4 * model.parameters
    return space_needed(_prepared(subject, data)) + (
        merged if subject.config.deploy.target in ("merged", "llama.cpp", "ollama") else 0
    )


def _preview(subject: Subject) -> Preview | None:
    if subject.data is None:
        return None
    report = subject.data.report["train"]
    examples = preview(subject.data, subject.tokenizer, n=PREVIEWED)
    return Preview(
        rows=report.rows,
        tokens=report.tokens,
        supervised_share=(
            report.supervised / max(1, report.tokens)
            if subject.data.task in ("causal_lm", "preference")
            else 1.0
        ),
        cut_share=report.cut / max(1, report.rows + report.dropped),
        dropped=report.dropped,
        examples=tuple(tuple(row) for row in examples),
    )


def _preview_json(shown: Preview) -> dict[str, Any]:
    examples = [[{"text": text, "supervised": learnt} for text, learnt in row] for row in shown.examples]
    return {**asdict(shown), "examples": examples}
