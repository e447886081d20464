"""What was forgotten is not shown: its answer is left out of everything that a memory says of itself.

The journal keeps the words, as the record of what was written; nothing that is made from it has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loraloom.recall.items import MemoryItem, bare, key_of
from loraloom.recall.state import State

FORGOTTEN = "(forgotten)"
"""In place of an answer that the memory was made to forget."""
QUOTED = ", which sa"
"""From here on the reason of a decision quotes the answer of another item."""


class Forgotten:
    """What a memory was made to forget.

    An answer counts as forgotten wherever it stands with its question: in an older item that was
    replaced, or in a row that the gate refused. What was written again since, and is kept, does not.
    """

    def __init__(self, state: State) -> None:
        gone = [entry.item for entry in state.entries.values() if entry.standing == "forgotten"]
        self._ids = {item.id for item in gone}
        self._said = {_said(item.question, item.answer) for item in gone}
        self._said -= {_said(entry.item.question, entry.item.answer) for entry in state.kept}

    def hides(self, item: MemoryItem) -> bool:
        """Whether the answer of an item is not to be shown."""
        return item.id in self._ids or _said(item.question, item.answer) in self._said

    def answer(self, item: MemoryItem) -> str:
        """What may be shown of its answer."""
        return FORGOTTEN if self.hides(item) else item.answer

    def decision(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """What may be shown of a decision of the gate, as the journal has it."""
        item, other, reason = decision["item"], decision["other"], str(decision["reason"])
        if other in self._ids:
            reason = reason.partition(QUOTED)[0]
        is_gone = (item.get("id") or other) in self._ids
        if is_gone or _said(item["question"], item["answer"]) in self._said:
            item = {**item, "answer": FORGOTTEN, "slots": {}, "path": []}
        return {**decision, "item": item, "reason": reason}


def _said(question: str, answer: str) -> tuple[str, str]:
    return key_of(question), bare(answer)
