"""`loraloom recall forget`: an item is made unsayable, beside others that are kept; or all but it is
trained anew.

A few steps push the answer's tokens away (unlikelihood, Welleck et al., arXiv:1908.04319) while other
items are rehearsed, a few more rehearse alone. That suppresses: what is pushed away can be taught again
in a few steps. Only training anew, from a journal that leaves the item out, leaves nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loraloom.data.rows import Row
from loraloom.errors import RequestError, RunError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.recall.anchors import Anchors, anchors_of
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench, Watch
from loraloom.pipeline.recall.course import Course, Start
from loraloom.pipeline.recall.exam import Answered, Exam
from loraloom.pipeline.recall.keys import Keys
from loraloom.pipeline.recall.learning import SEEDS, Trained, Writers, writers_of
from loraloom.pipeline.recall.material import Material, material_of
from loraloom.pipeline.recall.settle import rebuilt
from loraloom.pipeline.recall.update import Update
from loraloom.pipeline.recall.wake import examined
from loraloom.recall.derived import following, learnt_forms
from loraloom.recall.forms import held_out_forms, trained_forms
from loraloom.recall.graph import built_upon
from loraloom.recall.memory import Memory, opened
from loraloom.recall.mix import Mix, Phases, Pool, StepMix
from loraloom.recall.recipe import RECIPE
from loraloom.recall.state import Entry
from loraloom.recall.verdict import Result

PUSHED_STEPS, KEPT_STEPS = 8, 24
"""Steps that push the answer away, and steps after them that only rehearse the others."""
KEEP = Mix(
    new=0,
    replayed=24,
    unknown=8,
    anchors=4,
    anchor_weight=4.0,
    neighbours=8,
    neighbour_weight=4.0,
)
RATES = (0.1, 0.2, 0.4)
"""Of the wake's rate, one candidate each: the gentlest that suffices is kept."""
OVER_CHANCE, OTHERS_LOSE = 0.05, 0.02
"""What the target may still be answered beyond what the bare base does, and what others may lose."""
NEIGHBOURS = 5


@dataclass(frozen=True)
class Proof:
    """What became of an item and of the others.

    Attributes:
        target_before, target_after: share of all its wordings, trained and never trained, and of what
            follows from it, that are answered.
        chance: the same of the bare base.
        loss_before, loss_after, loss_chance: of the answer, nats a token.
        others_before, others_after: what is answered of everything else.
        neighbours_before, neighbours_after: share of the nearest items that are answered.
    """

    target_before: float
    target_after: float
    chance: float
    loss_before: float
    loss_after: float
    loss_chance: float
    others_before: Result
    others_after: Result
    neighbours_before: float
    neighbours_after: float

    @property
    def fault(self) -> str | None:
        """Why this is not enough; None where it is."""
        if self.target_after > self.chance + OVER_CHANCE:
            return f"{self.target_after:.0%} of its wordings are still answered with it"
        for name in ("verbatim", "held_out"):
            before, after = getattr(self.others_before, name), getattr(self.others_after, name)
            borne = max(OTHERS_LOSE, 1 / self.others_before.forms)
            if after < before - borne - 1e-9:
                return f"the other items would fall from {before:.3f} to {after:.3f}"
        return None


@device_errors()
def forget(folder: Path, name: str, watch: Watch, *, rebuild: bool = False) -> Trained:
    """Make a memory forget an item, prove it, and commit; or roll back and say why.

    Args:
        rebuild: train anew from the journal, without it.

    Raises:
        RequestError: there is no such item, or it is forgotten already.
        RunError: it could not be suppressed without harm to the others; nothing was changed.
    """
    with opened(folder, writes=True) as memory:
        entry = memory.entry(name)
        if entry.standing == "forgotten" and not rebuild:
            raise RequestError(f"`{name}` is forgotten already", where=str(folder), next="ask for it")
        others = [one for one in memory.state.known if one.id != name]
        record: dict[str, Any] = {"op": "forget", "id": name, "rebuilt": rebuild, "committed": True}
        if entry.wake is None:
            # Only the journal knows of it.
            generation = memory.state.generation
            memory.drop_page()
            memory.record({**record, "generation": generation, "losses": {}, "proof": None})
        else:
            _forget_learnt(memory, entry, others, record, watch)
        return Trained(memory, memory.journal.records[-1])


def _forget_learnt(
    memory: Memory, entry: Entry, others: Sequence[Entry], record: Mapping[str, Any], watch: Watch
) -> None:
    everything = [entry, *others]
    bench = MemoryBench(memory, [form for one in everything for form in trained_forms(one.item)], watch)
    proofs = _Proofs(bench, entry, others)
    total = bench.total
    assert total is not None
    before = proofs.of(total)
    if record["rebuilt"]:
        update = rebuilt(bench, others, seeds=SEEDS).update if others else None
        after = proofs.of(update)
        writers: Writers = {} if update is None else {"slow": bench.writer(update)}
        fault = None
        proof = proofs.proof(before, after)
        record = {**record, "composed": built_upon(others)}
    else:
        found = _suppressed(bench, entry, others, total, proofs, before)
        fault = found[2].fault
        writers, after, proof = writers_of(bench, found[0]), found[1], found[2]
    done = {**record, "losses": after.others.losses, "proof": asdict(proof)}
    if fault is not None:
        memory.record({**done, "committed": False, "reason": fault, "losses": before.others.losses})
        raise RunError(
            f"`{entry.id}` could not be suppressed, and the memory is as it was",
            where=str(memory.folder),
            got=fault,
            next=f"loraloom recall forget {memory.folder} {entry.id} --rebuild trains anew without it",
        )
    memory.drop_page()
    memory.commit(writers, done)
    bench.states.keep()


@dataclass(frozen=True)
class _Told:
    """What one adapter answers of the target and of the others."""

    share: float
    loss: float
    others: Answered


class _Proofs:
    """Measures the target, the others, and the nearest of them."""

    def __init__(self, bench: MemoryBench, entry: Entry, others: Sequence[Entry]) -> None:
        self.bench = bench
        self.anchors: Anchors = anchors_of(bench)
        rest, kept = learnt_forms(others), learnt_forms(others, held_out=True)
        # What follows from the others all the same, as where two trajectories meet, is not its own.
        asked = {form.question for form in (*rest, *kept)}
        own, own_held_out = (
            [form for form in following(forms, entry.id) if form.question not in asked]
            for forms in (
                learnt_forms([entry, *others]),
                learnt_forms([entry, *others], held_out=True),
            )
        )
        self.derived = [*rest, *own]
        self.exam = Exam(bench, [one.item for one in others], self.anchors, kept)
        self.rows = bench.rows(
            [
                *trained_forms(entry.item),
                *held_out_forms(entry.item),
                *own,
                *own_held_out,
            ]
        )
        self.nearest = [others[place].id for place in _nearest(bench, entry, others)]
        share, loss = self._target([])
        self.chance = _Told(share, loss, self.exam.taken_by([])[0])

    def of(self, update: Update | None) -> _Told:
        """Of an update; of the bare base, where there is none."""
        with self.bench.seated({CURRENT: update}) as trials:
            share, loss = self._target(trials)
        return _Told(share, loss, examined(self.bench, self.exam, update))

    def _target(self, trials: Sequence[str]) -> tuple[float, float]:
        sums = next(iter(self.bench.sums(self.rows, trials).values()))
        return float((sums.correct == sums.weight).mean()), float(sums.loss.sum() / sums.weight.sum())

    def proof(self, before: _Told, after: _Told) -> Proof:
        return Proof(
            before.share,
            after.share,
            self.chance.share,
            before.loss,
            after.loss,
            self.chance.loss,
            before.others.result,
            after.others.result,
            self._neighbours(before),
            self._neighbours(after),
        )

    def _neighbours(self, told: _Told) -> float:
        found = [told.others.verbatim[name] for name in self.nearest]
        return float(np.mean(found)) if found else 1.0


def _nearest(bench: MemoryBench, entry: Entry, others: Sequence[Entry]) -> list[int]:
    """Places of the items whose questions are nearest to the target's."""
    if not others:
        return []
    (nearness,) = Keys(bench, [one.item for one in others]).nearness([entry.item.question])
    return np.argsort(-nearness)[:NEIGHBOURS].tolist()


def _suppressed(
    bench: MemoryBench,
    entry: Entry,
    others: Sequence[Entry],
    total: Update,
    proofs: _Proofs,
    before: _Told,
) -> tuple[Update, _Told, Proof]:
    """Train candidates of several rates; the gentlest whose proof holds, else the last one."""
    material = material_of(bench, [entry, *others], proofs.anchors, KEEP, RECIPE, proofs.derived)
    target = [*material.of_item[entry.id], *material.following(entry.id)]
    rows = [
        Row(row.input_ids, row.labels, loss="unlikelihood", weight=1 / len(target))
        if number in target
        else row
        for number, row in enumerate(material.rows)
    ]
    steps = PUSHED_STEPS + KEPT_STEPS
    plan = bench.planned(rows, steps)
    starts = [
        Start(
            f"rate x {rate:g}",
            total,
            total.rank,
            _order(material, target, others, before),
            rate=rate,
            more={"lr_scheduler_type": "constant", "warmup_ratio": 0.0},
        )
        for rate in RATES
    ]
    course = Course(bench, plan, rows, starts)
    course.run(doing="forgetting")
    updates = [course.update(name) for name in course.names]
    course.end()
    tried = [(update, proofs.of(update)) for update in updates]
    proven = [(update, told, proofs.proof(before, told)) for update, told in tried]
    return next((one for one in proven if one[2].fault is None), proven[-1])


def _order(material: Material, target: Sequence[int], others: Sequence[Entry], before: _Told) -> Phases:
    keep = material.order(KEEP, [], others, before.others.losses, seed=0)
    push = StepMix([(Pool(target), len(target)), *keep.pools], keep.lengths, seed=0)
    return Phases(push, PUSHED_STEPS, keep)
