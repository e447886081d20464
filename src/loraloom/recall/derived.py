"""What follows from the items that are kept: questions that nobody wrote, with the answers that they
have.

They are trained at sleep beside the items' own forms. Nothing of them is stored: they are worked out
from the journal each time, so that what a correction or a forgotten item changes is changed in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loraloom.recall.composed import graph_forms
from loraloom.recall.forms import Form, held_out_forms
from loraloom.recall.items import key_of
from loraloom.recall.state import Entry

SOURCES: tuple[Callable[..., list[Form]], ...] = (graph_forms,)
"""Each takes the entries and `held_out`, and gives forms that name what they follow from."""


def derived_forms(entries: Sequence[Entry], *, held_out: bool = False) -> list[Form]:
    """The questions that follow from these entries, each once; none that an item asks itself.

    Args:
        held_out: other wordings of the same, that are never trained and only measure.
    """
    kept = [entry for entry in entries if entry.standing == "kept"]
    own = {key_of(question) for entry in kept for question in entry.item.asked}
    own |= {key_of(form.question) for entry in kept for form in held_out_forms(entry.item)}
    found: dict[str, Form] = {}
    for source in SOURCES:
        for form in source(kept, held_out=held_out):
            if key_of(form.question) not in own:
                found.setdefault(form.question, form)
    return list(found.values())


def settled_of(entries: Sequence[Entry]) -> list[Entry]:
    """Those that a sleep has trained on: what follows from others was never trained."""
    return [entry for entry in entries if entry.consolidated]


def following(forms: Sequence[Form], item: str) -> list[Form]:
    """Those that follow from this item, perhaps with others."""
    return [form for form in forms if item in form.of]
