"""`loraloom train`."""

from __future__ import annotations

from typing import Any

from loraloom.cli.request import FLAGS, Apply, DryRun, NoAct, Request, Resume, asks


@asks(*(name for name in FLAGS if name not in ("trials", "max-packed", "workers")))
def train(
    request: Request,
    dry_run: DryRun = False,
    resume: Resume = None,
    apply: Apply = None,
    no_act: NoAct = False,
) -> dict[str, Any]:
    """Train one adapter, as `plan` shows it."""
    from loraloom.cli.progress import progress
    from loraloom.cli.summary import show_end

    with progress(quiet=request.quiet) as watch:
        # Slow to import: by now a person has been told that something happens.
        from loraloom.pipeline.train import train as run_train

        done = run_train(request.config, watch, dry_run=dry_run, resume=resume)
    return show_end(done)
