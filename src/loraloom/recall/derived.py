"""What follows from the items that are kept: questions that nobody wrote, with the answers that they
have.

They are trained at sleep beside the items' own forms; ways on a map already in the wake that learns a
trajectory: they are most of what a policy is, and too much for sleep's lower rate. Nothing of them is
stored: they are worked out from the journal each time, so that what a correction or a forgotten item
changes is changed in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loraloom.recall.composed import graph_forms
from loraloom.recall.cues import cue_forms
from loraloom.recall.forms import Form, held_out_forms
from loraloom.recall.items import key_of
from loraloom.recall.places import place_forms
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.state import Entry

SOURCES: tuple[Callable[..., list[Form]], ...] = (graph_forms, place_forms, cue_forms)
"""Each takes the entries and `held_out`, and gives forms that name what they follow from."""


def derived_forms(entries: Sequence[Entry], *, held_out: bool = False) -> list[Form]:
    """The questions that follow from these entries, each once; none that an item asks itself, and none
    to which two answers follow.

    Args:
        held_out: other wordings of the same, that are never trained and only measure.
    """
    kept = [entry for entry in entries if entry.standing == "kept"]
    own = {key_of(question) for entry in kept for question in entry.item.asked}
    own |= {key_of(form.question) for entry in kept for form in held_out_forms(entry.item)}
    found: dict[str, list[Form]] = {}
    for source in SOURCES:
        for form in source(kept, held_out=held_out):
            if key_of(form.question) not in own:
                found.setdefault(form.question, []).append(form)
    return [forms[0] for forms in found.values() if len({form.answer for form in forms}) == 1]


def learnt_forms(
    old: Sequence[Entry],
    new: Sequence[Entry] = (),
    recipe: Recipe = RECIPE,
    *,
    held_out: bool = False,
) -> list[Form]:
    """What is known beside the items when they are learnt: what follows from those that a sleep has
    settled, and all ways on the maps of old and new trajectories."""
    if not recipe.derived:
        return []
    settled = derived_forms(settled_of(old), held_out=held_out)
    if not recipe.ways_at_wake:
        return settled
    ways = place_forms([*old, *new], held_out=held_out)
    kinds = {form.kind for form in ways}
    return [*(form for form in settled if form.kind not in kinds), *ways]


def settled_of(entries: Sequence[Entry]) -> list[Entry]:
    """Those that a sleep has trained on: what follows from others was never trained."""
    return [entry for entry in entries if entry.consolidated]


def following(forms: Sequence[Form], item: str) -> list[Form]:
    """Those that follow from this item, perhaps with others."""
    return [form for form in forms if item in form.of]
