"""What `plan` shows to people: what matters most on one screen, or every setting with
its reason, source and range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from loraloom.cli.explained import dimension_words, range_words, space_words
from loraloom.cli.learnt import rows_words, show_rows
from loraloom.cli.screen import WIDEST, plain_console, sentence_width, verbatim
from loraloom.config import names
from loraloom.config.keys import keys
from loraloom.plan.numbers import share_text
from loraloom.report.fit import shortened, wrapped
from loraloom.report.forecast import NO_PARTS
from loraloom.report.words import busy, duration, gib, number

if TYPE_CHECKING:
    from loraloom.pipeline.prepare import Prepared

PREVIEWED = 2
"""Rows of training data that a plan shows with their masks."""

FORECASTS = {
    "memory": ("memory", "bytes"),
    "streamed": ("weights that are streamed, apart from memory", "bytes"),
    "time": ("time", "seconds"),
    "generation": ("memory to write answers with an adapter", "bytes"),
    "export": ("memory to merge an adapter into the base", "bytes"),
}
"""How a plan calls its forecasts, and the unit of each."""

MATTER: Mapping[str, Sequence[Any]] = {
    "goal": ("auto",),
    "preset": (None,),
    names.QUANTIZATION: ("none",),
    names.STREAMING: (False,),
    names.MAX_LENGTH: (),
    names.REPLAY_SHARE: (0.0,),
    names.R: (),
    names.LORA_ALPHA: (),
    names.LORA_DROPOUT: (),
    names.TARGET_MODULES: (),
    names.LEARNING_RATE: (),
    names.PER_DEVICE_TRAIN_BATCH_SIZE: (),
    names.GRADIENT_ACCUMULATION_STEPS: (1,),
    names.NUM_TRAIN_EPOCHS: (),
    names.MAX_STEPS: (None,),
    names.PRECISION: (),
    names.GRADIENT_CHECKPOINTING: (False,),
    names.TRIALS: (),
    names.MAX_PACKED: (),
}
"""Settings that matter most, in the order in which they are shown, and the values that
go without saying."""

LEAST_REASON = 16
"""Characters of a reason; with less room there is none."""
USUAL_NAME, USUAL_VALUE = 16, 10
"""Characters that most names and values take: longer ones push their own reason aside, and no other."""


def show_plan(prepared: Prepared, *, everything: bool = False) -> dict[str, Any]:
    """What was recognised in the data, the settings with their reasons, forecasts, what a search may
    change, warnings, and last, so that it stays in sight, what of the data is learnt.

    Args:
        everything: all settings with source and range, the parts of the forecasts, and
            what would need less memory.

    Returns the document of `plan --json`.
    """
    from loraloom.data.encode import preview
    from loraloom.plan.document import plan_json
    from loraloom.plan.needs import gpu_words

    console = plain_console()
    document = plan_json(prepared.plan)
    document["history"] = [search.to_json() for search in prepared.past]
    width = sentence_width(console)
    lines = [
        *_broken(prepared.recognised.note, width),
        *_broken(rows_words(document["rows"]), width),
        *(line for text in _sources(document["sources"]) for line in _broken(text, width)),
        "",
    ]
    if everything:
        _print(console, lines)
        for block in _settings(document["settings"]):
            console.print(block, width=min(console.width, WIDEST))
        lines = ["", *_at_length(document, prepared.plan.trials)]
    else:
        taken = prepared.plan.case.held_by_others
        lines += _in_short(document, prepared.plan.trials, taken, width)
        if gpu := gpu_words(prepared.plan.facts.device, document["settings"][names.DTYPE]["value"]):
            lines += _broken(f"gpu: {gpu}", width, indent="  ")
    for word in ("warning", "note"):
        lines += [line for text in document[f"{word}s"] for line in _broken(f"{word}: {text}", width)]
    if not everything:
        lines += _broken("everything: plan --all; one setting at length: plan --explain KEY", width)
    _print(console, [*lines, ""])
    rows = preview(prepared.data, prepared.tokenizer, n=PREVIEWED)
    show_rows(console, rows, said=len(lines) + 1, everything=everything)
    return document


def _in_short(document: Mapping[str, Any], trials: int, taken: str, width: int | None) -> Iterator[str]:
    """The settings that matter most, one a line, and each forecast and the search in a line.

    Args:
        taken: what is to be said of memory that other processes hold.
    """
    settings = document["settings"]
    shown = [
        key for key, unsaid in MATTER.items() if key in settings and settings[key]["value"] not in unsaid
    ]
    if names.MAX_STEPS in shown:
        shown.remove(names.NUM_TRAIN_EPOCHS)
    for key in shown:
        head = f"{_name(key).ljust(USUAL_NAME)}  {number(settings[key]['value']).ljust(USUAL_VALUE)}  "
        room = (width or WIDEST) - len(head)
        reason = shortened(settings[key]["reason"], room) if room >= LEAST_REASON else ""
        yield from _broken(f"{head}{reason}".rstrip(), width, indent=" " * (USUAL_NAME + 2))
    set_by_you = [
        key for key, advice in settings.items() if advice["source"] == "config" and key not in shown
    ]
    if set_by_you:
        words = ", ".join(f"{_name(key)} {number(settings[key]['value'])}" for key in set_by_you)
        yield from _broken(f"as you asked: {words}", width, indent="  ")
    yield ""
    room = f"{gib(document['forecast']['memory']['budget_bytes'])} may be used"
    memory, time = (document["forecast"][name] for name in ("memory", "time"))
    yield from _broken(f"memory: {_total(memory, 'bytes')}; {taken or room}", width, indent="  ")
    yield from _broken(f"time: {_total(time, 'seconds')}{_busy(time)}", width, indent="  ")
    if document["search_space"]:
        space = "; ".join(
            f"{_name(key)} {dimension_words(found)}" for key, found in document["search_space"].items()
        )
        yield from _broken(f"search: {_candidates(trials)} over {space}", width, indent="  ")
    if document["history"]:
        yield from _broken(f"history: {settings[names.HISTORY]['reason']}", width, indent="  ")


def _at_length(document: Mapping[str, Any], trials: int) -> Iterator[str]:
    """Forecasts with their parts, the search space and the ladder, one a line however long."""
    for name, (words, unit) in FORECASTS.items():
        if name in document["forecast"]:
            yield (
                f"{words}:"
                f" {_estimate(document['forecast'][name], unit)}{_busy(document['forecast'][name])}"
            )
    if document["search_space"]:
        yield from ("", f"{_candidates(trials)} of a tune would differ in")
        yield from (f"  {line}" for line in space_words(document["search_space"]))
        yield ""
    seconds = document["forecast"]["time"]["total_seconds"]
    for rung in document["ladder"]:
        yield f"  to need less: {_rung(rung, seconds)}"


def _sources(sources: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each source of a mix has of the training, one a line."""
    for one in sources:
        passes = number(float(f"{one['passes']:.2g}"))
        yield (
            f"{one['name']}: {one['rows']:,} rows, {share_text(one['share'])} of every batch, each row"
            f" {passes} times in the run"
        )


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        verbatim(console, line)


def _broken(text: str, width: int | None, indent: str = "") -> list[str]:
    return wrapped(text, width, indent).split("\n")


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _settings(settings: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Settings in the order of the config, under the name of their section; reason and
    source stand below the value."""
    ordered = sorted(settings, key=[*keys(), *settings].index)
    for section, group in groupby(ordered, key=lambda key: key.rpartition(".")[0]):
        shown = {key: _name(key) for key in group}
        if section:
            yield Text(section, style="bold")
        longest = max(map(len, shown.values()))
        left = 2 if section else 0
        for key, name in shown.items():
            advice = settings[key]
            offered = range_words(advice["range"])
            worth = f"  ({offered})" if offered else ""
            head = Text.assemble(
                name.ljust(longest), "  ", (number(advice["value"]), "bold"), (worth, "dim")
            )
            yield Padding(head, (0, 0, 0, left), expand=False)
            yield Padding(
                Text(f"{advice['reason']}  [{advice['source']}]", style="dim"),
                (0, 0, 0, left + 4),
                expand=False,
            )


def _estimate(estimate: Mapping[str, Any], unit: str) -> str:
    """A forecast as `plan --json` has it: total_UNIT with its range, and a part under
    every other NAME_UNIT."""
    show = gib if unit == "bytes" else duration
    amounts = {
        name.removesuffix(f"_{unit}"): amount
        for name, amount in estimate.items()
        if name.endswith(f"_{unit}")
    }
    parts = [
        f"{name} {show(amount)}" for name, amount in amounts.items() if amount and name not in NO_PARTS
    ]
    return f"{_total(estimate, unit)}: {', '.join(parts)}"


def _busy(time: Mapping[str, Any]) -> str:
    """What the forecast of time means while others use the machine; nothing for a forecast of memory."""
    now = time.get("now")
    words = busy(now["total_seconds"], now["cores_share"]) if now else ""
    return f" {words}" if words else ""


def _total(estimate: Mapping[str, Any], unit: str) -> str:
    """ "941 MiB (891 MiB to 990 MiB) for 8 candidates"."""
    total, low, high = (
        (gib if unit == "bytes" else duration)(estimate[f"{name}_{unit}"])
        for name in ("total", "low", "high")
    )
    many = estimate.get("candidates")
    return f"{total} ({low} to {high}){f' for {_candidates(many)}' if many else ''}"


def _candidates(many: int) -> str:
    return f"{many} {'candidate' if many == 1 else 'candidates'}"


def _rung(rung: Mapping[str, Any], seconds: float) -> str:
    """One cut of the memory ladder: what it leaves, and what it costs of a run of so many seconds."""
    share = rung["seconds"]
    slower = f", {share_text(share)} slower ({duration(share * seconds)} more)" if share else ""
    absent = "" if rung["available"] else " (not on this device)"
    return (
        f"{rung['name']}{absent}: {gib(rung['bytes'])}, {gib(rung['saved'])} less{slower}; quality:"
        f" {rung['quality']}"
    )
