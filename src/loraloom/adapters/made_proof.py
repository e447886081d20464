"""The proof of an adapter that was made of others: its update, read back from the disk, beside the one
that was asked for, in float64; with a base also its logits beside those of the adapters together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.factors import Pair, difference_norm, product_norm
from loraloom.adapters.form import Form
from loraloom.adapters.proof import NAME, Proof
from loraloom.errors import VerificationError

ROUNDED = 1e-5
"""Relative error of a sum, cut or stored in float32, that counts as none."""
NEARLY = 1.0001
"""How much more than the least possible error of its rank a truncation may have."""


@dataclass(frozen=True)
class MadeProof:
    """What was compared, and how it came out. Errors are |got - asked| / |asked|, over all layers.

    Attributes:
        made_by: combine, average, resize or extract.
        adapters: what it was made of.
        expected: the error that was computed before it was written.
        least: error of the best adapter of its rank; None where the method means to change the sum,
            or it is not known.
        logits: with a base only.
    """

    made_by: str
    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    error: float
    expected: float
    least: float | None = None
    logits: Proof | None = None

    @property
    def _is_right(self) -> bool:
        as_computed = abs(self.error - self.expected) <= ROUNDED
        best = self.least is None or self.error <= self.least * NEARLY + ROUNDED
        return as_computed and best

    @property
    def passed(self) -> bool:
        return self._is_right and (self.logits is None or self.logits.passed)

    def lines(self) -> list[str]:
        """It in plain lines."""
        return [self._update(), *([] if self.logits is None else self.logits.lines()[:2])]

    def _update(self) -> str:
        if not self._is_right:
            return (
                f"NOT what was asked for: the update on the disk is {self.error:.2e} beside it,"
                f" {max(self.expected, self.least or 0.0):.2e} was computed"
            )
        if self.error <= ROUNDED:
            return f"proved: the update on the disk is the one asked for (error {self.error:.0e})"
        if self.least is not None:
            beside = "the one asked for, as little as its rank allows"
        elif self.made_by == "extract":
            beside = "the difference of the two models"
        else:
            beside = "the plain sum, which the method changes on purpose"
        return (
            "proved: the update on the disk is the one that was computed,"
            f" {self.error:.1%} beside {beside}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def failed(self, place: Path) -> VerificationError:
        """The error of an adapter that is not what was asked for.

        Args:
            place: where it lies now.
        """
        error = VerificationError(
            f"{place} is not what was asked for",
            got="\n       ".join(self.lines()),
            next="make it again; where that fails too, report it",
        )
        error.document = {
            "error": {"what": error.what},
            "proof": self.to_json(),
            "rejected": str(place),
        }
        return error


def write_made_proof(folder: Path, proof: MadeProof) -> None:
    """Put it beside the adapter."""
    text = json.dumps(proof.to_json(), indent=2, ensure_ascii=False) + "\n"
    (folder / NAME).write_text(text, encoding="utf-8")


def is_made(folder: Path) -> bool:
    """Whether a folder is an adapter with such a proof."""
    try:
        found: Any = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "made_by" in found


def relative_error(form: Form, asked: Mapping[str, Sequence[Pair]]) -> float:
    """|update - asked| / |asked| over all layers, in float64.

    Args:
        asked: by layer the products (A [R, D], B [O, R]) that the update is to be the sum of.
    """
    wrong = every = 0.0
    for path, pairs in asked.items():
        own = [form.factors[path].pair] if path in form.factors else []
        wrong += difference_norm(own, pairs) ** 2
        every += product_norm(pairs) ** 2
    extra = (form.factors[path].pair for path in form.factors.keys() - asked.keys())
    wrong += sum(product_norm([pair]) ** 2 for pair in extra)
    return (wrong / every) ** 0.5 if every else float(wrong > 0)
