"""The two pruners of ours as plain rules: everything worked out anew from all curves each time. What the
tool does faster has to decide the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import median

from loraloom.search.curves import TrialCurve, leader
from loraloom.search.finals import finalists_of
from loraloom.search.pruners import halving, rungs
from loraloom.search.pruners.halving import FIRST, SECOND, SMALLEST, UNRANKED, places_at
from loraloom.search.pruners.heat import comparable
from loraloom.search.pruners.rungs import KEPT_OF, QUORUM, RUNGS, SMALL_QUORUM, THIRD_UP_TO

Decisions = dict[str, str]


def careful(trials: int, curves: Sequence[TrialCurve]) -> Decisions:
    """Who is pruned at a rung, and the words of the reason that tell against whom."""
    found: Decisions = {}
    first = leader(curves)
    for curve in curves:
        if curve.unfinished and not curve.protected and not curve.asked.audit and curve is not first:
            why = judged(trials, curve, curves)
            if why:
                found[curve.id] = why
    return found


def judged(trials: int, curve: TrialCurve, curves: Sequence[TrialCurve]) -> str | None:
    stand = rungs.last_stand(curve)
    twins = [twin for twin in curves if twin.protected]
    if stand is None or stand.rung not in [rung for rung in RUNGS if not rungs.is_off(rung, curves)]:
        return None
    at = stand.progress
    if any(twin.living and twin.wave <= curve.wave and not twin.reached(at) for twin in twins):
        return None
    peers = [peer for peer in curves if peer is not curve and comparable(peer, curve, stand.rung)]
    arrived = [peer for peer in peers if peer.reached(at)]
    coming = [peer for peer in peers if peer.living and peer.wave <= curve.wave and not peer.reached(at)]
    if len(arrived) + 1 < (QUORUM if coming else SMALL_QUORUM):
        return None
    spread = rungs._seed_spread(twins, at)  # pyright: ignore[reportPrivateUsage]
    better = sorted(
        (peer for peer in arrived if peer.level(at) < curve.level(at)), key=lambda peer: peer.level(at)
    )
    field = len(arrived) + len(coming) + 1
    standing = f"{len(better)} of {field} comparable trials were better"
    places = max(finalists_of(trials), math.ceil(field / KEPT_OF[stand.rung]))
    last = better[places - 1] if len(better) >= places else None
    if last and rungs._better(last, curve, at, spread, rungs.LIKELY):  # pyright: ignore[reportPrivateUsage]
        return f"above {last.id}: no place is left; {standing}"
    if len(better) < field - (field // 3 if trials <= THIRD_UP_TO else field // 2):
        return None
    for peer in better:
        if rungs._better(peer, curve, at, spread, rungs.SURE):  # pyright: ignore[reportPrivateUsage]
            return f"above {peer.id}: more than noise; {standing}"
    return None


def wide(
    trials: int, seed: int, curves: Sequence[TrialCurve], coming: int
) -> tuple[Decisions, list[str]]:
    """Who waits or goes in a search that starts wide, and who of those that wait may go on."""
    found: Decisions = {}
    free: set[str] = set()
    for shape in {curve.shape for curve in curves} - {None}:
        field = [curve for curve in curves if curve.shape == shape]
        order, sent, second = stages(trials, seed, field, curves, coming)
        for curve in field:
            early, late = mark(curve, FIRST), mark(curve, SECOND)
            if curve.paused:
                free |= {curve.id} & (set(second[1]) if second else set(sent) if late is None else set())
            if not curve.unfinished or curve.protected or early is None:
                continue
            if second is not None and curve.id not in second[1]:
                at = second[0] if late is not None and curve.id in second[0] else order
                found[curve.id] = (
                    f"prune at place {at.index(curve.id) + 1 if curve.id in at else None} of {len(at)}"
                )
            elif second is None and not curve.paused and not (late is None and curve.id in sent):
                found[curve.id] = "pause"
    return found, [curve.id for curve in curves if curve.id in free]


def stages(
    trials: int, seed: int, field: Sequence[TrialCurve], curves: Sequence[TrialCurve], coming: int
) -> tuple[list[str], set[str], tuple[list[str], list[str]] | None]:
    """The first rung from best to worst, who is sent on from there, and the second rung
    with who is kept."""
    others = [curve for curve in curves if curve.shape is None]
    if coming or any(curve.living and mark(curve, FIRST) is None for curve in [*field, *others]):
        return [], set(), None
    order = ranked(field, FIRST)
    places = places_at(len(order), trials)
    chosen = spread(order, places)
    left = sorted(curve.id for curve in order if curve.id not in chosen)
    audits = set(Random(f"{seed}:{','.join(left)}").sample(left, min(halving.AUDITS, len(left) // 2)))
    sent, judges = chosen | audits, [curve for curve in order if curve.id in chosen | audits]
    if not any(curve.living and mark(curve, SECOND) is None for curve in judges):
        told = [place for place, curve in enumerate(ranked(judges, SECOND)) if curve.id in audits]
        taken = [place for place, curve in enumerate(ranked(judges, SECOND)) if curve.id in chosen]
        if told and taken and median(told) <= median(taken):
            sent = {curve.id for curve in order}
    names = [curve.id for curve in order]
    gone_on = [curve for curve in order if curve.id in sent]
    if any(curve.living and mark(curve, SECOND) is None for curve in gone_on):
        return names, sent, None
    late = [curve.id for curve in ranked(gone_on, SECOND)]
    return names, sent, (late, late[: places_at(places, trials)] if len(order) >= SMALLEST else late)


def spread(order: Sequence[TrialCurve], places: int) -> set[str]:
    """Half by loss alone, then the best of each rank and each dropout that has no
    place, then by loss again."""
    chosen = list(order[: math.ceil(places / 2)])
    for key in UNRANKED:
        for curve in order:
            taken = [one.asked.params.get(key) for one in chosen]
            if len(chosen) < places and curve.asked.params.get(key) not in taken:
                chosen.append(curve)
    rest = [curve for curve in order if curve not in chosen]
    return {curve.id for curve in [*chosen, *rest][: max(places, len(chosen))]}


def ranked(field: Sequence[TrialCurve], rung: float) -> list[TrialCurve]:
    came = [curve for curve in field if not curve.protected and mark(curve, rung)]
    return sorted(came, key=lambda curve: (halving.cost_at(curve, rung), curve.id))


mark = halving.mark
