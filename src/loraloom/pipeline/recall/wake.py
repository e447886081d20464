"""Learning what was written: the fast adapter trains over the frozen base and the slow one.

Several seeds train in one pack. Old items are replayed, unseen names are answered with not knowing, and
anchors hold the base where it was. An item that is learnt is no longer drilled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loraloom.data.rows import Row
from loraloom.pipeline.recall.anchors import anchors_of
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.course import Course, Start
from loraloom.pipeline.recall.exam import Answered, Exam
from loraloom.pipeline.recall.material import material_of
from loraloom.pipeline.recall.update import Update
from loraloom.recall.derived import learnt_forms
from loraloom.recall.memory import Part
from loraloom.recall.mix import StepMix, steps_for, wake_mix
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.state import Entry
from loraloom.recall.verdict import chosen

LOOK_EVERY = 10
"""Steps between two looks at what is learnt."""
LOOKED_AT = 4
"""Wordings of an item that are asked at a look."""


@dataclass(frozen=True)
class Learnt:
    """What a wake made.

    Attributes:
        total: slow and fast together, slow first.
        before, after: what was answered of everything, old and new.
        candidates: what each seed answered.
        steps: that were taken; `planned` at most.
        tokens: that all candidates trained on, together.
    """

    total: Update
    before: Answered
    after: Answered
    candidates: tuple[Answered, ...]
    steps: int
    planned: int
    tokens: int


def wake(
    bench: MemoryBench,
    new: Sequence[Entry],
    old: Sequence[Entry],
    parts: Mapping[Part, Update],
    *,
    candidates: int,
    recipe: Recipe = RECIPE,
) -> Learnt:
    """Learn `new` over what is there.

    Args:
        old: what was learnt before and is replayed.
        parts: slow and fast as they are; empty for none.
        candidates: how many seeds train at once.
    """
    anchors = anchors_of(bench)
    everything = [*old, *new]
    exam = Exam(
        bench,
        [entry.item for entry in everything],
        anchors,
        learnt_forms(old, new, recipe, held_out=True),
    )
    slow, fast = parts.get("slow"), parts.get("fast")
    start = slow if fast is None else fast if slow is None else slow.beside(fast)
    before = examined(bench, exam, start)
    mix = wake_mix(recipe, has_old=bool(old))
    derived = learnt_forms(old, new, recipe)
    material = material_of(bench, everything, anchors, mix, recipe, derived)
    drilled = material.drilled(new)
    steps = steps_for(recipe, sum(map(len, drilled)), mix.new, recipe.wake.passes)
    plan = bench.planned(material.rows, steps)
    held = 0 if slow is None else slow.rank
    rank = held + (bench.rank if fast is None else fast.rank)
    orders = {
        f"seed {seed + 1}": material.order(mix, new, old, before.losses, seed)
        for seed in range(candidates)
    }
    starts = [
        Start(name, start, rank, order, rate=recipe.rate, held=held, seed=seed)
        for seed, (name, order) in enumerate(orders.items())
    ]
    course = Course(bench, plan, material.rows, starts)
    taken = _drill(bench, course, orders, material.rows, drilled, steps, recipe)
    results = exam.taken_by(course.names)
    best = chosen([one.result for one in results])
    total, tokens = course.update(best.name), course.tokens
    course.end()
    after = next(one for one in results if one.result is best)
    return Learnt(total, before, after, tuple(results), taken, steps, tokens)


def examined(bench: MemoryBench, exam: Exam, update: Update | None) -> Answered:
    """What an update answers; the bare base, where it is None."""
    with bench.seated({CURRENT: update}) as trials:
        return exam.taken_by(trials, {"": "base", CURRENT: "before"})[0]


def _drill(
    bench: MemoryBench,
    course: Course,
    orders: Mapping[str, StepMix],
    rows: Sequence[Row],
    drilled: Sequence[Sequence[int]],
    steps: int,
    recipe: Recipe,
) -> int:
    """Train until every new item is learnt by every candidate, or the steps are over; how many were
    taken.

    Args:
        drilled: numbers of the rows of each new item, and of what follows from it.
    """
    some = [group[:LOOKED_AT] for group in drilled]
    asked = [rows[number] for group in some for number in group]
    groups = np.repeat(np.arange(len(some)), [len(group) for group in some])
    left = {name: set(range(len(drilled))) for name in orders}
    taken = 0

    def after(step: int) -> bool:
        nonlocal taken
        taken = step
        if step % LOOK_EVERY or step == steps:
            return True
        sums = bench.sums(asked, course.names)
        for name in course.names:
            losses = sums[name].loss / sums[name].weight
            done = {group for group in left[name] if losses[groups == group].max() < recipe.learnt}
            left[name] -= done
            for group in sorted(done):
                orders[name].pools[0][0].rest(drilled[group], recipe.rested)
        return any(left[name] for name in course.names)

    course.run(after, doing="learning")
    return taken
