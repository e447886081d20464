"""Settling everything in one slow adapter: what sleep trains, and what is trained anew from the
journal.

Recall dips before it rises again, so candidates are measured at their end: the whole update and a weaker
one, which train in one pack. (Half the rank kept less, and took as long; the mean of the last third of
the steps kept no more than the end.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loraloom.errors import RequestError
from loraloom.pipeline.recall.anchors import anchors_of
from loraloom.pipeline.recall.bench import MemoryBench
from loraloom.pipeline.recall.course import Course, Start
from loraloom.pipeline.recall.exam import Answered, Exam
from loraloom.pipeline.recall.material import material_of
from loraloom.pipeline.recall.update import Update
from loraloom.pipeline.recall.wake import examined, wake
from loraloom.recall.derived import derived_forms
from loraloom.recall.mix import sleep_mix, sleep_steps
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.state import Entry
from loraloom.recall.verdict import chosen


@dataclass(frozen=True)
class Settled:
    """What a sleep made, and what was before.

    Attributes:
        replayed: how many rows of the journal it trained on.
        candidates: all that was measured.
        tokens: that all of them trained on, together.
    """

    update: Update
    before: Answered
    after: Answered
    candidates: tuple[Answered, ...]
    replayed: int
    steps: int
    tokens: int


def settled(
    bench: MemoryBench, entries: Sequence[Entry], total: Update, recipe: Recipe = RECIPE
) -> Settled:
    """One slow adapter out of all that is there, trained on the whole journal by cross entropy.

    Distilling the model itself would teach it its own errors; the journal is what is true.

    Raises:
        RequestError: the journal has nothing to replay.
    """
    if not entries:
        raise RequestError(
            "0 items would be replayed, and a sleep that replays nothing settles nothing",
            where=str(bench.memory.folder),
            next=f"loraloom recall write {bench.memory.folder} --data items.jsonl, then learn",
        )
    anchors = anchors_of(bench)
    exam = Exam(bench, [entry.item for entry in entries], anchors, derived_forms(entries, held_out=True))
    before = examined(bench, exam, total)
    derived = derived_forms(entries) if recipe.derived else []
    material = material_of(bench, entries, anchors, sleep_mix(recipe), recipe, derived)
    fresh = material.fresh(bench, total)
    ways = len(material.ways - set(fresh))
    counts = {"settled": material.forms - len(fresh) - ways, "fresh": len(fresh), "ways": ways}
    mix, steps = sleep_mix(recipe, **counts), sleep_steps(recipe, **counts)
    plan = bench.planned(material.rows, steps)
    # What follows is new to the adapter, and a settling's rate would not teach it.
    slowdown = 1.0 if mix.new else recipe.slowdown
    starts = [
        Start(
            f"scale {scale:g}",
            total.cut_to(bench.rank).times(scale),
            bench.rank,
            material.order(mix, [], entries, before.losses, seed=0, fresh=fresh if mix.new else ()),
            rate=recipe.rate / slowdown,
        )
        for scale in (recipe.scales[:1] if mix.new else recipe.scales)
    ]
    course = Course(bench, plan, material.rows, starts)
    course.run(doing="settling")
    found = tuple(exam.taken_by(course.names))
    best = chosen([one.result for one in found])
    after = next(one for one in found if one.result is best)
    update, tokens = course.update(best.name), course.tokens
    course.end()
    return Settled(update, before, after, found, material.forms, steps, tokens)


def rebuilt(
    bench: MemoryBench, entries: Sequence[Entry], *, seeds: int, recipe: Recipe = RECIPE
) -> Settled:
    """One slow adapter, trained from nothing on what the journal keeps: what was forgotten has no part
    in it."""
    learnt = wake(bench, entries, [], {}, candidates=seeds, recipe=recipe)
    fresh = [replace(entry, loss=learnt.after.losses[entry.id]) for entry in entries]
    return settled(bench, fresh, learnt.total, recipe)
