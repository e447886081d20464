"""What the searcher was asked and told, in order: played to a new searcher, it brings
that one to the same place.

Samplers and pruners hold states of many kinds, and all of them follow from seed and calls. So the calls
are kept, with the cost of every row, and not the states.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loraloom.records import EndStatus, Score
from loraloom.search.searcher import AskedTrial, Observation, Searcher, Verdict
from loraloom.store.lines import Lines
from loraloom.train.resume import params_of_plain, score_of_plain


class Journal:
    """A searcher that keeps every call in a file. The calls are those of `Searcher`."""

    def __init__(self, searcher: Searcher, lines: Lines) -> None:
        self.searcher = searcher
        self.lines = lines
        self._weights: list[float] | None = None

    def ask(self) -> AskedTrial | None:
        """The next candidate, or None where there is none now. An answer that is known
        beforehand is no call."""
        if not self.searcher.ready:
            return None
        asked = self.searcher.ask()
        self._write("ask", suggestion=None if asked is None else asdict(asked))
        return asked

    def add(self, params: Mapping[str, Any]) -> AskedTrial:
        """A candidate that a user made by hand."""
        asked = self.searcher.add(dict(params))
        self._write("add", params=asked.params)
        return asked

    def extend(self, count: int) -> None:
        """So many candidates more."""
        self.searcher.extend(count)
        self._write("extend", count=count)

    def report(self, observation: Observation) -> None:
        self.searcher.report(observation)
        self._write("report", observation={**vars(observation), "score": self._score(observation.score)})

    def verdicts(self) -> list[Verdict]:
        found = self.searcher.verdicts()
        self._write("verdicts")
        return found

    def tell(self, trial_id: str, status: EndStatus, score: Score | None = None) -> None:
        self.searcher.tell(trial_id, status, score)
        self._write(
            "tell", trial_id=trial_id, status=status, score=None if score is None else self._score(score)
        )

    def play(self) -> int:
        """Give the searcher, which must be new, every call in the file; how many
        candidates it would have drawn otherwise."""
        changed = 0
        for line in self.lines:
            changed += self._play(json.loads(line))
        return changed

    def _play(self, call: Mapping[str, Any]) -> int:
        match call["call"]:
            case "ask" if call["suggestion"] is None:
                self.searcher.ask()
            case "ask":
                given: dict[str, Any] = dict(call["suggestion"])
                given["params"] = params_of_plain(given["params"])
                given.pop("resumed", None)  # older releases wrote it
                return not self.searcher.repeat(AskedTrial(**given))
            case "add":
                self.searcher.add(params_of_plain(call["params"]))
            case "extend":
                self.searcher.extend(call["count"])
            case "report":
                given = dict(call["observation"])
                given["score"] = self._played(given["score"])
                given["schedule_shape"] = tuple(given["schedule_shape"])
                self.searcher.report(Observation(**given))
            case "verdicts":
                self.searcher.verdicts()
            case _:
                self.searcher.tell(
                    call["trial_id"], call["status"], call["score"] and self._played(call["score"])
                )
        return 0

    def _score(self, score: Score) -> dict[str, Any]:
        """A score as plain values; the weights of its rows are those of the last one
        nearly always, and then left out."""
        plain = asdict(score)
        same = list(score.weights) == self._weights
        self._weights = list(score.weights)
        return {**plain, "weights": None} if same else plain

    def _played(self, plain: Mapping[str, Any]) -> Score:
        self._weights = self._weights if plain["weights"] is None else plain["weights"]
        return score_of_plain({**plain, "weights": self._weights})

    def _write(self, call: str, **given: Any) -> None:
        self.lines.append(json.dumps({"call": call, **given}).encode())
