"""The verbs of `loraloom adapter` that make another adapter: combine, average, resize, extract."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.combine.adapters import DENSITY, Combined, combine
from loraloom.adapters.combine.conflicts import Conflict, conflicts
from loraloom.adapters.extract import Extracted, extract
from loraloom.adapters.folder import finish, refuse_taken, reject
from loraloom.adapters.form import Form, read_form
from loraloom.adapters.live import reference_of_sum
from loraloom.adapters.made_proof import ROUNDED, MadeProof, relative_error, write_made_proof
from loraloom.adapters.proof import EXACT, REPORTED, Proof
from loraloom.adapters.resize import Resized, resized
from loraloom.adapters.save import write_form
from loraloom.adapters.verify import prove_adapter
from loraloom.errors import RequestError
from loraloom.lora.untrusted_adapter import adapter_folder
from loraloom.pipeline.adapters import base_folder, base_for
from loraloom.pipeline.regmean import combine_by_inputs


@dataclass(frozen=True)
class Made:
    """What was made and where it lies; `out` and `proof` are None after `--dry-run`."""

    found: Combined | Resized | Extracted
    out: Path | None
    proof: MadeProof | None
    conflicts: Sequence[Conflict] = ()
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """The document of the verb."""
        about = {"out": None if self.out is None else str(self.out), **self.found.to_json()}
        if self.conflicts:
            about["conflicts"] = [one.to_json() for one in self.conflicts]
        proof = None if self.proof is None else self.proof.to_json()
        return {**about, **self.more, "proof": proof}


Prove = Callable[[Path, Form], MadeProof]
"""The proof of an adapter that was written, from its folder and what was read back from there."""


def combine_adapters(
    adapters: Sequence[str],
    out: Path,
    weights: str | None,
    method: str,
    *,
    rank: int | None = None,
    density: float = DENSITY,
    seed: int = 0,
    model: str | None = None,
    data: Sequence[str] = (),
    dry_run: bool = False,
) -> Made:
    """One adapter of several.

    Args:
        weights: "0.5,0.5"; 1 for each when None.
        model: base over which the logits are compared too.
        data: rows of each adapter's task, for `regmean`.

    Raises:
        RequestError: they cannot be combined; nothing was written.
        VerificationError: what was written is not what was asked for.
    """
    refuse_taken(out)
    forms = [read_form(adapter_folder(place)) for place in adapters]
    given = [1.0] * len(forms) if weights is None else _numbers(weights)
    if data and method != "regmean":
        raise RequestError(f"--data is read by regmean alone, not by {method}", next="--method regmean")
    between = conflicts(forms)
    if data:
        found = combine_by_inputs(forms, given, data, model)
    else:
        found = combine(forms, given, method, rank=rank, density=density, seed=seed)
    if dry_run:
        return Made(found, None, None, between)
    where, proof = written(found.form, out, proof_of_sum("combine", forms, given, found, model))
    return Made(found, where, proof, between)


def proof_of_sum(
    verb: str, forms: Sequence[Form], weights: Sequence[float], found: Combined, model: str | None
) -> Prove:
    """The proof of adapters that were added up."""

    def prove(folder: Path, form: Form) -> MadeProof:
        logits = None
        if model is not None:
            logits = _logits(folder, forms, _live_weights(weights, found.method), found.error, model)
        error, names = relative_error(form, found.asked), tuple(str(one.folder) for one in forms)
        return MadeProof(verb, names, tuple(weights), error, found.error, found.least, logits)

    return prove


def _live_weights(weights: Sequence[float], method: str) -> Sequence[float]:
    """With which adapters are live together for what a method is measured by, as in `Combined.asked`."""
    if method == "soup":
        return [one / len(weights) for one in weights]
    return [1.0] * len(weights) if method == "regmean" else weights


def resize(
    adapter: str,
    out: Path,
    rank: int | None = None,
    energy: float | None = None,
    ratio: float | None = None,
    *,
    model: str | None = None,
    dry_run: bool = False,
) -> Made:
    """An adapter of another rank.

    Raises:
        RequestError: it cannot be done; nothing was written.
        VerificationError: what was written is not what was asked for.
    """
    refuse_taken(out)
    form = read_form(adapter_folder(adapter))
    found = resized(form, rank, energy, ratio)
    if dry_run:
        return Made(found, None, None)

    def prove(folder: Path, read: Form) -> MadeProof:
        logits = None if model is None else _logits(folder, [form], [1.0], found.least, model)
        error = relative_error(read, found.asked)
        return MadeProof("resize", (str(form.folder),), (1.0,), error, found.least, found.least, logits)

    return Made(found, *written(found.form, out, prove))


def extract_adapter(base: str, tuned: str, rank: int, out: Path, *, dry_run: bool = False) -> Made:
    """An adapter out of a base and a model that was trained from it.

    Raises:
        RequestError: it cannot be done; nothing was written.
        VerificationError: what was written is not what was computed.
    """
    refuse_taken(out)
    found = extract(base_folder(base), base_folder(tuned), rank, base)
    if dry_run:
        return Made(found, None, None)
    computed = {path: [factor.pair] for path, factor in found.form.factors.items()}

    def prove(folder: Path, read: Form) -> MadeProof:
        # what was lost by writing comes on top of what a smaller rank loses
        error = found.error + relative_error(read, computed)
        return MadeProof("extract", (tuned,), (1.0,), error, found.error)

    return Made(found, *written(found.form, out, prove))


def written(form: Form, out: Path, prove: Prove) -> tuple[Path, MadeProof]:
    """Write an adapter, prove it as it was read back, and put it in its place.

    Raises:
        VerificationError: it is not what was asked for; it lies beside `out` as `.rejected`.
    """
    partial = write_form(form, out)
    try:
        proof = prove(partial, read_form(partial))
        write_made_proof(partial, proof)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if not proof.passed:
        raise proof.failed(reject(partial, out))
    return finish(partial, out), proof


def _logits(
    folder: Path, forms: Sequence[Form], weights: Sequence[float], error: float, model: str
) -> Proof:
    """Beside those of the adapters live together: the same where nothing was left out."""
    bases = [base_for(form.folder, model) for form in forms]
    files = BaseFiles(bases[0], forms[0])
    promise = EXACT if error <= ROUNDED else REPORTED
    return prove_adapter(folder, reference_of_sum(forms, weights, files), files, promise)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(
            f"--weights is {text}", need="numbers with commas between them", next="--weights 0.5,0.5"
        ) from error
