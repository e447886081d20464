"""`loraloom recall`: a memory that is written once, learnt, settled, asked and made to forget."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.request import DryRun, Json, Quiet, Verbose
from loraloom.errors import RequestError

recall = typer.Typer(
    name="recall",
    help="Keep a memory in an adapter: write, learn, sleep, ask, forget, report.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="MEMORY", help="Folder of the memory.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="BASE", help="Base of a new memory: a folder, or a hub name."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FILE", help="Items: question and answer, statement, or slots."),
]
Asked = Annotated[str | None, typer.Option("--question", metavar="TEXT", help="One item by hand.")]
Said = Annotated[str | None, typer.Option("--answer", metavar="TEXT", help="Its answer.")]
Pin = Annotated[bool, typer.Option("--pin", help="Write it, whatever the gate says.")]
Corrects = Annotated[
    str | None,
    typer.Option(
        "--corrects", metavar="ID", help="The item whose answer the one of --question replaces."
    ),
]
WriteRate = Annotated[
    float | None,
    typer.Option("--write-rate", metavar="SHARE", help="Write this share of what comes, no more."),
]
Seeds = Annotated[
    int, typer.Option("--seeds", min=1, metavar="N", help="Candidates that train at once.")
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Train anew from the journal.")]
Questions = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUESTION", help="Questions; without any, the lines of stdin."),
]
Off = Annotated[bool, typer.Option("--off", help="Only the bare base.")]
Base = Annotated[str, typer.Argument(metavar="MODEL", help="A base: a folder, or a hub name.")]
Items = Annotated[int, typer.Option("--items", min=4, metavar="N", help="Invented items of a session.")]
Sessions = Annotated[int, typer.Option("--sessions", min=1, metavar="N", help="One after another.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of what is invented.")]
Keep = Annotated[
    Path | None,
    typer.Option("--keep", metavar="FOLDER", help="Keep the memory here; else it is removed."),
]


Graph = Annotated[bool, typer.Option("--graph", help="Only the facts, as a graph.")]
NoRoute = Annotated[
    bool, typer.Option("--no-route", help="Ask the adapters also what is nowhere in the memory.")
]
Name = Annotated[str, typer.Argument(metavar="ID", help="Of the item, as report lists it.")]


@recall.command()
def write(
    memory: Folder,
    model: Model = None,
    data: Data = None,
    question: Asked = None,
    answer: Said = None,
    pin: Pin = False,
    corrects: Corrects = None,
    write_rate: WriteRate = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Write items into the journal, as far as the gate lets them; nothing is trained yet."""
    if (question is None) != (answer is None):
        raise RequestError("--question and --answer go together", next="give both")
    row = [] if question is None else [{"question": question, "answer": answer, "pin": pin}]
    if pin and not row:
        raise RequestError("--pin is for the item of --question", next='"pin": true in a row of --data')
    if corrects is not None:
        if not row:
            raise RequestError(
                "--corrects is for the item of --question", next=f'"corrects": "{corrects}" in a row'
            )
        row[0]["corrects"] = corrects

    from loraloom.cli.recall_screen import show_notes, show_written
    from loraloom.pipeline.recall.writing import write as run_write

    written, decisions = run_write(
        memory, model, data or [], row, _watch(quiet), write_rate=write_rate, dry_run=dry_run
    )
    show_notes(written)
    show_written(written, decisions, dry_run=dry_run)
    return {
        "memory": str(memory),
        "written": not dry_run,
        "decisions": [asdict(one) for one in decisions],
        "notes": written.notes,
    }


@recall.command()
def learn(
    memory: Folder,
    seeds: Seeds = 2,
    rebuild: Rebuild = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Learn what was written since the last time, into the fast adapter."""
    from loraloom.cli.recall_screen import show_learnt, show_notes
    from loraloom.pipeline.recall.learning import learn as run_learn

    trained = run_learn(memory, _watch(quiet), seeds=seeds, rebuild=rebuild)
    show_notes(trained.memory)
    show_learnt(trained)
    return {**trained.record, "notes": trained.memory.notes}


@recall.command()
def sleep(
    memory: Folder, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> dict[str, Any]:
    """Settle what was learnt in the slow adapter, or say why not and leave everything as it is."""
    from loraloom.cli.recall_screen import show_notes, show_slept
    from loraloom.pipeline.recall.sleeping import sleep as run_sleep

    trained = run_sleep(memory, _watch(quiet))
    if trained is not None:
        show_notes(trained.memory)
    show_slept(trained)
    return {"op": "sleep", "done": False} if trained is None else {**trained.record, "done": True}


@recall.command()
def ask(
    memory: Folder,
    questions: Questions = None,
    off: Off = False,
    no_route: NoRoute = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> list[dict[str, Any]]:
    """Answer by the memory, by the bare base, and by retrieval in the prompt."""
    from loraloom.cli.recall_screen import show_answers
    from loraloom.pipeline.recall.asking import ask as run_ask

    asked = questions or ([] if sys.stdin.isatty() else [line.strip() for line in sys.stdin])
    answers = run_ask(memory, asked, _watch(quiet), off=off, route=not no_route)
    show_answers(answers)
    return [asdict(one) for one in answers]


@recall.command()
def forget(
    memory: Folder,
    item: Name,
    rebuild: Rebuild = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Make it forget an item, and prove it."""
    from loraloom.cli.recall_screen import show_forgotten, show_notes
    from loraloom.pipeline.recall.forgetting import forget as run_forget

    trained = run_forget(memory, item, _watch(quiet), rebuild=rebuild)
    show_notes(trained.memory)
    show_forgotten(trained)
    return {**trained.record, "notes": trained.memory.notes}


@recall.command()
def report(
    memory: Folder,
    graph: Graph = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """What is known, what was written or refused and why, recall by wake, what it cost the base."""
    if graph:
        return _report_graph(memory)
    from loraloom.cli.recall_screen import show_report
    from loraloom.pipeline.recall.reporting import report as run_report

    found = run_report(memory, _watch(quiet))
    show_report(found)
    return found.to_json()


@recall.command()
def bench(
    model: Base,
    items: Items = 20,
    sessions: Sessions = 3,
    seed: Seed = 0,
    keep: Keep = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """What a base would make of invented items: written, learnt, settled and asked; minutes."""
    from tempfile import TemporaryDirectory

    from loraloom.cli.recall_screen import show_trial
    from loraloom.pipeline.recall.trial import trial as run_trial

    with TemporaryDirectory() as place:
        folder = keep or Path(place) / "memory"
        made = run_trial(model, folder, _watch(quiet), items=items, sessions=sessions, seed=seed)
    show_trial(made, kept=keep is not None)
    return {**made.to_json(), "memory": None if keep is None else str(keep)}


def _report_graph(memory: Path) -> dict[str, Any]:
    """The facts alone, as a graph."""
    from loraloom.cli.recall_screen import show_graph, show_notes
    from loraloom.pipeline.recall.reporting import graph

    found, edges = graph(memory)
    show_notes(found)
    show_graph(edges)
    return {"memory": str(memory), "graph": [asdict(one) for one in edges], "notes": found.notes}


def _watch(quiet: bool) -> Callable[[str], None]:
    """Says what is being done, on stderr."""
    return (lambda sentence: None) if quiet else (lambda sentence: typer.echo(sentence, err=True))
