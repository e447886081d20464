"""Methods that are not ours: elastic weight consolidation, and retrieval in the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from methods import NAIVE, Job, Outcome
from scoring import quiet
from torch import Tensor

from loraloom.lora.routing import BASE, Routing
from loraloom.lora.segment import Segment
from loraloom.pipeline.recall.anchors import Anchors
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.course import Course, Start
from loraloom.pipeline.recall.keys import Keys
from loraloom.pipeline.recall.material import material_of
from loraloom.pipeline.recall.questionnaire import Marks, Questionnaire
from loraloom.pipeline.recall.trial import in_sessions
from loraloom.pipeline.recall.update import Update
from loraloom.recall.mix import steps_for, wake_mix
from loraloom.recall.state import Entry
from loraloom.recall.workload import NOBODY, Asked, shuffled

BETA = 0.999
"""Of AdamW's second moment."""


class Elastic:
    """Online elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796; Schwarz et al.
    2018, arXiv:1805.06370) of an adapter's weights.

    The importance of a weight is the mean square of its gradients over the earlier sessions, as AdamW's
    second moment has it. After each step a weight goes back towards where the last session left it, by
    the proximal step of the penalty, which is stable at any strength.

    Args:
        strength: of a step, for a weight of mean importance.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self._importance: Tensor | None = None
        self._before: Tensor | None = None

    def pull(self, seat: Any) -> None:
        """After a step."""
        if self._importance is None or self._before is None:
            return
        c = self.strength * self._importance / self._importance.mean()
        weights = seat.adapter.arena.weights
        seat.adapter.restore((weights + c * self._before) / (1 + c))
        seat.adapter.refresh()

    def end(self, seat: Any) -> None:
        """A session is over."""
        moment = _second_moment(seat) / (1 - BETA**seat.step)
        self._importance = moment if self._importance is None else self._importance + moment
        self._before = seat.adapter.snapshot()


def _second_moment(seat: Any) -> Tensor:
    """AdamW's, in the layout of the arena."""
    weights = seat.adapter.arena.weights
    found = torch.zeros_like(weights)
    for parameter, state in seat.optimizer.optimizer.state.items():
        start = parameter.storage_offset() - weights.storage_offset()
        found[start : start + parameter.numel()] = state["exp_avg_sq"]
    return found


def elastic(strength: float) -> Callable[[Job], Outcome]:
    """Naive learning with the pull of elastic weight consolidation."""

    def method(job: Job) -> Outcome:
        bench, pull = job.scorer.bench, Elastic(strength)
        entries = [
            Entry(replace(item, id=f"m{number:04d}")) for number, item in enumerate(job.made.items)
        ]
        size = len(job.made.sessions[0])
        update: Update | None = None
        tokens = 0
        for start in range(0, len(entries), size):
            new = entries[start : start + size]
            mix = wake_mix(NAIVE, has_old=False)
            material = material_of(bench, new, Anchors([], [], [], [], []), mix, NAIVE)
            steps = steps_for(NAIVE, len(material.rows_of(new)), mix.new, NAIVE.wake.passes)
            order = material.order(mix, new, [], {}, 0)
            begin = Start("elastic", update, bench.rank, order, rate=job.recipe(NAIVE).rate)
            course = Course(bench, bench.planned(material.rows, steps), material.rows, [begin])

            def after(step: int, course: Course = course) -> bool:
                pull.pull(course.trainer.seats["elastic"])
                return True

            course.run(after, doing="learning")
            pull.end(course.trainer.seats["elastic"])
            update, tokens = course.update("elastic"), tokens + course.tokens
            course.end()
            job.follow(update)
        return Outcome({"learnt": update}, [{"tokens": tokens}])

    return method


def retrieval(job: Job) -> Outcome:
    """The bare base with the nearest item before the question, by the memory's own keys."""
    scorer, made = job.scorer, job.made
    items = made.items
    questions = [one.question for one in made.questions]
    nearest = [int(near_N.argmax()) for near_N in Keys(scorer.bench, items).nearness(questions)]
    prompts = [
        f"{items[place].question} {items[place].answer}\n{question}"
        for question, place in zip(questions, nearest, strict=True)
    ]
    texts = scorer.put.written(prompts, [])
    pairs = list(zip(made.questions, texts, strict=True))
    right = np.array([text == one.answer for one, text in pairs])
    of_other = [one.item == NOBODY and text in scorer.put.stored for one, text in pairs]
    found = [one.item == place for one, place in zip(made.questions, nearest, strict=True)]
    known = [one.item != NOBODY for one in made.questions]
    more = {"nearest_is_right": float(np.mean(np.array(found)[known]))}
    return Outcome({"retrieved": Marks(made.questions, right, np.array(of_other))}, more=more)


def controls(job: Job) -> Outcome:
    """What has to be so whatever is learnt: an adapter of zeros writes what the base does, and whoever
    is taught the answers of others does not know the true ones."""
    scorer, made = job.scorer, job.made
    taught = shuffled(made, made.seed)
    records = in_sessions(job.folder, job.model, taught, quiet)
    update = scorer.total(job.folder)
    assert update is not None
    asked = [
        Asked(number, item.question, item.answer, "verbatim") for number, item in enumerate(taught.items)
    ]
    put = Questionnaire(scorer.bench, asked, [item.answer for item in taught.items])
    zeros, questions = update.times(0.0), [item.question for item in made.items]
    with scorer.bench.seated({CURRENT: zeros}) as trials:
        as_zeros = scorer.put.written(questions, trials)
    more = {
        "zeros_move_logits_by": _moved(scorer.bench, zeros, questions),
        "what_was_learnt_moves_them_by": _moved(scorer.bench, update, questions),
        "zeros_write_what_the_base_does": as_zeros == scorer.put.written(questions, []),
        "answers_of_others_that_were_taught": put.marks(update).share("verbatim"),
        "chance": 1 / len(made.items),
    }
    return Outcome({"taught the answers of others": update}, records, more)


def _moved(bench: MemoryBench, update: Update, questions: Sequence[str]) -> float:
    """The largest difference of a logit after a question from the bare base's. Of zeros it is 0, but
    where products in a pack are computed by another library than the base's own (oneDNN on AMD)."""
    moved = 0.0
    for question in questions:
        prompt = torch.tensor([bench.prompt(question)])
        with torch.no_grad(), bench.seated({CURRENT: update}) as trials:
            with bench.packed.route(Routing((Segment(trials[0], 0, 1),))) as model:
                own = model(input_ids=prompt, use_cache=False).logits
            with bench.packed.route(BASE) as model:
                base = model(input_ids=prompt, use_cache=False).logits
        moved = max(moved, float((own - base).abs().max()))
    return moved
