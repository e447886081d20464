"""At the end of a run: what the bare base and the best adapter write for the same few
rows, side by side."""

from __future__ import annotations

from loraloom.evals.writing import exercise, written
from loraloom.lora.base import share_copy
from loraloom.lora.state import load_peft
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.workbench import Workbench
from loraloom.records import built_as
from loraloom.store.samples import Sample, write_samples

SAMPLES = 4
"""Rows of validation that are shown: enough to see a habit, few enough to read and to wait for."""
MAX_NEW_TOKENS = 64


def show_samples(bench: Workbench, log: RunLog) -> None:
    """Let the base and best/ answer some rows, and keep both in samples.json. A
    classifier writes nothing."""
    prepared = bench.prepared
    base = bench.base
    task = prepared.task
    tokenizer = prepared.tokenizer
    if built_as(task) == "seq_cls":
        return
    rows = prepared.data.validation or prepared.data.train
    shown = [rows[i * len(rows) // SAMPLES] for i in range(min(SAMPLES, len(rows)))]
    exercises = [exercise(one.sides[0], task) for one in shown]
    sources = (
        lambda: share_copy(base.model).eval(),
        lambda: load_peft(log.folder.best, share_copy(base.model, own_biases=True)),
    )
    try:
        without, with_best = (
            written(
                net(), exercises, tokenizer, task=task, pad_id=base.pad_id, max_new_tokens=MAX_NEW_TOKENS
            )
            for net in sources
        )
    except Exception as error:
        # Whatever a model's generate() objects to, the adapter is trained and proven:
        # samples are an extra.
        log.recorder.note(f"no samples were written: {type(error).__name__}: {error}")
        return
    write_samples(
        log.folder,
        [
            Sample(
                tokenizer.decode(one.prompt),
                tokenizer.decode(one.wanted, skip_special_tokens=True),
                *texts,
            )
            for one, *texts in zip(exercises, without, with_best, strict=True)
        ],
    )
