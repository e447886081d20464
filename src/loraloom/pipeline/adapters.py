"""The verbs of `loraloom adapter`: adapter and base are found and handed on."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.export.target import Source
from loraloom.adapters.export.targets import opened_again, promise_again
from loraloom.adapters.folder import finish, reject
from loraloom.adapters.form import read_form
from loraloom.adapters.inspect import Inspection, inspect_adapter
from loraloom.adapters.made_proof import is_made
from loraloom.adapters.merge import plan_merge
from loraloom.adapters.merge import to_json as operations_to_json
from loraloom.adapters.operations import Plan, apply, check
from loraloom.adapters.proof import NAME, Proof, read_proof, write_proof
from loraloom.adapters.verify import prove, prove_merged, reference_of
from loraloom.errors import ModelError, RequestError, VerificationError
from loraloom.facts.source import looks_like_path, model_folder
from loraloom.facts.weights import find_weights, weights_fingerprint
from loraloom.lora.base import DTYPES
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.pipeline.beside import record_of, run_around


@dataclass(frozen=True)
class TrainedOver:
    """What is known of the base that an adapter was trained over.

    Attributes:
        fingerprint: of its files; empty where the adapter lies in no run.
        matches: whether the base that was given has it; None where one of the two is not known.
    """

    name: str | None
    quantization: str
    fingerprint: str
    matches: bool | None


def inspect(adapter: str, model: str | None) -> tuple[Inspection, TrainedOver]:
    """Look at an adapter; beside its base where one is named.

    Raises:
        RequestError: one of the two cannot be used, or they do not fit.
    """
    folder = adapter_folder(adapter)
    base = None if model is None else base_folder(model)
    return inspect_adapter(folder, base), trained_over(folder, base)


def base_folder(model: str) -> Path:
    """The folder of a base, or of its copy in the hub's cache.

    Raises:
        ModelError: it is not on this machine.
    """
    try:
        folder = model_folder(model)
    except ValueError:  # what is neither a folder nor a name that the hub could have
        folder = None
    if folder is None:
        fetch = "" if looks_like_path(model) else f"hf download {model}, or "
        raise ModelError(
            f"the base {model} is not on this machine",
            need="a folder with config.json and safetensors",
            next=f"{fetch}--model FOLDER",
        )
    return folder


def base_for(folder: Path, model: str | None) -> Path:
    """The base that was named, else the one that the adapter's config names.

    Raises:
        RequestError: neither names one that is here, or it is not the one that the run trained over.
    """
    name: Any = model or read_adapter_config(folder).get("base_model_name_or_path")
    if not name:
        raise RequestError("the adapter does not say what its base is", next="--model BASE")
    base = base_folder(name)
    over = trained_over(folder, base)
    if over.matches is False:
        raise ModelError(
            f"the adapter in {folder} was trained over other weights than these",
            where=str(base),
            got=f"fingerprint {weights_fingerprint(base)}",
            need=f"{over.fingerprint}, that of {over.name} when the run began",
            next="--model BASE, the files that it was trained over",
        )
    return base


def trained_over(folder: Path, base: Path | None = None) -> TrainedOver:
    """What an adapter's files, and the run that it lies in, say of its base."""
    run = run_around(folder)
    known = "" if run is None else run.result().base_fingerprint
    usable = base is not None and bool(known) and not find_weights(base).problem
    matches = weights_fingerprint(base) == known if usable and base is not None else None
    name = read_adapter_config(folder).get("base_model_name_or_path")
    return TrainedOver(name, record_of(folder).quantization, known, matches)


@dataclass(frozen=True)
class Merged:
    """What `adapter merge` did, or with `--dry-run` would do.

    Attributes:
        out: the folder that was written; None where nothing was.
    """

    plan: Plan
    out: Path | None
    proof: Proof | None

    def to_json(self) -> dict[str, Any]:
        """The document of `adapter merge --json`."""
        return {
            "out": None if self.out is None else str(self.out),
            "bytes": self.plan.bytes,
            "operations": operations_to_json(self.plan),
            "proof": None if self.proof is None else asdict(self.proof),
        }


def merge(
    adapter: str, model: str | None, out: Path, dtype: str | None, *, dry_run: bool = False
) -> Merged:
    """Merge an adapter into a copy of its base, and prove what was written.

    Args:
        dtype: of the weights; None keeps the base's.

    Raises:
        RequestError: it cannot be done; nothing was written.
        VerificationError: the merged model is not what was trained; it lies beside `out` as `.rejected`.
    """
    folder = adapter_folder(adapter)
    form = read_form(folder)
    files = BaseFiles(base_for(folder, model), form)
    plan = plan_merge(form, files, None if dtype is None else DTYPES[dtype])
    check(plan, out)
    if dry_run:
        return Merged(plan, None, None)
    partial = apply(plan, out)
    try:
        proof = prove_merged(partial, reference_of(form, files), files)
        write_proof(partial, proof)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if not proof.passed:
        raise proof.failed(reject(partial, out))
    return Merged(plan, finish(partial, out), proof)


def verify(place: str, model: str | None) -> Proof:
    """Prove an artefact that `merge` or `export` wrote once more, or that an adapter can be merged.

    Raises:
        RequestError: it is neither, or its base is not here.
        VerificationError: it is not what was trained; an artefact is then renamed `.rejected`.
    """
    artefact = Path(place)
    is_artefact = (artefact / NAME).is_file() or (artefact / "config.json").is_file()
    if not is_artefact or is_made(artefact):
        return _verify_adapter(adapter_folder(place), model)
    made_of = read_proof(artefact)
    folder = adapter_folder(made_of["adapter"])
    form = read_form(folder)
    files = BaseFiles(base_for(folder, model or made_of.get("base")), form)
    source = Source(form, files, str(files.folder), folder.name)
    kind, file = str(made_of.get("format")), made_of.get("file")
    try:
        with opened_again(source, kind, artefact, file) as opened:
            reference = reference_of(form, files)
            promise = promise_again(source, made_of)
            proof = prove(
                reference, opened, kind, promise=promise, base_kl=made_of.get("base_kl"), file=file
            )
    except VerificationError as error:
        error.add_note(f"renamed to {reject(artefact, artefact)}")
        raise
    notes = dict.fromkeys([*proof.notes, *made_of.get("notes", ())])
    proof = replace(proof, notes=tuple(notes))
    write_proof(artefact, proof)
    if not proof.passed:
        raise proof.failed(reject(artefact, artefact))
    return proof


def _verify_adapter(folder: Path, model: str | None) -> Proof:
    form = read_form(folder)
    files = BaseFiles(base_for(folder, model), form)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "merged"
        plan = plan_merge(form, files, torch.float32)
        check(plan, out)
        proof = prove_merged(apply(plan, out), reference_of(form, files), files)
    if not proof.passed:
        raise proof.failed(folder)
    return proof
