"""When memory runs out: try again with less at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from loraloom.data.batches import Numbers
from loraloom.errors import RunError
from loraloom.evals.scoring import RowSums
from loraloom.facts.device import held_by_others_now
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.records import Event
from loraloom.train.seat import Seat


def smaller_passes(
    group: Sequence[Seat], micro: Mapping[str, Numbers], lengths: Sequence[int], token_budget: int
) -> tuple[int, Event]:
    """Make the next try of a pass smaller. Steps stay what they are: the same rows, divided by the same
    weight.

    A pass that failed halfway may have left part of its gradients, and earlier passes of an open window
    lie in the same block: so that nothing is counted twice, the windows of all in the pass start anew.

    Args:
        micro: row numbers of each candidate's micro-batch.
        lengths: tokens of each training row.

    Returns:
        The token budget from now on, and a note for the user.

    Raises:
        RunError: one row of one candidate does not fit.
    """
    for seat in group:
        seat.restart_window()
    longest = max(lengths[i] for seat in group for i in micro[seat.id])
    rows = sum(len(micro[seat.id]) for seat in group)
    if len(group) > 1:
        # Never more than half of what has just failed, however large the budget was.
        token_budget = max(1, min(token_budget, longest * rows) // 2)
        whom = f"{len(group)} candidates{_held_by_others()}"
        text = f"memory ran out in a pass of {whom}: passes now hold at most {token_budget} tokens"
        return token_budget, Event("note", data={"text": text, "token_budget": token_budget})
    (seat,) = group
    if rows == 1:
        raise RunError(
            f"memory ran out with one row of {longest} tokens of candidate {seat.id}",
            need="memory for one row of one candidate",
            next="set data.max_length lower, or training.gradient_checkpointing: true",
        )
    seat.micro_rows = -(-rows // 2)
    smaller = f"{seat.id} now takes {seat.micro_rows} rows a pass and as many passes as its batch needs"
    text = f"memory ran out{_held_by_others()}: {smaller}"
    data = {"text": text, "micro_rows": seat.micro_rows}
    return token_budget, Event("note", seat.id, seat.step, data=data)


class Scoring(Protocol):
    """Scores some candidates, or with none of them the bare base, in passes of so many tokens."""

    def __call__(self, trials: Sequence[str], /, *, token_budget: int) -> dict[str, RowSums]: ...


def score_with_less(
    score: Scoring, trials: Sequence[str], budget: int, *, longest: int, failed: Callable[[Event], None]
) -> dict[str, RowSums]:
    """Score in passes of at most `budget` tokens; in smaller ones, then fewer candidates at a time, when
    memory runs out.

    Args:
        longest: tokens of the longest row.
        failed: told of each try that failed; gives memory back.

    Raises:
        RunError: one row of one candidate does not fit.
    """
    try:
        return score(trials, token_budget=budget)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    whom = f"{len(trials)} candidates" if trials else "the bare base"
    text = f"memory ran out while scoring {whom} in passes of {budget} tokens: trying smaller ones"
    failed(Event("note", data={"text": text, "token_budget": budget}))
    if budget > longest * max(1, len(trials)):
        return score_with_less(score, trials, budget // 2, longest=longest, failed=failed)
    if len(trials) > 1:
        half = len(trials) // 2
        first = score_with_less(score, trials[:half], budget, longest=longest, failed=failed)
        return first | score_with_less(score, trials[half:], budget, longest=longest, failed=failed)
    raise RunError(
        f"memory ran out while scoring one row of {longest} tokens", next="set data.max_length lower"
    )


def _held_by_others() -> str:
    """ " (other processes hold 59.5 GiB of its 80.0 GiB)", where they do."""
    held = held_by_others_now()
    return f" ({held})" if held else ""
