"""What the verbs of `loraloom adapter` say for people, in lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loraloom.cli.screen import plain_console, say, verbatim

if TYPE_CHECKING:
    from loraloom.adapters.combine.conflicts import Conflict
    from loraloom.adapters.inspect import Inspection, Layer
    from loraloom.adapters.proof import Proof
    from loraloom.pipeline.adapters import Merged, TrainedOver
    from loraloom.pipeline.export import Exported, Shipped
    from loraloom.pipeline.reshape import Made

NAME_WIDTH = 21
DROWNS = 0.5
"""A format that keeps less of the update than this is said to lose it."""


def show_inspection(found: Inspection, over: TrainedOver) -> None:
    """The base, a line for all layers of one name, what rounding keeps, what servers refuse."""
    console = plain_console()
    verbatim(console, f"adapter   {found.folder}")
    verbatim(console, f"base      {_over(over)}")
    also = "; ".join(found.beyond_factors)
    say(console, f"parts     {len(found.layers)} layers{f'; {also}' if also else ''}", " " * 10)
    verbatim(console)
    head = f"{'module':<{NAME_WIDTH}} layers  rank  scale  eff. rank"
    verbatim(console, head + ("  |BA|/|W|  bf16   f16  Q8_0" if found.kept else "      |BA|"))
    for name, layers in found.by_module().items():
        verbatim(console, _line(name, layers))
    verbatim(console)
    for name, share in (found.kept or {}).items():
        apart = "keep the adapter apart" if name == "Q8_0" else "merge in float32"
        advice = apart if share < DROWNS else "fine to merge into"
        say(console, f"{name:<5} keeps {share:.0%} of the update: {advice}")
    for server, reasons in found.refused.items():
        say(console, f"{server:<10} {'; '.join(reasons) or 'takes it as it is'}", " " * 11)


def show_merged(merged: Merged) -> None:
    """The operations, where they were only asked for; else the folder and its proof."""
    from loraloom.adapters.merge import describe

    console = plain_console()
    if merged.out is None or merged.proof is None:
        for line in describe(merged.plan):
            verbatim(console, line)
        return
    say(console, f"{len(merged.plan.changes)} of {len(merged.plan.operations)} tensors changed")
    show_proof(merged.proof)
    verbatim(console, f"merged in {merged.out}")


def show_exported(exported: Exported) -> None:
    """The operations, where they were only asked for; else the proof, the place and what to type."""
    console = plain_console()
    if exported.out is None:
        for line in exported.operations:
            verbatim(console, line)
        return
    for line in exported.lines():
        say(console, line, "  ")
    size = f"{exported.bytes / 2**20:,.1f} MiB"
    verbatim(console, f"{exported.target} in {exported.out}, {size}")
    for command in exported.commands:
        verbatim(console, f"  {command}")


def show_shipped(shipped: Shipped) -> None:
    """Each artefact with its proof, then what failed."""
    console = plain_console()
    for number, exported in enumerate(shipped.exported):
        if number:
            verbatim(console)
        show_exported(exported)
    for target, error in shipped.failed.items():
        verbatim(console)
        verbatim(console, f"{target} failed: {error.render()}")
        for note in getattr(error, "__notes__", ()):
            verbatim(console, f"  {note}")


def show_proof(proof: Proof) -> None:
    """Its lines."""
    console = plain_console()
    for line in proof.lines():
        say(console, line, "  ")


def show_combined(document: Mapping[str, Any], places: Sequence[str], made: Made) -> None:
    """How the adapters stand to each other, module by module, then what was made of them."""
    console = plain_console()
    for pair in made.conflicts:
        _conflict(console, pair, f"{places[pair.first]} and {places[pair.second]}")
    beside = f"rank {document['rank']}, {document['error']:.2%} beside the weighted sum"
    show_made(document, f"{document['method']} of {len(places)} adapters: {beside}", made)


def _conflict(console: Any, pair: Conflict, named: str) -> None:
    say(console, f"{named}: {pair.common} common layers, {pair.apart} of one alone", "  ")
    if pair.modules:
        verbatim(console, f"  {'module':<{NAME_WIDTH}} layers  cosine  interference  sizes")
    for name, one in pair.modules.items():
        verbatim(
            console,
            f"  {_short(name):<{NAME_WIDTH}} {one.layers:>6} {one.cosine:>+7.2f}"
            f" {one.interference:>13.1%} {one.sizes:>6.2g}",
        )
    worst = pair.worst()
    where = f" (most in {worst})" if worst is not None else ""
    say(console, f"{pair.advice()}{where}", "  ")


def show_average(document: Mapping[str, Any], made: Made) -> None:
    """How alike the seeds are, how good each and their mean is, and what was left out."""
    console = plain_console()
    cosines = [pair.cosine for pair in made.conflicts if pair.cosine is not None]
    alike = f", mean cosine {fmean(cosines):+.2f}" if cosines else ""
    count = len(document["adapters"])
    scores = document.get("scores")
    if scores:
        seeds = ", ".join(f"{value:.4g}" for value in scores["seeds"])
        say(console, f"{scores['metric']}: seeds {seeds}; their mean {scores['average']:.4g}", "  ")
        better = [document["adapters"][number] for number in scores["better_seeds"]]
        if better:
            say(
                console,
                f"{len(better)} of {count} seeds are better than their mean: keep the best,",
                "  ",
            )
            verbatim(console, f"  {better[0]}")
    elif document.get("note"):
        say(console, document["note"], "  ")
    beside = f"rank {document['rank']}, {document['error']:.2%} beside the exact mean"
    show_made(document, f"mean of the updates of {count} adapters{alike}: {beside}", made)


def show_made(document: Mapping[str, Any], words: str, made: Made) -> None:
    """What was made, its proof, and where it lies."""
    console = plain_console()
    say(console, words, "  ")
    for line in made.proof.lines() if made.proof is not None else ():
        say(console, line, "  ")
    verbatim(console, f"adapter in {document['out']}" if document["out"] else "nothing was written")


def _over(over: TrainedOver) -> str:
    parts = [over.name or "not named"]
    if over.quantization != "none":
        parts.append(f"held in {over.quantization}")
    if over.fingerprint:
        parts.append(f"fingerprint {over.fingerprint}")
    if over.matches is not None:
        parts.append("the one that was given" if over.matches else "NOT the one that was given")
    return ", ".join(parts)


def _line(name: str, layers: list[Layer]) -> str:
    ranks = sorted({layer.rank for layer in layers})
    rank = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
    scale = fmean(layer.scale for layer in layers)
    effective = fmean(layer.effective_rank for layer in layers)
    line = f"{_short(name):<{NAME_WIDTH}} {len(layers):>6} {rank:>5} {scale:>6.3g} {effective:>10.1f}"
    sizes = [layer.relative_norm for layer in layers if layer.relative_norm is not None]
    shares = [layer.kept for layer in layers if layer.kept is not None]
    if not sizes or not shares:
        return f"{line} {fmean(layer.norm for layer in layers):>9.2g}"
    kept = [_mean_of(shares, name) for name in ("bf16", "f16", "Q8_0")]
    return f"{line} {fmean(sizes):>9.2g} {' '.join(f'{share:>5}' for share in kept)}"


def _mean_of(shares: Sequence[Mapping[str, float]], name: str) -> str:
    known = [share[name] for share in shares if name in share]
    return f"{fmean(known):.0%}" if known else "-"


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"
