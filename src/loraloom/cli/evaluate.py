"""`loraloom evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from loraloom.cli.request import Request, asks

Adapter = Annotated[
    str | None,
    typer.Option("--adapter", metavar="FOLDER", help="Adapter to score; none scores the bare base."),
]
Split = Annotated[str, typer.Option("--split", metavar="SPLIT", help="train, validation or test.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="For written texts: exact_match, rouge_l or MODULE:FUNCTION. Repeatable.",
    ),
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest text written for --metric.")
]


@asks("model", "data", "validation", "test", "task", "seed", "memory")
def evaluate(
    request: Request,
    adapter: Adapter = None,
    split: Split = "test",
    metric: Metrics = None,
    max_new_tokens: MaxNewTokens = 128,
) -> dict[str, Any]:
    """Score an adapter, or the bare base."""
    from loraloom.cli.summary import show_metrics
    from loraloom.pipeline.evaluate import evaluate as run_evaluate

    document = run_evaluate(request.config, adapter, split, metric or (), max_new_tokens)
    show_metrics(document)
    return document
