"""The flags that ask for something, in one table, and the decorator that turns them
into a checked `Config`.

Each flag is a short name for one config key; its text is read exactly as `--set KEY=TEXT` would be, so a
wrong value gets the same message whichever way it came. `--set` reaches the keys that have no flag.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.files import pattern_of, told_apart
from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.keys import SOURCES, keys
from loraloom.errors import RequestError


@dataclass(frozen=True)
class Flag:
    """A short name on the command line for one config key."""

    key: str
    takes: str
    help: str


FLAGS: Mapping[str, Flag] = {
    "model": Flag(names.NAME_OR_PATH, "NAME|FOLDER", "Base model: a folder or a hub name."),
    "data": Flag(
        names.TRAIN,
        "FILE|FOLDER|NAME",
        "Rows: a file, a folder, a hub name, a 'pattern-*'. Repeatable.",
    ),
    "validation": Flag(
        names.VALIDATION,
        "FILE|SHARE",
        "Validation rows, named as for --data, or a share of the training rows.",
    ),
    "test": Flag(names.TEST, "FILE|SHARE", "Test rows, named likewise: opened once, at the end."),
    "task": Flag("task", "TASK", "causal_lm, seq_cls, seq2seq_lm, preference or reward."),
    "goal": Flag(
        "goal", "GOAL", "auto, quality, retain, chat, memory or fastest: what the plan leans towards."
    ),
    "preset": Flag(
        "preset",
        "NAME",
        "Values for a known situation, such as sentiment or under-8gb; what you set wins.",
    ),
    "name": Flag("name", "NAME", "Name of the run, and of its folder."),
    "output-dir": Flag("output_dir", "FOLDER", "Where run folders go."),
    "trials": Flag(names.TRIALS, "N", "How many candidates to try."),
    "max-packed": Flag(names.MAX_PACKED, "N", "How many candidates to train at once."),
    "workers": Flag(names.DEVICES, "N", "How many worker processes train, each with its own base."),
    "r": Flag(names.R, "N", "Rank of the adapter."),
    "alpha": Flag(names.LORA_ALPHA, "X", "LoRA alpha; the update is scaled by alpha / r."),
    "dropout": Flag(names.LORA_DROPOUT, "X", "Dropout before the adapter."),
    "target-modules": Flag(
        names.TARGET_MODULES, "NAMES", "all-linear, attention, mlp, query, or [q_proj, v_proj]."
    ),
    "learning-rate": Flag(names.LEARNING_RATE, "X", "Peak learning rate."),
    "epochs": Flag(names.NUM_TRAIN_EPOCHS, "X", "Passes over the training data."),
    "max-steps": Flag(names.MAX_STEPS, "N", "Optimiser steps; wins over epochs."),
    "batch-size": Flag(names.PER_DEVICE_TRAIN_BATCH_SIZE, "N", "Rows in a batch."),
    "seed": Flag(names.SEED, "N", "Seed of weights, data order and search."),
    "memory": Flag(names.MEMORY, "SIZE", "Memory that may be used, such as 12GiB."),
    "time": Flag(names.TIME, "TIME", "Time that may be used, such as 30m."),
}

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="CONFIG.yaml|DATA", help="A config (flags win over it), or a file of rows."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other key of the config. Repeatable."),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout; words for people go to stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the traceback when something breaks.")
]
All = Annotated[bool, typer.Option("--all", help="Show everything, however long and wide.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and plan everything, train nothing.")]

Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="RUN_FOLDER",
        help="Go on with this run; its own config.yaml says what to do.",
    ),
]

NoHistory = Annotated[
    bool, typer.Option("--no-history", help="Search as if nothing had been run on this base before.")
]
NoAct = Annotated[
    bool,
    typer.Option("--no-act", help="Report candidates that diverge or overfit, but do not stop them."),
]
Apply = Annotated[
    str | None,
    typer.Option(
        "--apply",
        metavar="RUN_FOLDER[:FINDING]",
        help="Do that run again with the change that its finding proposes.",
    ),
]

SWITCHES: Mapping[str, tuple[str, Any]] = {
    "no_act": (names.ACT, False),
    "no_history": (names.HISTORY, "none"),
}
"""Options of single commands that stand for one value of a config key."""


@dataclass(frozen=True)
class Request:
    """What a command gets: the checked request, and how much to say about it."""

    config: Config
    quiet: bool
    json: bool = False


def asks(*flags: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command CONFIG.yaml, a file of rows, these flags of `FLAGS` (all of them when none is
    named), --set, --json, --quiet and --verbose.

    The command is called with a `Request` and its own options, and returns what --json prints.
    """
    chosen = {name.replace("-", "_"): FLAGS[name] for name in flags or FLAGS}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        def run(**given: Any) -> Any:
            from loraloom.config.decode import load_config

            named, rows = told_apart(given["files"] or ())
            file = _file_of(named, given.get("resume"))
            values = {key: value for name, (key, value) in SWITCHES.items() if given.get(name)}
            if given.get("apply"):
                file, changes = _applied(given["apply"], file)
                values |= changes
            values |= {
                flag.key: _one_or_several(given[name]) for name, flag in chosen.items() if given[name]
            }
            if rows:
                _take_rows(values, f"data.{given.get('split', 'train')}", rows, given.get("resume"))
            _refuse_config_as_data(values)
            config = load_config(file, values, given["sets"] or ())
            return command(
                Request(config, given["quiet"], given["json"]),
                **{parameter.name: given[parameter.name] for parameter in own},
            )

        parameters = [
            _parameter("files", Files),
            *(_parameter(name, _annotation(name, flag)) for name, flag in chosen.items()),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            _parameter("sets", Sets),
            _parameter("json", Json, default=False),
            _parameter("quiet", Quiet, default=False),
            _parameter("verbose", Verbose, default=False),
        ]
        # typer reads a command's options off its signature, so the table above is all
        # that has to be kept.
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate


def _file_of(config_file: Path | None, resume: Path | None) -> Path | None:
    """The config file; with --resume, that of the run.

    Raises:
        RequestError: two files say what to do, or there is no such run.
    """
    if resume is None:
        return config_file
    if config_file is not None:
        raise RequestError(
            "a resumed run uses its own config",
            got=f"{config_file} and --resume {resume}",
            next=f"leave {config_file} out",
        )
    from loraloom.store.folder import RunFolder

    return RunFolder.open(resume).config_path


def _one_or_several(given: str | list[str]) -> str | list[str]:
    """What a flag was given: the text itself, unless it was given more than once."""
    return given[0] if isinstance(given, list) and len(given) == 1 else given


def _take_rows(values: dict[str, Any], key: str, rows: Sequence[Path], resume: Path | None) -> None:
    """Put the files of rows that stand without a flag where its flag would have put them.

    Raises:
        RequestError: a flag names data too, or the resumed run has its own data.
    """
    listed = ", ".join(map(str, rows))
    if resume is not None:
        raise RequestError(
            "a resumed run uses its own data",
            got=f"{listed} and --resume {resume}",
            next=f"leave {listed} out",
        )
    named = [name for name, known in FLAGS.items() if known.key in SOURCES and known.key in values]
    if key in values or (named and len(rows) > 1):
        # What a shell makes of `--data part-*.jsonl`: the first file belongs to the
        # flag, the others to nothing.
        def beside(name: str) -> list[str]:
            given: Any = values[FLAGS[name].key]
            return [*([given] if isinstance(given, str) else given), *map(str, rows)]

        # Which flag they stood behind is no longer known: that of the names most like theirs.
        name = max(named, key=lambda name: len(pattern_of(beside(name))))
        pattern = pattern_of(beside(name))
        raise RequestError(
            f"beside --{name} files stand without a flag of their own: {listed}",
            need="one flag for each file, or a pattern in quotes",
            next=f"--{name} before each of them"
            + (f", or --{name} '{pattern}'" if len(pattern) > 1 else ""),
        )
    values[key] = [str(row) for row in rows] if len(rows) > 1 else str(rows[0])


def _refuse_config_as_data(values: dict[str, Any]) -> None:
    """Refuse a config given as data here: the readers would only call it a file of an unknown kind."""
    for key in SOURCES:
        named = values.get(key, ())
        for name in [named] if isinstance(named, str) else named:
            if str(name).lower().endswith((".yaml", ".yml")):
                raise RequestError(
                    f"`{key}` is {name}, which is a config file, not rows",
                    next=f"give it without a flag: {name}",
                )


def _applied(place: str, file: Path | None) -> tuple[Path, dict[str, Any]]:
    """The config of an earlier run, and what its finding changes in it.

    Raises:
        RequestError: two files say what to do, or there is no such run or finding.
    """
    if file is not None:
        raise RequestError(
            "--apply uses the config of the run that it names",
            got=f"{file} and --apply {place}",
            next="leave one of the two out",
        )
    from loraloom.pipeline.apply import applied

    return applied(place)


def _annotation(name: str, flag: Flag) -> Any:
    takes = list[str] if keys()[flag.key].takes_list else str
    return Annotated[
        takes | None,
        typer.Option(
            f"--{name.replace('_', '-')}", metavar=flag.takes, help=flag.help, show_default=False
        ),
    ]


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
