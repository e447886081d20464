"""One candidate out of two sources: run.json, which is written now and then, and events."""

from __future__ import annotations

from dataclasses import replace

from loraloom.records import Trial


def sharing(told: Trial, seen: Trial | None) -> Trial:
    """What run.json says of a candidate, without holding twice what events say as well: of a thousand
    candidates the settings are megabytes."""
    if seen is None:
        return told
    both = ("params", "settings", "metrics")
    return replace(
        told,
        **{name: getattr(seen, name) for name in both if getattr(seen, name) == getattr(told, name)},
    )


def joined(told: Trial | None, seen: Trial) -> Trial:
    """What run.json says of a candidate, and events since: they are never older, but know less."""
    if told is None:
        return seen
    ended = told.status not in ("running", "waiting")
    metrics = {**seen.metrics, **told.metrics} if ended else {**told.metrics, **seen.metrics}
    now = replace(
        told,
        status=seen.status,
        reason=seen.reason if seen.reason or not ended else told.reason,
        steps=max(told.steps, seen.steps),
        seconds=told.seconds or round(seen.seconds, 3),
        metrics=metrics,
        params=told.params or seen.params,
        settings=told.settings or seen.settings,
        planned_steps=told.planned_steps or seen.planned_steps,
    )
    return told if now == told else now  # most have ended long ago: they are held once
