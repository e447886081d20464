"""`loraloom adapter`: what is done with an adapter after it was trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.request import Json, Verbose
from loraloom.errors import RequestError

TARGETS_HELP = "merged, vllm, sglang, mlx, gguf:F16|BF16|F32|Q8_0|Q4_K_M, gguf-lora, ollama[:Q8_0]."
adapter = typer.Typer(
    name="adapter",
    help="Look at a trained adapter, merge, combine, resize or export it, prove what was written.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Place = Annotated[str, typer.Argument(metavar="ADAPTER", help="A PEFT folder, or a run: its best.")]
Artefact = Annotated[
    str, typer.Argument(metavar="ADAPTER|ARTEFACT", help="An adapter, or what merge or export wrote.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="BASE", help="The base: a folder, or a hub name that is here."),
]

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New folder that is written.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="float32, bfloat16 or float16, rounded once; the base's where left out.",
    ),
]
To = Annotated[
    str,
    typer.Option("--to", metavar="TARGET", help=TARGETS_HELP),
]
Prove = Annotated[bool, typer.Option("--prove", help="End with 1 where it cannot be proved here.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the operations, write nothing.")]
Places = Annotated[
    list[str], typer.Argument(metavar="ADAPTER...", help="PEFT folders, or runs, over one base.")
]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="X,X", help="One for each adapter; 1 if left out.")
]
Method = Annotated[
    str,
    typer.Option(
        "--method", metavar="NAME", help="cat, linear, svd, ties, dare, knots, soup or regmean."
    ),
]
Rank = Annotated[
    int | None, typer.Option("--rank", metavar="N", help="Of the new adapter. Not for cat.")
]
NeededRank = Annotated[int, typer.Option("--rank", metavar="N", help="Of the new adapter.")]
Density = Annotated[
    float, typer.Option("--density", metavar="X", help="Share that ties, dare and knots keep.")
]
Ratio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        metavar="X",
        help="Smallest rank that keeps each singular value of this share of the largest, such as 0.05.",
    ),
]
ProofModel = Annotated[
    str | None,
    typer.Option("--model", metavar="BASE", help="The base: compare logits over it as well."),
]
TaskRows = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FILE", help="Of regmean: rows of each adapter's task. Repeatable."),
]
Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN|ADAPTER...", help="A run: its best's seeds; or adapters."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of what dare drops.")]
Energy = Annotated[
    float | None,
    typer.Option("--energy", metavar="X", help="Smallest rank that keeps this share, such as 0.99."),
]
Base = Annotated[str, typer.Option("--base", metavar="BASE", help="What the model was trained from.")]
Tuned = Annotated[str, typer.Option("--tuned", metavar="MODEL", help="The model that was trained.")]
MERGED = ("float32", "bfloat16", "float16")


@adapter.command()
def inspect(
    place: Place, model: Model = None, json: Json = False, verbose: Verbose = False
) -> dict[str, Any]:
    """Show layers, ranks and scales of an adapter; with --model, its size beside the base's weights."""
    from loraloom.cli.adapter_screen import show_inspection
    from loraloom.pipeline.adapters import inspect as run_inspect

    found, over = run_inspect(place, model)
    show_inspection(found, over)
    return {**found.to_json(), "trained_over": asdict(over)}


@adapter.command()
def merge(
    place: Place,
    out: Out,
    model: Model = None,
    dtype: Dtype = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Merge an adapter into a copy of its base, and prove that it computes what was trained."""
    from loraloom.cli.adapter_screen import show_merged
    from loraloom.pipeline.adapters import merge as run_merge

    if dtype is not None and dtype not in MERGED:
        raise RequestError(f"--dtype is {dtype}", need=", ".join(MERGED), next="--dtype bfloat16")
    merged = run_merge(place, model, out, dtype, dry_run=dry_run)
    show_merged(merged)
    return merged.to_json()


@adapter.command()
def export(
    place: Place,
    to: To,
    out: Out,
    model: Model = None,
    prove: Prove = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Bring an adapter to a server or a file format, and prove that it computes what was trained."""
    from loraloom.cli.adapter_screen import show_exported
    from loraloom.pipeline.export import export as run_export

    exported = run_export(place, to, model, out, must_prove=prove, dry_run=dry_run)
    show_exported(exported)
    return exported.to_json()


@adapter.command()
def verify(
    place: Artefact, model: Model = None, json: Json = False, verbose: Verbose = False
) -> dict[str, Any]:
    """Prove an artefact once more, or that an adapter merges to what was trained."""
    from loraloom.cli.adapter_screen import show_proof
    from loraloom.pipeline.adapters import verify as run_verify

    proof = run_verify(place, model)
    show_proof(proof)
    return asdict(proof)


@adapter.command()
def combine(
    places: Places,
    out: Out,
    weights: Weights = None,
    method: Method = "cat",
    rank: Rank = None,
    density: Density = 0.5,
    seed: Seed = 0,
    data: TaskRows = None,
    model: ProofModel = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Make one adapter of several, and show before how they stand to each other."""
    from loraloom.cli.adapter_screen import show_combined
    from loraloom.pipeline.reshape import combine_adapters

    options: dict[str, Any] = {"rank": rank, "density": density, "seed": seed, "model": model}
    made = combine_adapters(places, out, weights, method, data=data or (), dry_run=dry_run, **options)
    document = made.to_json()
    show_combined(document, places, made)
    return document


@adapter.command()
def average(
    places: Runs,
    out: Out,
    rank: Rank = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Make the mean of several seeds of one setting, and score it beside them."""
    from loraloom.cli.adapter_screen import show_average
    from loraloom.pipeline.average import average as run_average

    made = run_average(places, out, rank, dry_run=dry_run)
    document = made.to_json()
    show_average(document, made)
    return document


@adapter.command()
def resize(
    place: Place,
    out: Out,
    rank: Rank = None,
    energy: Energy = None,
    ratio: Ratio = None,
    model: ProofModel = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Cut an adapter to the best one of a smaller rank, or fill it up to a larger one."""
    from loraloom.cli.adapter_screen import show_made
    from loraloom.pipeline.reshape import resize as run_resize

    made = run_resize(place, out, rank, energy, ratio, model=model, dry_run=dry_run)
    document = made.to_json()
    kept = f"rank {document['rank']} keeps {document['energy_kept']:.2%} of the energy"
    show_made(document, kept, made)
    return document


@adapter.command()
def extract(
    base: Base,
    tuned: Tuned,
    rank: NeededRank,
    out: Out,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Make an adapter of what a model that was trained whole differs by from its base."""
    from loraloom.cli.adapter_screen import show_made
    from loraloom.pipeline.reshape import extract_adapter

    made = extract_adapter(base, tuned, rank, out, dry_run=dry_run)
    document = made.to_json()
    lost = f"rank {rank} leaves {document['error']:.2%} of the difference of {document['layers']} layers"
    left_out = document["left_out"]
    more = f", {len(left_out) - 3} more" if len(left_out) > 3 else ""
    kept = f"; left out: {', '.join(left_out[:3])}{more}" if left_out else ""
    show_made(document, f"{lost}{kept}", made)
    return document
