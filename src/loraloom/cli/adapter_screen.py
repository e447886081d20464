"""What the verbs of `loraloom adapter` say for people, in lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loraloom.cli.screen import plain_console, say, verbatim

if TYPE_CHECKING:
    from loraloom.adapters.inspect import Inspection, Layer
    from loraloom.adapters.proof import Proof
    from loraloom.pipeline.adapters import Merged, TrainedOver
    from loraloom.pipeline.export import Exported, Shipped

NAME_WIDTH = 24
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
    verbatim(console, head + ("  |BA|/|W|  bf16   f16" if found.kept else "      |BA|"))
    for name, layers in found.by_module().items():
        verbatim(console, _line(name, layers))
    verbatim(console)
    for name, share in (found.kept or {}).items():
        advice = "merge in float32" if share < DROWNS else "fine to merge into"
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


def show_combined(document: Mapping[str, Any], places: Sequence[str]) -> None:
    """How the adapters stand to each other, then what was made of them."""
    console = plain_console()
    for pair in document.get("conflicts", ()):
        names = f"{places[pair['first']]} and {places[pair['second']]}"
        cosine = "" if pair["cosine"] is None else f", cosine {pair['cosine']:+.2f}"
        say(console, f"{names}: {pair['common']} common layers{cosine}; {pair['advice']}", "  ")
    beside = f"rank {document['rank']}, {document['error']:.2%} beside the weighted sum"
    show_made(document, f"{document['method']} of {len(places)} adapters: {beside}")


def show_made(document: Mapping[str, Any], words: str) -> None:
    """What was made, and where it lies."""
    console = plain_console()
    say(console, words, "  ")
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
    shown = name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…"
    line = f"{shown:<{NAME_WIDTH}} {len(layers):>6} {rank:>5} {scale:>6.3g} {effective:>10.1f}"
    sizes = [layer.relative_norm for layer in layers if layer.relative_norm is not None]
    shares = [layer.kept for layer in layers if layer.kept is not None]
    if not sizes or not shares:
        return f"{line} {fmean(layer.norm for layer in layers):>9.2g}"
    kept = [fmean(share[name] for share in shares) for name in ("bf16", "f16")]
    return f"{line} {fmean(sizes):>9.2g} {kept[0]:>5.0%} {kept[1]:>5.0%}"
