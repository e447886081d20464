"""The table: every setting of the grid, trained to its end with three seeds, with its curve.

Trainings run many at a time in one pack, which changes none of them; a table is made in pieces and goes
on where it stopped. Losses are kept in half precision: three digits, far finer than the noise of the
rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from definitions import Definition
from numpy.typing import NDArray
from tasks import EVALUATIONS, SEEDS, Task, settings_of

from loraloom.evals.scoring import row_sums
from loraloom.records import Score
from loraloom.search.space import ALPHA, BATCH, RANK, RATE
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

PACK = 16
MOST = 60_000.0
"""The largest loss that half precision holds, nearly."""
Floats = NDArray[np.floating]


@dataclass
class Table:
    """Results by setting P (in the order of `settings_of`), seed S, evaluation E and row R.

    Attributes:
        done: [P, S], whether it was trained.
        validation: [P, S, E, R], mean loss of each validation row.
        train: [P, S, E], smoothed training loss.
        first: [P, S], training loss of the first step.
        held: [P, S, R], mean loss of each held-out row (confirm, then test) at the best checkpoint.
        diverged: [P, S], evaluation by which the trainer gave it up for diverged; E for never.
        base: [R], validation and held-out rows under the bare base.
        weights: [R], supervised tokens of the same rows.
        plan_rate, plan_scale: the plan's own learning rate, round which the grid lies,
            and its alpha / r.
        seconds: CPU time that the trainings took.
    """

    done: NDArray[np.bool_]
    validation: Floats
    train: Floats
    first: Floats
    held: Floats
    diverged: NDArray[np.int8]
    base: Floats
    weights: Floats
    plan_rate: float
    plan_scale: float
    seconds: float

    @classmethod
    def empty(cls, definition: Definition, points: int, plan_rate: float, plan_scale: float) -> Table:
        half = np.float16
        return cls(
            np.zeros((points, SEEDS), bool),
            np.zeros((points, SEEDS, EVALUATIONS, definition.validation_rows), half),
            np.zeros((points, SEEDS, EVALUATIONS), half),
            np.zeros((points, SEEDS), half),
            np.zeros((points, SEEDS, definition.held_rows), half),
            np.full((points, SEEDS), EVALUATIONS, np.int8),
            np.zeros(0, half),
            np.zeros(0, half),
            plan_rate,
            plan_scale,
            0.0,
        )

    @classmethod
    def read(cls, path: Path) -> Table:
        plain: dict[str, Any] = {}
        with np.load(path) as kept:
            for name in kept.files:
                plain[name] = kept[name] if kept[name].ndim else kept[name].item()
        return cls(**plain)

    def write(self, path: Path) -> None:
        """Whole or not at all: a table that is being made is read by others."""
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, **vars(self))
        part.replace(path)


def path_of(folder: Path, task: str) -> Path:
    """Where the table of a task lies."""
    return folder / f"table_{task}.npz"


def scores_of(losses: Floats, weights: Floats, split: str) -> Score:
    """Rows of a table as a score: what the searcher reads."""
    costs, shares = losses.astype(np.float64), weights.astype(np.float64)
    mean = float(costs @ shares / shares.sum())
    return Score(split, {"loss": mean}, tuple(costs.tolist()), tuple(shares.tolist()))


def make(task: Task, path: Path, minutes: float, say: Callable[[str], None]) -> bool:
    """Train what the table lacks until it is full (True) or the time is over."""
    settings = settings_of(task.space)
    table = Table.read(path) if path.is_file() else _begun(task, len(settings))
    left = [
        (point, seed)
        for point, seed in product(range(len(settings)), range(SEEDS))
        if not table.done[point, seed]
    ]
    # Like batch sizes together: they take equally many steps, and none waits for another's rows.
    left.sort(key=lambda one: (settings[one[0]].get(BATCH, 0), one), reverse=True)
    until, began = time.monotonic() + 60 * minutes, time.process_time() - table.seconds
    pack, places = task.trainer(), dict[str, tuple[int, int]]()
    while True:
        while left and len(pack.seats) < PACK and time.monotonic() < until:
            point, seed = left.pop()
            name = f"p{point}s{seed}"
            places[name] = (point, seed)
            pack.join(task.candidate(name, settings[point], seed))
        if not pack.seats:
            break
        pack.tick()
        if _look(task, pack, table, places):
            table.seconds = time.process_time() - began
            table.write(path)
    table.write(path)
    say(
        f"{task.name}: {int(table.done.sum())} of {table.done.size} trainings, {table.seconds:.0f} s of"
        " CPU so far"
    )
    return bool(table.done.all())


def _begun(task: Task, points: int) -> Table:
    """An empty table with the bare base's losses."""
    plan = task.plan
    table = Table.empty(task.definition, points, plan[RATE], plan[ALPHA] / plan[RANK])
    sums = row_sums(
        task.bench.packed,
        task.bench.objective,
        [*task.validation, *task.held_out],
        [],
        task=task.prepared.task,
        pad_id=task.bench.base.pad_id,
        token_budget=1024,
    )[""]
    table.base, table.weights = _halved(sums.loss / sums.weight), _halved(sums.weight)
    return table


def _look(task: Task, pack: PackTrainer, table: Table, places: dict[str, tuple[int, int]]) -> bool:
    """Write down who stands at an evaluation, and let go of those that are done. Gives
    whether there were any."""
    for name in pack.diverged():
        place, seat = places[name], pack.seats[name]
        table.diverged[place] = min(table.diverged[place], _evaluations(seat))
    due = pack.due()
    for name, score in pack.evaluate(due).items() if due else ():
        seat, (point, seed) = pack.seats[name], places[name]
        turn = sorted(seat.evaluation_steps).index(seat.step)
        table.validation[point, seed, turn] = _halved(np.asarray(score.costs))
        table.train[point, seed, turn] = _halved(
            np.asarray(seat.smoothed_loss if seat.smoothed_loss is not None else math.nan)
        )
        table.first[point, seed] = _halved(
            np.asarray(seat.first_loss if seat.first_loss is not None else math.nan)
        )
    ended = pack.finished()
    for name in ended:
        seat = pack.seats[name]
        if seat.best_weights is not None:
            seat.adapter.restore(seat.best_weights)
    for name, score in pack.evaluate(ended, "test", task.held_out).items() if ended else ():
        table.held[places[name]] = _halved(np.asarray(score.costs))
        table.done[places[name]] = True
        pack.leave(name)
    return bool(ended)


def _evaluations(seat: Seat) -> int:
    """Evaluations that lie behind a candidate."""
    return sum(step < seat.step for step in seat.evaluation_steps)


def _halved(values: np.ndarray) -> Floats:
    return np.nan_to_num(values, nan=MOST, posinf=MOST).clip(-MOST, MOST).astype(np.float16)
