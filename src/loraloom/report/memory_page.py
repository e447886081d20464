"""report.html of a memory: what is known, what was written or refused and why, how well it is recalled,
what that cost the base, and what was forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloom.report.frame import drawn
from loraloom.report.headline import Fact, Headline
from loraloom.report.memory_figures import Record, memory_figures, name_of
from loraloom.report.words import FOLLOWS, MISSING

MOST_DECISIONS = 1000
"""In the table of decisions; the journal has all of them."""
OUTCOMES = {"insert": "written", "reinforce": "seen again", "supersede": "replaced", "skip": "refused"}
SUPPRESSED = (
    "Suppressed, not erased: a few steps of training could bring it back, and the journal still has its"
    " words."
)
ERASED = (
    "The adapters were trained anew without it: they never saw it. The journal still has its words, as"
    " the record of what was written."
)
UNLEARNT = "It had not been learnt: only the journal knew of it, and still has its words."


@dataclass(frozen=True)
class Known:
    """A row of the table of items.

    Attributes:
        standing: known, waiting, replaced or forgotten; `by` is the item that replaced it.
        answered: yes, no, or "" where it was not asked.
        others: share of its other wordings that are answered; None where they were not asked.
    """

    item: Record
    standing: str
    by: str
    answered: str
    others: float | None


@dataclass(frozen=True)
class Decided:
    """A row of the table of decisions; `terms` are by the names of the gate's terms."""

    at: str
    id: str
    outcome: str
    question: str
    answer: str
    reason: str
    needed: str
    terms: Mapping[str, float | None]


@dataclass(frozen=True)
class Told:
    """A training: what it was, what it says of itself, and what its candidates answered.

    Attributes:
        rows: (what it is called, its result, whether it was chosen).
    """

    title: str
    at: str
    status: str
    said: Sequence[str]
    rows: Sequence[tuple[str, Record, bool]]


@dataclass(frozen=True)
class Gone:
    """A forgotten item and the proof; `proof` is None where it had never been learnt."""

    id: str
    question: str
    at: str
    proof: Record | None
    said: str
    rebuild: str


def render_memory(
    document: Mapping[str, Any], writes: Sequence[Record], facts: Sequence[Record] = ()
) -> str:
    """The page as text. What was forgotten is left out of all of these already.

    Args:
        document: what `recall report --json` prints.
        writes: the journal's lines about writing.
        facts: what `recall report --graph --json` prints.
    """
    items = {item["id"]: item for item in document["items"]}
    decisions = [one for write in writes for one in _decided(write)]
    return drawn(
        "memory.html.j2",
        memory_figures(document),
        ["page.js", "memory.js"],
        document=document,
        headline=memory_headline(document),
        name=_name(document),
        items=_known(document["items"]),
        kinds=sorted({item["kind"] for item in document["items"]}),
        facts=_by_subject(facts),
        follows=_follows(document["now"]),
        maps=document.get("maps", ()),
        decisions=decisions[::-1][:MOST_DECISIONS],
        more_decisions=max(0, len(decisions) - MOST_DECISIONS),
        terms=list(dict.fromkeys(name for one in decisions for name in one.terms)),
        trainings=[_told(record) for record in reversed(document["trainings"])],
        gone=_gone(document, items),
        commands=_commands(document),
    )


def memory_headline(document: Mapping[str, Any]) -> Headline:
    """What the page says first."""
    kept = [item for item in document["items"] if item["standing"] == "kept"]
    waiting = [item for item in kept if item["wake"] is None]
    base, now = document["before"], document["now"]
    waits = f"{len(waiting):,} written and not learnt yet." if waiting else ""
    if base is None or now is None:
        return Headline("Nothing is learnt yet.", (waits,) if waits else (), ())
    known = len(kept) - len(waiting)
    right = sum(bool(item["answered"]) for item in kept)
    rise = now["perplexity"] / base["perplexity"] - 1
    support = [
        f"Of other wordings, which are never trained, it answers {now['held_out']:.0%}; of questions"
        f" about names that nobody wrote {now['not_known']:.0%} with not knowing.",
        f"Texts of the bare base's own have a perplexity of {now['perplexity']:.2f} under it,"
        f" {base['perplexity']:.2f} without it.",
        waits,
    ]
    facts = (
        Fact("as written", f"{right:,} of {known:,}", "answered word for word"),
        Fact("other wordings", f"{now['held_out']:.0%}", f"the bare base {base['held_out']:.0%}"),
        Fact("unseen names", f"{now['not_known']:.0%}", "answered with not knowing"),
        Fact("perplexity", f"{rise:+.1%}", "on the base's own texts"),
        Fact("adapters", _size(document["growth"]), _ranks(document["growth"])),
    )
    title = f"It answers {right:,} of the {known:,} things that it has learnt."
    return Headline(title, tuple(line for line in support if line), facts)


def _known(items: Sequence[Record]) -> list[Known]:
    replaced_by = {item["supersedes"]: item["id"] for item in items if item["supersedes"]}
    return [_known_one(item, replaced_by.get(item["id"], "")) for item in items]


def _known_one(item: Record, by: str) -> Known:
    kept = "waiting" if item["wake"] is None else "known"
    standing = {"kept": kept, "superseded": "replaced"}.get(item["standing"], "forgotten")
    answered = {True: "yes", False: "no", None: ""}[item["answered"]]
    return Known(item, standing, by, answered, item["other_wordings"])


def _decided(write: Record) -> list[Decided]:
    rows: list[Decided] = []
    for one in write["decisions"]:
        item = one["item"]
        terms = dict(one["terms"])
        terms.pop("scope_needed", None)
        needed = one.get("threshold")
        rows.append(
            Decided(
                write["at"],
                item["id"] or one["other"] or "",
                OUTCOMES[one["outcome"]],
                item["question"],
                item["answer"],
                one["reason"],
                "" if needed is None else f"{needed:.2f}",
                terms,
            )
        )
    return rows


def _follows(now: Record | None) -> list[tuple[str, float]]:
    """Shares of what follows from what is known, by how it follows."""
    by_kind: Mapping[str, float] = {} if now is None else now.get("by_kind", {})
    return [(FOLLOWS.get(kind, kind), share) for kind, share in by_kind.items()]


def _by_subject(facts: Sequence[Record]) -> dict[str, list[Record]]:
    """The facts that are kept, by what they are about."""
    found: dict[str, list[Record]] = {}
    for fact in facts:
        if fact["status"] not in ("superseded", "forgotten"):
            found.setdefault(fact["subject"], []).append(fact)
    return dict(sorted(found.items(), key=lambda one: one[0].casefold()))


def _told(record: Record) -> Told:
    op = record["op"]
    committed = record.get("committed", True)
    said: list[str] = []
    if op == "learn":
        steps = (
            f" in {record['steps']} of at most {record['planned_steps']} steps"
            if "steps" in record
            else ""
        )
        said.append(f"{_items(record['learnt'])}{steps}.")
        if record.get("unsure"):
            said.append(f"Not yet answered as written: {', '.join(record['unsure'])}.")
    elif op == "sleep":
        said.append(f"{_items(record['replayed'])} replayed in {record['steps']} steps.")
    if committed:
        said.append(f"Committed as generation {record['generation']}.")
    else:
        said.append(f"Rolled back, and nothing was changed: {record['reason']}.")
    rows = [("before", record["before"], False)] if "before" in record else []
    after = record.get("after")
    candidates = record.get("candidates") or ([after] if after else [])
    rows += [(one["name"], one, committed and one == after) for one in candidates]
    if proof := record.get("proof"):
        rows = [("others, before", proof["others_before"], False)]
        rows.append(("others, after", proof["others_after"], committed))
    status = "committed" if committed else "rolled back"
    return Told(name_of(record), record["at"], status, said, rows)


def _gone(document: Mapping[str, Any], items: Mapping[str, Record]) -> list[Gone]:
    """Forgotten items, the last one first."""
    found: list[Gone] = []
    rebuilt = False
    for record in reversed(document["trainings"]):
        if not record.get("committed", True):
            continue
        rebuilt = rebuilt or bool(record.get("rebuilt"))
        if record["op"] != "forget":
            continue
        erased = ERASED if rebuilt else SUPPRESSED
        said = erased if record["proof"] else UNLEARNT
        again = _recall("forget", document, record["id"], "--rebuild")
        rebuild = again if record["proof"] and not rebuilt else ""
        question = items[record["id"]]["question"]
        found.append(Gone(record["id"], question, record["at"], record["proof"], said, rebuild))
    return found


def _commands(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to do next, each with its command."""
    kept = [item for item in document["items"] if item["standing"] == "kept"]
    found: list[tuple[str, str]] = []
    if any(item["wake"] is None for item in kept):
        found.append(("Learn what waits:", _recall("learn", document)))
    if "fast" in document["growth"]:
        found.append(("Settle what was learnt in one adapter:", _recall("sleep", document)))
    if document["growth"]:
        asked = next(item["question"] for item in kept if item["wake"] is not None)
        found.append(("Ask it, beside the bare base and retrieval:", _recall("ask", document, asked)))
    return found


def _recall(verb: str, document: Mapping[str, Any], *words: str) -> str:
    return shlex.join(["loraloom", "recall", verb, document["memory"], *words])


def _name(document: Mapping[str, Any]) -> str:
    return str(document["memory"]).rstrip("/").rpartition("/")[2]


def _items(names: Sequence[str]) -> str:
    return f"{len(names):,} item{'' if len(names) == 1 else 's'}"


def _size(growth: Mapping[str, Mapping[str, int]]) -> str:
    return f"{sum(part['bytes'] for part in growth.values()) / 2**20:.1f} MiB" if growth else MISSING


def _ranks(growth: Mapping[str, Mapping[str, int]]) -> str:
    return " and ".join(f"{name}: rank {part['rank']}" for name, part in growth.items())
