"""What a proof says, and the file that it lies in. No tensor library is imported here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from loraloom.errors import ModelError, VerificationError

NAME = "proof.json"
DROWNS = 0.5
"""Noise of a format in shares of the adapter's effect from which the adapter counts as drowned."""


@dataclass(frozen=True)
class Promise:
    """What an artefact of a format has to keep to.

    Attributes:
        kl: mean KL, nats a position; None where the format's loss has no bound and is only told.
        relative: largest difference of two logits, in shares of the largest logit; None where rounding
            decides it.
        of_effect: mean KL in shares of the adapter's effect that is allowed as well.
    """

    kl: float | None
    relative: float | None = None
    of_effect: float = 0.0


EXACT = Promise(1e-9, 1e-5)
"""Of float32, whoever computes it."""
REPORTED = Promise(None)
"""Of K-quants: their loss is told beside that of the bare base in the same format."""
PROMISES = {
    "F32": EXACT,
    "F16": Promise(1e-5, of_effect=0.01),
    "BF16": Promise(1e-4, of_effect=0.01),
    "PEFT": EXACT,
    "MLX": EXACT,
    "GGUF F32": EXACT,
    "GGUF LoRA": EXACT,
    "GGUF F16": Promise(1e-5, of_effect=0.01),
    "GGUF BF16": Promise(2e-4, of_effect=0.01),  # llama.cpp rounds what goes into a product as well
    "GGUF Q8_0": Promise(5e-3, of_effect=0.01),
}
"""Measured on a model of 5 million numbers: a third to a tenth of each, see benchmarks/ship."""


def promise_of(format: str) -> Promise:
    """What is promised of a format."""
    return PROMISES.get(format, REPORTED if format.startswith("GGUF") else PROMISES["BF16"])


@dataclass(frozen=True)
class Proof:
    """What was compared, and how it came out.

    Attributes:
        format: a key of `PROMISES`, or "GGUF " and the name of a K-quant.
        effect: mean KL of the adapter's distribution from the bare base's; None where the head is new.
        allowed_kl: bound of `kl_mean`; None where there is none.
        token_ids_equal: of plain texts and of conversations through the chat template.
        base_kl: mean KL of the bare base in this format from the bare base; None where not measured.
        stops: whether an answer ends with the token that ends the assistant's turns; None where there is
            no template, or whoever generates decides.
        file: of the artefact within its folder; None where it is the folder.
    """

    adapter: str
    base: str
    format: str
    positions: int
    kl_mean: float
    kl_max: float
    relative_difference: float
    top1_agreement: float
    effect: float | None
    allowed_kl: float | None
    token_ids_equal: bool
    passed: bool
    notes: tuple[str, ...] = ()
    base_kl: float | None = None
    stops: bool | None = None
    file: str | None = None

    def lines(self) -> list[str]:
        """It in three plain lines, and what has to be known beside."""
        return [self._difference(), self._agreement(), self._effect(), *self.notes]

    def _difference(self) -> str:
        bounded = self.allowed_kl is not None
        verdict = ("proved" if bounded else "measured") if self.passed else "NOT what was trained"
        bound = f"allowed {self.allowed_kl:.1e}" if bounded else "no bound in this format"
        return (
            f"{verdict}: KL {self.kl_mean:.1e} nats a token on average ({bound}),"
            f" {self.kl_max:.1e} at the worst; largest logit difference {self.relative_difference:.1e}"
        )

    def _agreement(self) -> str:
        ids = "equal" if self.token_ids_equal else "DIFFER"
        stops = {None: "", True: "; its answers end", False: "; its answers DO NOT END"}[self.stops]
        same = f"top-1 agreement {self.top1_agreement:.1%} of {self.positions} tokens"
        return f"{same}; token ids {ids}{stops}"

    def _effect(self) -> str:
        beside = "" if self.base_kl is None else f"; the bare base loses KL {self.base_kl:.1e} by it"
        if self.effect is None:
            return (
                f"effect of the adapter: its head is new, there is no bare base to compare with{beside}"
            )
        noise = self.kl_mean / self.effect if self.effect else float("inf")
        drowned = f": the adapter drowns in {self.format}, use float32" if noise > DROWNS else ""
        return (
            f"effect of the adapter KL {self.effect:.1e}; noise of {self.format} {noise:.2g}"
            f" of it{drowned}{beside}"
        )

    def failed(self, place: Path) -> VerificationError:
        """The error of an artefact that is not what was trained.

        Args:
            place: where it lies now.
        """
        bound = "" if self.allowed_kl is None else f"a KL of at most {self.allowed_kl:.1e}, and "
        error = VerificationError(
            f"{place} is not what was trained",
            got="\n       ".join(self.lines()),
            need=f"{bound}equal token ids",
            next="export again; where that fails too, report it and ship the adapter itself",
        )
        what = {"error": {"what": error.what}, "proof": asdict(self), "rejected": str(place)}
        error.document = what
        return error


def write_proof(folder: Path, proof: Proof) -> None:
    """Put it beside the artefact."""
    text = json.dumps(asdict(proof), indent=2, ensure_ascii=False) + "\n"
    (folder / NAME).write_text(text, encoding="utf-8")


def read_proof(folder: Path) -> Mapping[str, Any]:
    """What an earlier proof says of an artefact: whose adapter and base it was made of.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("adapter"), str):
            known = {field.name for field in fields(Proof)}
            return {name: value for name, value in found.items() if name in known}
        got = "a file that names no adapter"
    except (OSError, ValueError, RecursionError) as error:
        got = str(error)
    raise ModelError(
        f"{folder} has no {NAME} that says what it was made of",
        got=got,
        need="a folder that `loraloom adapter merge` or `export` wrote, or an adapter",
        next="export the adapter again",
    )
