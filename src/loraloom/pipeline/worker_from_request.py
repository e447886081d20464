"""A worker made where it works, from what its driver sends: the same request, read and planned again
there, has to come to the same rows and the same base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loraloom.config.decode import load_config
from loraloom.data.load import shown
from loraloom.errors import DataError, DeviceError, ModelError, StoreError
from loraloom.execute.host import Invitation, invite
from loraloom.facts.device import DeviceFacts, best_kind
from loraloom.pipeline.examine import Examiner
from loraloom.pipeline.fingerprint import MODEL, OF_WEIGHTS, fingerprints
from loraloom.pipeline.prepare import Prepared, prepare, required_model
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.warmup import timed_packs
from loraloom.pipeline.workbench import Workbench
from loraloom.records import Score
from loraloom.store.folder import RunFolder
from loraloom.train.orders import ScoreSaved
from loraloom.train.worker import Worker

FACTORY = "loraloom.pipeline.worker_from_request:worker_from_request"


def invitation_to(log: RunLog) -> Invitation:
    """What the workers of a run are made from. Its folder has to be there for each of them, under the
    same path."""
    plan = log.prepared.plan
    request = {
        "folder": str(log.folder.path.resolve()),
        "race": log.result.verb == "tune",
        "trials": plan.trials,
        "device": asdict(plan.facts.device),
        "workers": list(plan.facts.workers),
        "fingerprints": dict(log.recorder.rows),
    }
    return invite(FACTORY, request)


def worker_from_request(name: str, request: Mapping[str, Any]) -> Worker:
    """Read the run's request, see that rows and base are the driver's, load the base.

    Raises:
        StoreError: the run folder is not here.
        DeviceError: the device is of another kind than the run was planned for.
        DataError, ModelError: rows or base differ.
    """
    folder = RunFolder(request["folder"])
    if not folder.config_path.is_file():
        raise StoreError(
            f"worker {name} cannot join: the run folder is not here",
            where=str(folder.path),
            need="a folder that driver and workers share, under the same path",
            next="put the runs on a shared filesystem: --output-dir FOLDER",
        )
    device = DeviceFacts(**request["device"])
    if device.kind != best_kind():
        raise DeviceError(
            f"worker {name} cannot join: the run was planned for {device.kind}",
            got=best_kind(),
            next=f"start workers where torch finds {device.kind}",
        )
    config = load_config(folder.config_path)
    prepared = prepare(
        config,
        race=request["race"],
        trials=request["trials"],
        device=device,
        workers=request["workers"],
    )
    _refuse_others(name, request["fingerprints"], prepared)
    bench = Workbench(prepared)
    bench.trainer.shelf.folder = folder.checkpoints
    return worker_on(bench, name, shared=True, pack_size=timed_packs(bench).pack_size)


def worker_on(
    bench: Workbench, name: str, *, shared: bool = False, pack_size: int | None = None
) -> Worker:
    """The worker that trains on a bench."""

    def score(order: ScoreSaved) -> Mapping[str, Score]:
        rows = bench.prepared.data.splits[order.split]
        if not order.saved:
            return {"": bench.score_base(rows, order.split)}
        return bench.score_saved(order.saved, rows, order.split)

    return Worker(
        name,
        bench.trainer,
        bench.save,
        Examiner(bench).examine,
        score=score,
        take_base=bench.take_base,
        shared=shared,
        pack_size=pack_size,
    )


def _refuse_others(name: str, wanted: Mapping[str, str], prepared: Prepared) -> None:
    """Raises DataError or ModelError where this worker would train other rows, or on another base."""
    here = fingerprints(prepared)
    changed = [split for split in wanted if split not in OF_WEIGHTS and wanted[split] != here.get(split)]
    if changed:
        raise DataError(
            f"worker {name} cannot join: it reads other rows than the driver in {', '.join(changed)}",
            where=shown(prepared.config.data.train_names),
            need="the same files and the same tokenizer",
            next="copy the driver's data there, or put both on a shared filesystem",
        )
    if wanted.get(MODEL) != here.get(MODEL):
        raise ModelError(
            f"worker {name} cannot join: its base model has other weights, or another config.json",
            where=required_model(prepared.config),
            need="the same files",
            next="copy the driver's model there, or put both on a shared filesystem",
        )
