"""What the verbs of `loraloom recall` say for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loraloom.cli.screen import plain_console, say, verbatim
from loraloom.data.table import counted
from loraloom.report.words import FOLLOWS

if TYPE_CHECKING:
    from loraloom.pipeline.recall.asking import Answer
    from loraloom.pipeline.recall.learning import Trained
    from loraloom.pipeline.recall.reporting import Report
    from loraloom.pipeline.recall.routes import MapReport
    from loraloom.pipeline.recall.trial import Trial
    from loraloom.recall.gate import Decision, Terms
    from loraloom.recall.graph import Drawn
    from loraloom.recall.memory import Memory
    from loraloom.recall.router import Route

WORDS = {"insert": "written", "reinforce": "seen again", "supersede": "replaces", "skip": "refused"}
SHOWN = 30
"""Items of a long list."""
SHARED = 5
"""Stretches of a map that many routes share."""


def show_notes(memory: Memory) -> None:
    """How the folder was found."""
    console = plain_console()
    for note in memory.notes:
        say(console, f"note: {note}", "  ")


def show_written(memory: Memory, decisions: Sequence[Decision], *, dry_run: bool) -> None:
    """Every decision with its terms, then what comes next."""
    console = plain_console()
    for one in decisions[:SHOWN]:
        name = one.item.id or one.other or "-"
        say(
            console,
            f"{name:<6} {WORDS[one.outcome]:<10} {one.item.question} {one.item.answer}",
            " " * 18,
        )
        say(console, f"{'':<17} {one.reason}; {_terms(one.terms)}", " " * 18)
    if len(decisions) > SHOWN:
        verbatim(console, f"... and {len(decisions) - SHOWN:,} more")
    counts = {word: sum(one.outcome == name for one in decisions) for name, word in WORDS.items()}
    verbatim(console, ", ".join(f"{count:,} {word}" for word, count in counts.items() if count))
    for one in decisions[:SHOWN]:
        if one.outcome == "insert" and one.other is not None:
            told = (
                f"{one.item.id}: if it corrects {one.other}, give it again with --corrects {one.other}"
            )
            say(console, told, "  ")
    waiting = len(memory.state.unlearnt)
    if dry_run:
        verbatim(console, "nothing was written: --dry-run")
    elif waiting:
        verbatim(console, f"{waiting:,} to be learnt: loraloom recall learn {memory.folder}")


def show_learnt(trained: Trained) -> None:
    """What was learnt, and what it cost."""
    console = plain_console()
    record = trained.record
    if record["rebuilt"]:
        say(console, f"{len(record['learnt']):,} items trained anew from the journal")
    else:
        say(
            console,
            f"{len(record['learnt']):,} items in {record['steps']} of at most"
            f" {record['planned_steps']} steps{_best_of(record['candidates'])}",
        )
        _table([("before", record["before"]), ("now", record["after"])])
        unsure = record["unsure"]
        if unsure:
            say(console, f"not yet answered as written: {', '.join(unsure[:8])}; sleep trains on", "  ")
    _next(trained, "sleep")


def show_slept(trained: Trained | None) -> None:
    """What was settled, or why nothing was."""
    console = plain_console()
    if trained is None:
        say(console, "nothing to settle: all that is known has been, and nothing was changed")
        return
    record = trained.record
    say(
        console,
        f"{len(record['replayed']):,} items replayed in {record['steps']} steps"
        f"{_best_of(record['candidates'])}",
    )
    _table([("before", record["before"]), (record["after"]["name"], record["after"])])
    _show_what_follows(record["after"])
    if record["committed"]:
        say(console, "committed: the slow adapter holds all of it, the fast one is empty")
    else:
        say(console, f"rolled back, and nothing was changed: {record['reason']}")


def show_answers(answers: Sequence[Answer]) -> None:
    """Each question with its answers below each other."""
    console = plain_console()
    for one in answers:
        verbatim(console, one.question)
        if one.route is not None and not one.route.remembered:
            say(console, f"  memory     (nothing: {_unknown(one.route)})", " " * 13)
        elif one.memory is not None:
            say(console, f"  memory     {one.memory}", " " * 13)
        say(console, f"  base       {one.base}", " " * 13)
        if one.retrieval is not None and one.found is not None:
            read = f"[{one.found.item}: {one.found.question} {one.found.answer}]"
            say(console, f"  retrieval  {one.retrieval}  {read}", " " * 13)


def _unknown(route: Route) -> str:
    """Why a question is not about what is remembered."""
    from loraloom.recall.router import ENOUGH

    if route.stranger is not None:
        return f"`{route.stranger}` is nowhere in it, so the base answers alone"
    if route.share >= ENOUGH:
        return f"most of this is about something else than `{route.nearest}`"
    return f"no question in it is asked with these words, the nearest has {route.share:.0%} of them"


def show_forgotten(trained: Trained) -> None:
    """The proof, and what it does not say."""
    console = plain_console()
    record = trained.record
    proof = record["proof"]
    if proof is None:
        say(console, f"{record['id']} had not been learnt: only the journal knew of it")
        return
    say(
        console,
        f"answered with it: {proof['target_before']:.0%} of its wordings before,"
        f" {proof['target_after']:.0%} now, {proof['chance']:.0%} by the bare base",
    )
    say(
        console,
        f"loss of its answer: {proof['loss_before']:.2f} nats a token before, {proof['loss_after']:.2f}"
        f" now, {proof['loss_chance']:.2f} by the bare base",
    )
    say(
        console,
        f"nearest items answered: {proof['neighbours_before']:.0%} before,"
        f" {proof['neighbours_after']:.0%} now",
    )
    _table([("others before", proof["others_before"]), ("others now", proof["others_after"])])
    if record["rebuilt"]:
        say(
            console,
            "trained anew without it: the adapters never saw it. The journal still has its words, as"
            " the record of what was written",
        )
    else:
        say(
            console,
            "suppressed, not erased: a few steps of training could bring it back, and the journal still"
            f" has its words. loraloom recall forget {trained.memory.folder} {record['id']} --rebuild"
            " trains anew without it",
        )


def show_report(found: Report) -> None:
    """What is known, recall by wake, what it cost the base, and how large it is."""
    console = plain_console()
    state = found.memory.state
    verbatim(console, f"memory    {found.memory.folder}")
    verbatim(console, f"base      {found.memory.base.name_or_path}")
    standings = [one["standing"] for one in found.items]
    counts = ", ".join(
        f"{standings.count(word):,} {word}" for word in ("kept", "superseded", "forgotten")
    )
    verbatim(
        console,
        f"items     {counts}, {len(found.refused):,} refused; {counted(state.wakes, 'wake')},"
        f" {counted(state.sleeps, 'sleep')}",
    )
    for part, size in found.growth.items():
        verbatim(console, f"{part:<9} rank {size['rank']}, {size['bytes'] / 2**20:.1f} MiB")
    if found.base is not None and found.now is not None:
        _table([("base", _plain(found.base)), ("memory", _plain(found.now))])
        _show_what_follows(_plain(found.now))
        verbatim(console)
        verbatim(console, "   wake  lag  items  as written  other wordings")
        for one in found.by_wake:
            verbatim(
                console,
                f"{one.wake:>7}  {one.lag:>3}  {one.items:>5}  {one.verbatim:>10.2f}"
                f"  {one.other_wordings:>14.2f}",
            )
    for one in found.maps:
        _show_map(one)
    verbatim(console)
    for one in found.items[:SHOWN]:
        mark = {True: "yes", False: "no", None: "-"}[one["answered"]]
        standing = "" if one["standing"] == "kept" else f"({one['standing']}) "
        say(console, f"{one['id']:<6} {mark:<3} {standing}{one['question']} {one['answer']}", " " * 11)
    if len(found.items) > SHOWN:
        verbatim(console, f"... and {len(found.items) - SHOWN:,} more in --json")
    for one in found.refused[-3:]:
        say(console, f"refused: {one['item']['question']} {one['reason']}", "  ")
    say(
        console,
        "an answer by memory needs no index and no room in the prompt; on raw recall, retrieval often"
        " wins",
    )
    verbatim(console, f"page: {found.page.resolve()}")


def show_graph(edges: Sequence[Drawn]) -> None:
    """Every fact with what has become of it; of one that is not built upon, why."""
    console = plain_console()
    if not edges:
        say(console, "no facts: a graph has those that have a subject, a relation and an object")
    for one in edges:
        arrow = f"{one.subject} --{one.relation}--> {one.object}"
        say(console, f"{one.item:<6} {one.status:<11} {arrow}", " " * 19)
        if one.status == "provisional" and one.track is not None:
            say(
                console,
                f"{'':<18} not built upon until it is seen again: fit {one.track.fit:.2f}, score"
                f" {one.track.score:.2f}",
                " " * 19,
            )


def show_trial(found: Trial, *, kept: bool) -> None:
    """What was asked before, between and after, below each other."""
    console = plain_console()
    made = found.made
    verbatim(console, f"{len(made.items):,} invented items in {len(made.sessions):,} sessions")
    verbatim(console, f"seed {made.seed}, sha256 {made.digest}")
    verbatim(console)
    verbatim(console, "        verbatim  near   far  false recall  not known  perplexity  kept  seconds")
    for stage in found.stages:
        one = stage.to_json()
        verbatim(
            console,
            f"{stage.name:<6}  {one['verbatim']:>8.2f}  {one['near']:>4.2f}  {one['far']:>4.2f}"
            f"  {one['false_recall']:>12.2f}  {one['not_known']:>9.2f}  {one['perplexity']:>10.2f}"
            f"  {one['known']:>4.2f}  {stage.seconds:>7.0f}",
        )
    verbatim(console)
    say(console, "verbatim: answered as written; near, far: in wordings that were never trained")
    say(console, "false recall: of names that nobody wrote, those that get a stored answer")
    say(console, "perplexity, kept: of texts that the base wrote, and its own answers still given")
    if not found.slept["committed"]:
        say(console, f"the sleep was rolled back: {found.slept['reason']}")
    if kept:
        verbatim(console, f"next: loraloom recall report {found.folder}")


def _show_map(found: MapReport) -> None:
    """A map: what was walked on it, what is answered on it, and what many routes share."""
    console = plain_console()
    verbatim(console)
    say(
        console,
        f"map {found.map}: {counted(found.places, 'place')}, {counted(found.steps, 'step')},"
        f" {found.trajectories} {'trajectory' if found.trajectories == 1 else 'trajectories'}",
    )
    for name, score in (("walked", found.seen), ("never asked", found.unseen)):
        if not score.pairs:
            continue  # a map of one way has no others
        ratio = "-" if score.ratio is None else f"{score.ratio:.2f}"
        say(
            console,
            f"  {name:<12} {score.pairs:>4} routes, goal reached {score.reached:.2f}, steps that exist"
            f" {score.valid:.2f}, length over the shortest {ratio}",
            " " * 20,
        )
    for route, count in found.macros[:SHARED]:
        say(console, f"  in {count} trajectories: {route}", "    ")


def _plain(result: Any) -> Mapping[str, Any]:
    from dataclasses import asdict

    return asdict(result)


def _terms(terms: Terms) -> str:
    scope = "" if terms.scope is None else f", scope {terms.scope:.2f} of {terms.scope_needed:.2f}"
    return (
        f"surprise {terms.surprise:.2f}, novelty {terms.novelty:.2f}, reward {terms.reward:+.2f},"
        f" pin {terms.pin:.0f}{scope}: score {terms.score:.2f}"
    )


def _table(results: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    console = plain_console()
    width = max(12, *(len(name) for name, _ in results))
    verbatim(
        console, f"{'':<{width}}  as written  other words  unseen: not known  perplexity  base kept"
    )
    for name, one in results:
        verbatim(
            console,
            f"{name:<{width}}  {one['verbatim']:>10.2f}  {one['held_out']:>11.2f}"
            f"  {one['not_known']:>17.2f}  {one['perplexity']:>10.2f}  {one['known']:>9.2f}",
        )


def _show_what_follows(result: Mapping[str, Any]) -> None:
    """What is answered, in other words, of what nobody wrote and follows from what is known."""
    shares = [f"{FOLLOWS.get(kind, kind)} {share:.2f}" for kind, share in result["by_kind"].items()]
    if shares:
        say(plain_console(), f"what follows from it: {', '.join(shares)}", "  ")


def _best_of(candidates: Sequence[Any]) -> str:
    """How many trained, where there was a choice."""
    return f", the best of {len(candidates)} candidates" if len(candidates) > 1 else ""


def _next(trained: Trained, verb: str) -> None:
    verbatim(plain_console(), f"next: loraloom recall {verb} {trained.memory.folder}")
