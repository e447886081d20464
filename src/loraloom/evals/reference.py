"""Log-probabilities of answers under what candidates are held against, each found once for all
candidates and steps, and kept in a file for later runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loraloom.data.batches import collate
from loraloom.data.joined import padded_tokens
from loraloom.data.rows import Example, Row, sides_of
from loraloom.errors import RunError
from loraloom.evals.joined import side_losses
from loraloom.evals.objective import CausalObjective
from loraloom.evals.scoring import in_passes
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.lora.freed_memory import free_memory

CHECKED = 4
"""Rows that are scored again when a file is read."""
KEY_BYTES = 16


class ReferenceLogps:
    """What a frozen model makes of rows.

    Args:
        objective: of a language model of this kind.
        model: the frozen model, while it is open.
        token_budget: padded tokens of a pass.
        tolerance: how far a row may be off that is scored again, as a share of itself or of 1 nat.
    """

    def __init__(
        self,
        objective: CausalObjective,
        model: Callable[[], AbstractContextManager[Any]],
        *,
        pad_id: int,
        token_budget: int,
        tolerance: float = 1e-3,
    ) -> None:
        self.objective = objective
        self.model = model
        self.pad_id = pad_id
        self.token_budget = token_budget
        self.tolerance = tolerance
        self.smaller: str | None = None
        self._known: dict[bytes, float] = {}

    def of(self, examples: Sequence[Example]) -> Tensor:
        """Log-probability of the supervised tokens of each side [S], float64, on the host. What was not
        known is found, and remembered."""
        keys = [tuple(key_of(side) for side in one.sides) for one in examples]
        new = {
            own: one
            for own, one in zip(keys, examples, strict=True)
            if any(key not in self._known for key in own)
        }
        if new:
            found = self.found(list(new.values())).tolist()
            self._known |= dict(zip((key for own in new for key in own), found, strict=True))
        return torch.tensor([self._known[key] for own in keys for key in own], dtype=torch.float64)

    def found(self, examples: Sequence[Example]) -> Tensor:
        """The same by passes of the model, not remembered. Where memory runs out they hold half as much
        from there on.

        Raises:
            RunError: one row does not fit.
        """
        joined = self.objective.joined
        order = sorted(range(len(examples)), key=lambda i: padded_tokens(examples[i], joined=joined))
        passes = in_passes(order, examples, 1, self.token_budget, joined=joined)
        logps: dict[int, Tensor] = {}
        while passes:
            chosen = passes[0]
            own = [examples[i] for i in chosen]
            try:
                logps |= dict(zip(chosen, self._scored(own), strict=True))
                passes.pop(0)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(len(own), max(padded_tokens(one, joined=joined) for one in own))
            left = [i for one in passes for i in one]
            passes = in_passes(left, examples, 1, self.token_budget, joined=joined)
        return torch.cat([logps[i] for i in range(len(examples))])

    @torch.no_grad()
    def _scored(self, examples: Sequence[Example]) -> tuple[Tensor, ...]:
        """The log-probabilities of the sides of each example, of as many as fit into one pass."""
        batch = collate(examples, self.pad_id, "causal_lm", joined=self.objective.joined)
        targets_SU = batch.labels[:, 1:]
        with self.model() as model:
            placed = batch.to(next(model.parameters()).device)
            losses_S, _ = side_losses(model, self.objective.form, placed, targets_SU)
        return (-losses_S).double().cpu().split([len(one.sides) for one in examples])

    def _halve(self, rows: int, longest: int) -> None:
        """Make passes smaller than one of so many rows, which did not fit."""
        with self.model() as model:
            free_memory(next(model.parameters()).device)
        if rows == 1:
            raise RunError(
                f"memory ran out while the reference scored one row of {longest} tokens",
                need="memory for one row",
                next="set data.max_length lower",
            )
        # Never more than half of what has just failed, however large the budget was.
        self.token_budget = rows * longest // 2
        self.smaller = f"memory ran out: the reference scores at most {self.token_budget} tokens a pass"

    def learn(self, examples: Sequence[Example], folder: Path, made_of: Sequence[str]) -> str | None:
        """Know their sides, from a file of an earlier run or by the model; then there is a file.

        Args:
            folder: where files of this kind are.
            made_of: all but the rows that the numbers depend on.

        Returns:
            What a user should know; None where all is well.
        """
        said = self._learn(examples, folder, made_of)
        return "; ".join(text for text in (self.smaller, said) if text) or None

    def _learn(self, examples: Sequence[Example], folder: Path, made_of: Sequence[str]) -> str | None:
        rows = sides_of(examples)
        keys = sorted({key_of(row) for row in rows})
        file = folder / f"{_digest(made_of, keys)}.safetensors"
        fault = self._read(file, rows, keys)
        if fault == "":
            return None
        self.of(examples)
        numbers = torch.tensor([self._known[key] for key in keys], dtype=torch.float64)
        table = torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).copy().reshape(-1, KEY_BYTES))
        said = f"{file}: {fault}; the reference's log-probabilities were made anew" if fault else None
        partial = file.with_name(f".{file.name}.part")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({"keys": table, "logps": numbers}, partial)
            partial.replace(file)
        except (OSError, SafetensorError) as error:
            return f"the reference's log-probabilities are not kept for the next run: {error}"
        return said

    def _read(self, file: Path, rows: Sequence[Row], keys: Sequence[bytes]) -> str | None:
        """ "" where the file told all, None where there is none, else what is wrong with it."""
        if not file.is_file():
            return None
        try:
            kept = load_file(file)
            names = [bytes(row) for row in kept["keys"].numpy()]
            logps_R = kept["logps"].double()
            if not bool(logps_R.isfinite().all()):
                return "it holds numbers that are not finite"
            known = dict(zip(names, logps_R.flatten().tolist(), strict=True))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            return f"it cannot be read ({type(error).__name__})"
        if sorted(known) != list(keys):
            return "it holds other rows"
        some = rows[:: max(1, len(rows) // CHECKED)][:CHECKED]
        again = self.found(some)
        kept_R = torch.tensor([known[key_of(row)] for row in some], dtype=torch.float64)
        if not bool(((again - kept_R).abs() <= self.tolerance * (1 + again.abs())).all()):
            return "its numbers are not those of this model"
        self._known |= known
        return ""


def key_of(row: Row) -> bytes:
    """Equal for rows of the same tokens and labels."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for ids in (row.input_ids, row.labels):
        digest.update(_bytes(ids))
    return digest.digest()


def _bytes(ids: NDArray[np.int32]) -> bytes:
    return len(ids).to_bytes(8, "little") + ids.astype(np.int32).tobytes()


def _digest(made_of: Sequence[str], keys: Sequence[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (*(text.encode() for text in made_of), *keys):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
