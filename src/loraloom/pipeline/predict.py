"""`loraloom predict`: labels or answers for new rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.config.asked import Config
from loraloom.data.pairs import SIDES
from loraloom.data.rows import sides_of
from loraloom.data.stream import RowStream, stream_of
from loraloom.data.table import Table, once
from loraloom.data.writers import WRITERS, RowWriter, check_target, json_line
from loraloom.errors import ConfigError, InterruptedRunError, RequestError
from loraloom.facts.device import device_facts
from loraloom.facts.source import model_folder
from loraloom.facts.weights import weights_fingerprint
from loraloom.lora.record import NAME as RECORD
from loraloom.lora.untrusted_adapter import CONFIG, WEIGHTS
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.evaluate import cut_note
from loraloom.pipeline.predictions import LOT, Predictions, partial_of
from loraloom.pipeline.predictor import COLUMN, PROBABILITY, SCORE, Predictor, Reader, reader_of
from loraloom.records import Task
from loraloom.store.disk import disk, put_in_place

Rows = list[dict[str, Any]]

Tick = Callable[[int, int], object]
"""Told how many rows are done, and of how many."""


@dataclass(frozen=True)
class Predicted:
    """What was predicted: for how many rows, by whom, and where they are."""

    rows: int
    model: str
    adapter: str | None
    task: Task
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `predict --json`, but for what its caller adds."""
        about = {"model": self.model, "adapter": self.adapter, "task": self.task, "rows": self.rows}
        return {**about, "notes": list(self.notes)}


@dataclass(frozen=True)
class _Checked:
    """All rows of a source, read once and found good."""

    rows: int
    digest: str
    """Of the rows as they are and as the model takes them."""
    largest_id: int
    prompts: Counter[int]
    """How many prompts have so many tokens."""
    notes: tuple[str, ...]


@device_errors()
def predict(
    config: Config,
    adapter: str | None,
    *,
    probabilities: bool = False,
    max_new_tokens: int = 128,
    dry_run: bool = False,
    out: Path | None = None,
    resume: bool = False,
    take: Callable[[Rows], object] = lambda rows: None,
    tick: Tick = lambda done, rows: None,
) -> Predicted:
    """Labels of a classifier, answers of a language model, or scores of a reward model, for rows that
    need have none.

    Every row comes back with all its columns and `predicted`, or `score`; with `probabilities`, {class:
    probability} under `probability`. All rows are read and checked before the first is answered.

    Args:
        config: `data.train` names the rows; `model.name_or_path` may be left out with
            an adapter, which knows its base.
        adapter: folder of a PEFT adapter, or of a run (its best/); None asks the bare base.
        probabilities: add that of each class; language models have none.
        max_new_tokens: longest answer.
        dry_run: read everything and predict nothing.
        out: new file for the rows. What is predicted is kept beside it until all of it is there.
        resume: go on with what an earlier call kept there.
        take: without `out`, given the rows as they are done, in their order.

    Raises:
        RequestError: the adapter, the model, the rows or the file cannot be used.
        InterruptedRunError: it was stopped, and can go on.
    """
    if out is not None:
        _check_out(out, resume=resume)
    elif resume:
        raise ConfigError("without a file there is nothing to go on with", next="--out FILE")
    if config.data.train is None:
        raise ConfigError("no rows were given", next="--data FILE")
    stream = stream_of(
        config.data.train_names or (),
        split="test",
        max_rows=config.data.max_rows,
        seed=config.training.seed,
    )
    sample, _ = stream.survey()
    reader = reader_of(config, adapter, sample)
    _refuse(sample, reader, probabilities)
    writer = None if out is None else WRITERS[out.suffix.lower()]()
    checked = _check(stream, reader, writer, probabilities)
    notes = [*sample.notes, *checked.notes]
    if not dry_run:
        device = device_facts()
        predictor = Predictor(reader, probabilities=probabilities, max_new_tokens=max_new_tokens)
        predictor.require_embeddings(checked.largest_id)
        notes += [device.notice] if device.notice else []
        if out is None or writer is None:
            _hand_over(stream, predictor, checked.rows, take, tick)
        else:
            begun_with = _begun_with(checked, predictor)
            with Predictions(out, begun_with, resume=resume) as kept:
                _answer(stream, predictor, checked.rows, kept, tick)
                _write(out, writer, _joined(stream, kept))
                kept.remove()
        notes += _without_room(checked, predictor)
    where = None if reader.folder is None else str(reader.folder)
    return Predicted(checked.rows, reader.facts.name_or_path, where, reader.task, once(notes))


def _check_out(out: Path, *, resume: bool) -> None:
    """Raises RequestError where `out` cannot be written, or was begun and is not to be gone on with."""
    if resume and out.exists():
        raise RequestError(
            f"`{out}` is finished already", next="there is nothing to go on with: leave --resume out"
        )
    check_target(out)
    if partial_of(out).exists() and not resume:
        raise RequestError(
            f"predictions for `{out}` were begun already, and are kept in `{partial_of(out)}`",
            next=f"go on with them: --resume; or begin anew: rm '{partial_of(out)}'",
        )


def _refuse(sample: Table, reader: Reader, probabilities: bool) -> None:
    clash = next((name for name in reader.added if name in sample.columns), None)
    if clash is not None:
        raise ConfigError(
            f"the rows have a column `{clash}` already",
            where=sample.source,
            next="rename the column",
        )
    if probabilities and reader.task != "seq_cls":
        raise ConfigError(
            "probabilities are those of classes, and this model"
            f" {'scores answers' if reader.task == 'reward' else 'writes text'}",
            next="leave --probabilities out",
        )


def _check(stream: RowStream, reader: Reader, writer: RowWriter | None, probabilities: bool) -> _Checked:
    """Read all rows as the model will, and see that the file can hold them.

    Raises:
        RequestError: a row that is not as the others are, or asks nothing.
    """
    digest = hashlib.blake2b(digest_size=16)
    rows = cut = silent = largest = 0
    prompts = Counter[int]()
    notes: list[str] = []
    for table in stream.tables(LOT):
        reading = reader.read(table)
        for row in table.rows:
            digest.update(json_line(row).encode("utf-8", "surrogatepass"))
        for row in sides_of(reading.rows):
            digest.update(row.input_ids.tobytes() + b"|")
            largest = max(largest, int(row.input_ids.max(initial=0)))
        prompts.update(map(len, reading.prompts))
        rows += len(table)
        cut += reading.cut
        silent += reading.silent
        notes += [note for note in reading.notes if note not in notes]
        if writer is not None:
            writer.look(table.rows)
    if silent:
        raise _nothing_in(silent, rows, stream.source, reader)
    if cut and reader.longest is not None:
        notes.append(cut_note(cut, rows, *reader.longest))
    if writer is not None:
        each = dict.fromkeys(reader.label_names, 0.5)
        shown: dict[str, Any] = {COLUMN: "", **({PROBABILITY: each} if probabilities else {})}
        if reader.task == "reward":
            pairs = reader.recognised.format == "preference"
            shown = {SCORE: dict.fromkeys(SIDES, 0.5) if pairs else 0.5}
        writer.look([shown])
    return _Checked(rows, digest.hexdigest(), largest, prompts, tuple(notes))


def _nothing_in(silent: int, rows: int, source: str, reader: Reader) -> ConfigError:
    """The error of rows that there is nothing to say of."""
    if reader.task != "reward" or reader.longest is None:
        return ConfigError(f"{silent:,} of {rows:,} rows ask nothing", where=source, next="remove them")
    length, why = reader.longest
    return ConfigError(
        f"{silent:,} of {rows:,} rows have no answer to score",
        where=source,
        got=f"no answer, an empty one, two that are the same, or none in the first {length:,} tokens",
        need=f"something that is scored within {length:,} tokens: {why}",
        next="remove these rows, or raise data.max_length",
    )


def _begun_with(checked: _Checked, predictor: Predictor) -> dict[str, Any]:
    """What predictions depend on, as `Predictions` keeps it."""
    reader = predictor.reader
    model = reader.config.model
    base = model_folder(reader.facts.name_or_path, model.revision)
    settings = {
        "task": reader.task,
        "probabilities": predictor.probabilities,
        "max_new_tokens": predictor.max_new_tokens,
        "dtype": str(model.dtype),
        "quantization": predictor.base.quantization,
        "labels": list(reader.label_names),
    }
    return {
        "the rows": f"{checked.rows} {checked.digest}",
        "the adapter": reader.folder and _digest_of(reader.folder),
        "the base": base and weights_fingerprint(base),
        "the settings": settings,
    }


def _digest_of(adapter: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in (CONFIG, WEIGHTS, RECORD):
        if (adapter / name).is_file():
            with (adapter / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _without_room(checked: _Checked, predictor: Predictor) -> list[str]:
    limit = predictor.limit
    if limit is None:
        return []
    full = sum(count for length, count in checked.prompts.items() if length >= limit)
    return [f"{full:,} rows fill the model's {limit:,} positions, and have no answer"] if full else []


def _hand_over(
    stream: RowStream, predictor: Predictor, total: int, take: Callable[[Rows], object], tick: Tick
) -> None:
    """Answer all rows and give them to `take`."""
    done = 0
    for table in stream.tables(LOT):
        reading = predictor.reader.read(table)
        rows: Rows = [dict(row) for row in table.rows]
        for lot in predictor.lots(reading):
            for i, added in zip(lot, predictor.answer(reading, lot), strict=True):
                rows[i].update(added)
            done += len(lot)
            tick(done, total)
        take(rows)


def _answer(stream: RowStream, predictor: Predictor, total: int, kept: Predictions, tick: Tick) -> None:
    """Answer all rows that are not answered yet.

    Rows are answered together that would be without an interruption, the answered ones among them too:
    the last digits of a probability depend on who else is in its batch.

    Raises:
        InterruptedRunError: Ctrl-C.
    """
    first = kept.done
    try:
        for number, table in enumerate(stream.tables(LOT)):
            start = number * LOT
            if start + len(table) <= first:
                continue
            reading = predictor.reader.read(table)
            for lot in predictor.lots(reading):
                if all(start + i in kept.known for i in lot):
                    continue
                answers = predictor.answer(reading, lot)
                kept.add((start + i, added) for i, added in zip(lot, answers, strict=True))
                tick(kept.done, total)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"interrupted: {kept.done:,} of {total:,} rows are kept in {kept.path}",
            next="give the same command again with --resume",
        ) from error


def _joined(stream: RowStream, kept: Predictions) -> Iterator[Rows]:
    for table, added in zip(stream.tables(LOT), kept.lots(), strict=True):
        yield [{**row, **more} for row, more in zip(table.rows, added, strict=True)]


def _write(out: Path, writer: RowWriter, lots: Iterable[Rows]) -> None:
    """Write the file whole, then give it its name."""
    unfinished = out.with_name(f"{out.name}.unfinished")
    with disk(out):
        try:
            writer.write(unfinished, lots)
            put_in_place(unfinished, out)
        finally:
            unfinished.unlink(missing_ok=True)
