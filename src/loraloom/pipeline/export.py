"""An adapter brought to where it is used: planned, checked, written, proved, put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.export.target import Export, Source, Written
from loraloom.adapters.export.targets import check_target, folder_name, plan_export
from loraloom.adapters.folder import finish, refuse_full, refuse_taken, reject
from loraloom.adapters.form import Form, read_form
from loraloom.adapters.operations import SPARE_BYTES
from loraloom.adapters.proof import Proof, write_proof
from loraloom.adapters.verify import Reference, kl_of, prove, reference_of
from loraloom.errors import LoraloomError, MemoryBudgetError, RequestError, VerificationError
from loraloom.facts.device import device_facts
from loraloom.lora.untrusted_adapter import adapter_folder
from loraloom.pipeline.adapters import base_for
from loraloom.pipeline.beside import run_around
from loraloom.pipeline.common_system import common_system
from loraloom.plan.memory_after_training import exporting_bytes, proving_bytes
from loraloom.store.find import find_run


@dataclass(frozen=True)
class Exported:
    """What became of one target.

    Attributes:
        out: the folder that was written; None after `--dry-run`.
        unproved: why there is no proof; None where there is one, or nothing was written.
        commands: what to type next.
        notes: what is otherwise than was asked; a proof has them too.
    """

    target: str
    out: Path | None
    bytes: int
    operations: Sequence[str]
    proof: Proof | None
    unproved: str | None
    commands: Sequence[str]
    notes: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Its proof in plain lines, or why there is none."""
        if self.proof is None:
            return [f"not proved: {self.unproved}", *self.notes]
        return self.proof.lines()

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter export --json`."""
        return {
            "target": self.target,
            "out": None if self.out is None else str(self.out),
            "bytes": self.bytes,
            "operations": list(self.operations),
            "proof": None if self.proof is None else asdict(self.proof),
            "not_proved": self.unproved,
            "notes": list(self.notes),
            "commands": list(self.commands),
        }


class Exporter:
    """One adapter on its way to one or several places; the live one is asked once for all of them.

    Args:
        adapter: a PEFT folder, or a run.
        model: the base; the one that the adapter names when None.
    """

    def __init__(self, adapter: str, model: str | None) -> None:
        folder = adapter_folder(adapter)
        self._form = read_form(folder)
        base = base_for(folder, model)
        named = model or self._form.config.get("base_model_name_or_path") or base
        files = BaseFiles(base, self._form)
        system = partial(common_system, folder)
        self.source = Source(self._form, files, str(named), served_name(folder), system)

    def export(
        self, target: str, out: Path, *, must_prove: bool = False, dry_run: bool = False
    ) -> Exported:
        """Bring the adapter to a target.

        Raises:
            RequestError: it cannot be done; nothing was written.
            VerificationError: it is not what was trained, and lies beside `out` as `.rejected`; or it
                has to be proved, and nothing here can run it.
        """
        planned = plan_export(self.source, target)
        self._check(planned, out)
        if dry_run:
            return self._exported(target, planned, None, None, None)
        written = planned.write(out)
        folder = written.folder
        try:
            unproved = self._unprovable(planned)
            proof = None if unproved else self._proved(planned, written)
            for path in planned.for_proof(folder):
                path.unlink()
            if proof is not None:
                write_proof(folder, proof)
        except VerificationError as error:
            error.add_note(f"renamed to {reject(folder, out)}")
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if proof is not None and not proof.passed:
            raise proof.failed(reject(folder, out))
        found = self._exported(target, planned, finish(folder, out), proof, unproved, written.notes)
        if must_prove and unproved:
            raise _not_proved(found)
        return found

    @cached_property
    def reference(self) -> Reference:
        """The live adapter's answers."""
        return reference_of(self._form, self.source.files)

    def _check(self, planned: Export, out: Path) -> None:
        """Raises RequestError where place, disk or memory do not allow it."""
        refuse_taken(out)
        refuse_full(out, planned.bytes + SPARE_BYTES)
        room, largest = device_facts("cpu").free_bytes, largest_layer(self._form, self.source.files)
        if room < (wanted := exporting_bytes(largest)):
            raise MemoryBudgetError(
                "there is not enough memory to export it",
                got=f"{room / 2**20:,.0f} MiB free",
                need=f"{wanted / 2**20:,.0f} MiB: three float32 copies of the largest layer",
                next="end other programs, or export on another machine",
            )

    def _unprovable(self, planned: Export) -> str | None:
        """Why there will be no proof; None where there will be one."""
        missing = planned.missing()
        if missing:
            return missing
        files = self.source.files
        numbers = sum(
            one.bytes // one.dtype.itemsize for tensors in files.files.values() for one in tensors
        )
        need, free = proving_bytes(numbers), device_facts("cpu").free_bytes
        if "reference" not in vars(self) and need > free:
            return (
                f"the live adapter takes {need / 2**30:.1f} GiB in float32,"
                f" {free / 2**30:.1f} GiB are free"
            )
        return None

    def _proved(self, planned: Export, written: Written) -> Proof:
        """Compare what was written, and before it what it was made of."""
        reference, base_kl, notes = self.reference, None, written.notes
        made_of = planned.made_of(written.folder)
        if made_of is not None:
            whole, opened = made_of
            with opened as artefact:
                proof = prove(reference, artefact, whole)
            if not proof.passed:
                return proof
            notes = (f"made of a file in {whole} that was proved: KL {proof.kl_mean:.1e}", *notes)
        beside = planned.base_opened()
        if beside is not None and reference.bare is not None:
            with beside as base:
                found = [base.logits(row) for row in reference.probes.rows]
            base_kl = float(kl_of(reference.bare, found).mean())
        with planned.opened(written.folder) as artefact:
            proof = prove(
                reference,
                artefact,
                planned.format,
                promise=planned.promise,
                base_kl=base_kl,
                file=planned.file,
            )
        return replace(proof, notes=(*proof.notes, *notes))

    def _exported(
        self,
        target: str,
        planned: Export,
        out: Path | None,
        proof: Proof | None,
        unproved: str | None,
        notes: Sequence[str] = (),
    ) -> Exported:
        commands = [] if out is None else planned.commands(out)
        size = planned.bytes if out is None else size_of(out)
        return Exported(target, out, size, planned.words(), proof, unproved, commands, notes)


def export(
    adapter: str,
    target: str,
    model: str | None,
    out: Path,
    *,
    must_prove: bool = False,
    dry_run: bool = False,
) -> Exported:
    """One adapter to one target. Errors as in `Exporter.export`."""
    check_target(target)
    return Exporter(adapter, model).export(target, out, must_prove=must_prove, dry_run=dry_run)


@dataclass(frozen=True)
class Shipped:
    """What became of all targets of one run.

    Attributes:
        failed: the error of each that failed, by target.
    """

    run: str
    out: Path
    exported: Sequence[Exported]
    failed: Mapping[str, LoraloomError]

    def to_json(self) -> dict[str, Any]:
        """The document of `ship --json`."""
        return {
            "run": self.run,
            "out": str(self.out),
            "artefacts": [one.to_json() for one in self.exported],
            "failed": {target: error.render() for target, error in self.failed.items()},
        }


def ship(
    run: str, targets: Sequence[str], model: str | None, out: Path | None, output_dir: str
) -> Shipped:
    """The best of a run to several targets; one that fails does not hold the others up.

    Args:
        out: where each gets a folder; None for `ship/` in the run's own.

    Raises:
        RequestError: there is no such run, adapter or target; nothing was written.
    """
    if not targets:
        raise RequestError("no target was named", next="--to gguf:Q4_K_M,vllm")
    for target in targets:
        check_target(target)
    place = Path(run) if Path(run).exists() else find_run(run, output_dir).path
    exporter = Exporter(str(place), model)
    home = place / "ship" if out is None else out
    done: list[Exported] = []
    failed: dict[str, LoraloomError] = {}
    for target in dict.fromkeys(targets):
        try:
            done.append(exporter.export(target, home / folder_name(target)))
        except LoraloomError as error:
            failed[target] = error
    return Shipped(str(place), home, done, failed)


def served_name(folder: Path) -> str:
    """What an adapter is called: as the run that it lies in, else as its folder."""
    with suppress(RequestError):
        run = run_around(folder)
        if run is not None:
            return run.path.resolve().name
    return folder.resolve().name


def largest_layer(form: Form, files: BaseFiles) -> int:
    """Numbers of the largest tensor that an update is added to."""
    names = [f"{path}.weight" for path in form.factors]
    sizes = [stored.bytes // stored.dtype.itemsize for name in names if (stored := files.stored(name))]
    return max(sizes, default=0)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _not_proved(found: Exported) -> VerificationError:
    error = VerificationError(
        f"{found.out} was written and is not proved",
        got=found.unproved,
        next="install what is missing, then: loraloom adapter verify",
    )
    error.document = {"error": {"what": error.what}, **found.to_json()}
    return error
