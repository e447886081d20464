"""The end of a run: the test split opened once, best/ written and proven over weights
that are read anew."""

from __future__ import annotations

import math
import shutil

from loraloom.errors import RunError, VerificationError
from loraloom.lora.base import share_copy
from loraloom.lora.state import load_peft, logits_of
from loraloom.pipeline.diagnosing import opened_test
from loraloom.pipeline.drift import measure_drift
from loraloom.pipeline.initial_adapter import TRIAL as INITIAL
from loraloom.pipeline.initial_adapter import as_saved
from loraloom.pipeline.job import Record
from loraloom.pipeline.preferences import preferred_already
from loraloom.pipeline.race import ROLE, saved
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.samples import show_samples
from loraloom.pipeline.workbench import Workbench, keeping
from loraloom.records import PRUNED_BY_HAND
from loraloom.search.compare import mean_cost


def completed(log: RunLog) -> list[Record]:
    """Candidates of the search whose adapter was saved, best first. Those that a user took out count
    only where there are no others.

    Raises:
        RunError: there is none.
    """
    done = [
        one for one in log.recorder.finished() if one.trial.adapter is not None and one.job.role != ROLE
    ]
    if not done:
        trials = [record.trial for record in log.recorder.records.values()]
        raise RunError(
            "no candidate finished",
            got="; ".join(f"{t.id} {t.status}: {t.reason}" for t in trials[:4]),
            next=(
                "lower the rate with --set training.learning_rate=1e-4, or allow more time with --set"
                " limits.time=..."
            ),
        )
    done = [one for one in done if one.trial.reason != PRUNED_BY_HAND] or done
    return sorted(
        done, key=lambda one: (mean_cost(one.best), one.best.drift) if one.best else (math.inf, 0.0)
    )


def prove(bench: Workbench, log: RunLog, winner: str, default: str) -> None:
    """Open the test split, once: bare base, the plan's own setting, the winner. Then
    copy and verify best/.

    Without one, they are compared on the rows that were kept from the search.
    """
    data = log.prepared.data
    result = log.result
    records = log.recorder.records
    split, rows = ("test", data.test) if data.test else ("confirm", data.confirm)
    result.best = winner
    log.recorder.emit(
        "winner", winner, params=records[winner].trial.params, significant=result.significant
    )
    if rows:
        base = bench.score_base(rows, split)
        result.baseline = {
            **result.baseline,
            **{f"{split}_{key}": value for key, value in base.metrics.items()},
        }
        compared = [
            records[trial] for trial in dict.fromkeys((winner, default)) if records[trial].trial.adapter
        ]
        initial = as_saved(log.prepared.plan, log.folder.path)
        scores = bench.score_saved([*saved(log, compared), *initial], rows, split)
        before = scores.pop(INITIAL, base)
        if initial:
            log.measured_initial(before)
        for trial, score in scores.items():
            log.recorder.scored(trial, score)
        if split == "test" and log.base_score is not None:
            bases = {"validation": log.base_score, "test": before}
            folder = log.folder.trial_folder(winner)
            told = opened_test(data, winner, folder, bases, scores[winner], bench.metric)
            log.of_run += [told] if told else []
    ship(bench, log, winner)
    show_samples(bench, log)
    measure_drift(bench, log, winner)
    log.of_run += preferred_already(bench.objective, log.prepared)


def ship(bench: Workbench, log: RunLog, trial: str) -> None:
    """Copy a saved adapter to best/, load it with PEFT over weights read anew from the
    model's folder, compare."""
    source = log.recorder.adapter_folder(trial)
    target = log.folder.best
    with keeping(target):
        shutil.copytree(source, target, dirs_exist_ok=True)
    inputs = bench.probe()
    resident = logits_of(load_peft(source, share_copy(bench.base.model, own_biases=True)), inputs)
    # On the host: a second base may not fit beside the first one on a GPU. A quantised one is small, and
    # which codes it gets may differ from device to device.
    device = "cpu" if bench.base.quantization == "none" else bench.packed.device.type
    placed = {name: x.to(device) for name, x in inputs.items()}
    anew = logits_of(load_peft(target, bench.prepared.load_base(device).model), placed)
    difference = float((resident - anew).abs().max() / resident.abs().max().clamp(min=1e-12))
    if not difference <= bench.tolerance:
        raise VerificationError(
            "best/ over freshly read weights gives other logits than the trained adapter:"
            f" {difference:.2g} relative",
            next="check that the model's files did not change during the run",
        )
