"""Which of several trained adapters is kept, and whether any is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

A_POINT = 0.01
KEPT = 0.95
"""Share of the held-out wordings answered before that has to be answered after, where recall as a whole
rose."""


@dataclass(frozen=True)
class Result:
    """What a candidate was measured to be.

    Attributes:
        name: candidate and what was done to it, for people.
        verbatim: share of trained questions that are answered word for word.
        held_out: the same of wordings that were never trained.
        not_known: share of questions about unseen names that are answered with not knowing.
        moved: KL(base || candidate) on texts of the base that were not trained, nats a token.
        perplexity: on the same texts; `known` the share of the base's answers that are still given.
        forms: how many wordings `held_out` counts; `derived_forms`, how many `derived` does.
        items: how many questions `verbatim` counts.
        derived: as `held_out`, of what follows from several items; 1 where nothing does.
        by_kind: the same by how it follows.
    """

    name: str
    verbatim: float
    held_out: float
    not_known: float
    moved: float
    perplexity: float
    known: float
    forms: int = 1
    derived: float = 1.0
    derived_forms: int = 0
    by_kind: Mapping[str, float] = field(default_factory=dict[str, float])
    items: int = 100

    @property
    def recall(self) -> float:
        """What candidates are compared by: held-out wordings, those of what follows and unseen names
        among them."""
        right = self.held_out * self.forms + self.derived * self.derived_forms
        return 0.75 * right / (self.forms + self.derived_forms) + 0.25 * self.not_known


def chosen(results: Sequence[Result]) -> Result:
    """The one that moved the base least of those within a point of the best recall."""
    best = max(one.recall for one in results)
    return min((one for one in results if one.recall >= best - A_POINT), key=lambda one: one.moved)


def worse(after: Result, before: Result) -> str | None:
    """Why `after` is not kept in place of `before`; None where it is no worse.

    A point is borne, and so is one form, which is more than a point where there are few. Where recall
    as a whole rose, as it does by what follows from several items, more is: one question as trained, and
    of other wordings what leaves `KEPT` of them.
    """
    form = question = max(A_POINT, 1 / before.forms)
    if after.recall > before.recall:
        question = max(form, 1 / before.items)
        form = max(form, (1 - KEPT) * before.held_out)
    for name, words, borne in (
        ("verbatim", "questions as trained", question),
        ("held_out", "other wordings", form),
    ):
        was, now = getattr(before, name), getattr(after, name)
        if now < was - borne - 1e-9:
            return f"of {words} {now:.3f} would be answered, {was:.3f} are now"
    return None
