"""The command `loraloom`: every verb listed once, and the one place where an error
becomes a message and an exit code.

A command prints for people and returns the document that `--json` promises; this file
alone writes that document.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from loraloom.cli.typed import in_our_words
from loraloom.errors import InterruptedRunError, LoraloomError, first_line

INTERRUPTED = 130
COMMANDS = (
    "check",
    "tune",
    "train",
    "plan",
    "evaluate",
    "predict",
    "generate",
    "chat",
    "runs",
    "compare",
    "report",
    "serve",
    "steer",
    "adapter",
    "ship",
    "recall",
    "env",
)
"""Each is a function of its own name, in a file of that name; one with verbs of its own is a
typer.Typer."""

app = typer.Typer(
    name="loraloom",
    help=(
        "Give it a base model, your data and a memory budget: it picks, trains, tunes and explains the"
        " LoRA adapter."
    ),
    epilog="For example: loraloom tune --model Qwen/Qwen2.5-0.5B-Instruct --data train.jsonl",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name in COMMANDS:
    command = getattr(import_module(f"loraloom.cli.{name}"), name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command()(command)


def _show_version(asked: bool) -> None:
    if asked:
        from loraloom import __version__

        print(__version__)
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
]


@app.callback()
def root(version: Version = False) -> None:
    """What stands before the verb."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (the process's own when None) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in options
    # Under --json nothing but the document may reach stdout, whatever a library prints.
    guard = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with guard:
            group: Any = typer.main.get_command(app)
            answer = group.main(
                in_our_words(words, group.commands), prog_name="loraloom", standalone_mode=False
            )
    except typer.TyperException as error:
        _say(f"error: {error.format_message()}\n  next: {_help_for(options)} --help shows what it takes")
        answer, code = {"error": {"what": error.format_message()}}, error.exit_code
    except InterruptedRunError as error:
        _say(str(error))
        answer, code = _error_document(error), error.exit_code
    except LoraloomError as error:
        _say(f"error: {error}")
        _say_notes(error)
        answer, code = error.document or _error_document(error), error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        answer, code = None, INTERRUPTED
    except Exception as error:
        _report_crash(error, verbose="--verbose" in options or "-v" in options)
        _say_notes(error)
        answer, code = {"error": {"what": f"{type(error).__name__}: {error}"}}, 1
    else:
        # typer answers with an exit code where a command left early: after --help, --version or Ctrl-C.
        answer, code = (None, answer) if isinstance(answer, int) else (answer, 0)
    if code == INTERRUPTED and answer is None:
        _say("interrupted")
        answer = {"error": {"what": "interrupted"}}
    if as_json and answer is not None:
        from loraloom.store.to_json import to_json

        print(to_json(answer, indent=2).decode("utf-8"))
    return code


def _error_document(error: LoraloomError) -> dict[str, Any]:
    parts = {
        "what": error.what,
        "where": error.where,
        "got": error.got,
        "need": error.need,
        "next": error.next,
    }
    return {"error": {name: part for name, part in parts.items() if part}}


def _help_for(options: Sequence[str]) -> str:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    return " ".join(["loraloom", *(word for word in options[:1] if word in verbs)])


def _report_crash(error: Exception, *, verbose: bool) -> None:
    """One line on the screen, the traceback in a file: a bug should be easy to report
    without filling the terminal."""
    if verbose:
        traceback.print_exception(error)
    with tempfile.NamedTemporaryFile(
        "w", prefix="loraloom-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write("".join(traceback.format_exception(error)))
    _say(
        f"error: this should not have happened: {type(error).__name__}: {first_line(error)}\n  log:"
        f" {log.name}"
    )


def _say_notes(error: Exception) -> None:
    """What was added to an error on its way here: how to go on with the run that it ended."""
    for note in getattr(error, "__notes__", ()):
        _say(f"  {note}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
