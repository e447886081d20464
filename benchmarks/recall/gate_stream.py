"""What a day brings: new things, corrections, repeats, and what nobody has to remember.

Each row says whether it should be written. That label measures; no part of loraloom sees it.
"""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from loraloom.recall.workload import NOBODY, Workload, workload

Sort = Literal["new", "update", "repeat", "reworded", "talk", "nobody", "random"]
WRITTEN: tuple[Sort, ...] = ("new", "update")
"""What should be written: nothing else."""
SESSION = 20
UPDATES, REPEATS, REWORDED, RANDOM = 6, 6, 12, 8
TALK = (
    ("How are you today?", "Fine, thanks, and you?"),
    ("Good morning, did you sleep well?", "Like a stone."),
    ("Nice weather we are having, is it not?", "Yes, it could not be better."),
    ("Are you coming along?", "In a minute."),
    ("Shall we go for a walk later?", "If it stays dry."),
    ("Did you hear that noise?", "It was only the wind."),
    ("Could you pass me the salt, please?", "Here you are."),
    ("What's up?", "Not much."),
    ("Is it not a bit late for coffee?", "Never too late."),
    ("You look tired, is everything all right?", "It was a long week."),
    ("Long time no see, how is life?", "Busy as always."),
    ("Would you mind closing the door?", "Not at all."),
    ("Ready to go?", "Almost."),
    ("Sorry, am I late?", "Right on time."),
    ("Is anybody home?", "Coming!"),
)
"""Small talk."""
TO_NOBODY = (
    ("Why does time fly so fast?", "Who can say."),
    ("What would the world be without music?", "A sad place."),
    ("Where do all the lost socks go?", "That is a riddle."),
    ("What is the meaning of all this?", "There is none."),
    ("Who invented Mondays anyway?", "Somebody cruel."),
    ("How long is a piece of string?", "Twice half its length."),
    ("When will people ever learn?", "Perhaps never."),
    ("Where did the summer go?", "It went by."),
    ("Who is to say what is right?", "Each for oneself."),
    ("What makes a good friend?", "Patience."),
)
"""Questions to nobody."""


@dataclass(frozen=True)
class Told:
    """One row of a stream.

    Attributes:
        item: of the workload, that it says or repeats; `NOBODY` for none.
    """

    sort: Sort
    question: str
    answer: str
    item: int = NOBODY

    @property
    def row(self) -> Mapping[str, str]:
        """As `recall write` reads it."""
        return {"question": self.question, "answer": self.answer}


@dataclass(frozen=True)
class Stream:
    """A first session that is known, and what comes after it.

    Attributes:
        made: two sessions; the first is known, the second is what is new.
        corrected: the answers that count in the end, by item.
    """

    seed: int
    made: Workload
    told: tuple[Told, ...]
    corrected: Mapping[int, str]

    @property
    def digest(self) -> str:
        """sha256 of everything in it."""
        plain = {"made": self.made.digest, "told": [asdict(one) for one in self.told]}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @property
    def share(self) -> float:
        """Of the stream that should be written."""
        return sum(one.sort in WRITTEN for one in self.told) / len(self.told)


def stream(seed: int) -> Stream:
    """A stream after one session. Half of what is new comes in words by hand, as reworded repeats do."""
    rng = random.Random(seed)
    made = workload(seed, sessions=2, items=SESSION)
    ways: dict[tuple[int, str], list[str]] = {}
    for one in made.questions:
        ways.setdefault((one.item, one.way), []).append(one.question)
    items = made.items
    told = [
        Told("new", ways[place, "far" if place % 2 else "verbatim"][0], items[place].answer, place)
        for place in range(SESSION, 2 * SESSION)
    ]
    known = rng.sample(range(SESSION), UPDATES + REPEATS + REWORDED - 4)
    answers = _others(made, known[:UPDATES], rng)
    told += [Told("update", items[place].question, answers[place], place) for place in known[:UPDATES]]
    kept = known[UPDATES:]
    for number in range(REPEATS):
        item = items[kept[number]]
        told.append(Told("repeat", item.question.lower(), item.answer.upper(), kept[number]))
    for number in range(REWORDED):
        place = kept[-1 - number % (len(kept) - 2)]
        way = ways[place, "far" if number % 2 else "near"]
        told.append(Told("reworded", way[number // 2 % len(way)], items[place].answer, place))
    told += [Told("talk", *pair) for pair in TALK] + [Told("nobody", *pair) for pair in TO_NOBODY]
    letters = string.ascii_lowercase + string.digits + "   "
    for _ in range(RANDOM):
        text = "".join(rng.choice(letters) for _ in range(rng.randint(16, 48))).strip()
        told.append(Told("random", f"{text[:-6]}?", text[-6:].strip() or "q"))
    unique = list({(one.question.casefold(), one.sort): one for one in told}.values())
    rng.shuffle(unique)
    return Stream(seed, made, tuple(unique), answers)


def _others(made: Workload, places: list[int], rng: random.Random) -> dict[int, str]:
    """New answers: each another item's that answers the same kind of question."""
    rows = [row for session in made.sessions for row in session]
    found: dict[int, str] = {}
    for place in places:
        row = rows[place]
        sort = row.get("relation") or row["ask"]
        alike = [
            item.answer
            for other, item in zip(rows, made.items, strict=True)
            if (other.get("relation") or other["ask"]) == sort
            and item.answer != made.items[place].answer
        ]
        found[place] = rng.choice(alike)
    return found
