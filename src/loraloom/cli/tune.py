"""`loraloom tune`."""

from __future__ import annotations

from typing import Any

from loraloom.cli.request import DryRun, NoAct, NoHistory, Request, Resume, asks


@asks()
def tune(
    request: Request,
    dry_run: DryRun = False,
    resume: Resume = None,
    no_act: NoAct = False,
    no_history: NoHistory = False,
) -> dict[str, Any]:
    """Find the best adapter among many candidates.

    They train at once on one frozen base; weak ones leave on the way, and the last few
    are compared over several seeds.
    """
    from loraloom.cli.progress import progress
    from loraloom.cli.summary import show_end

    with progress(quiet=request.quiet) as watch:
        # Slow to import: by now a person has been told that something happens.
        from loraloom.pipeline.tune import tune as run_tune

        done = run_tune(request.config, watch, dry_run=dry_run, resume=resume)
    return show_end(done)
