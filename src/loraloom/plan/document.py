"""A plan as the document that `plan --json` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loraloom.facts.device import gpu_document
from loraloom.plan.ladder import ladder
from loraloom.plan.mixture import mixture
from loraloom.plan.planner import Plan
from loraloom.plan.search_space import space_json
from loraloom.plan.time import trainings_of_search
from loraloom.records import Estimate

BESIDE = ("streamed", "generation", "export")
"""Forecasts beside that of training: weights apart from its memory, and what an adapter is used for,
writing answers and being merged into its base."""


def bytes_json(estimate: Estimate) -> dict[str, int]:
    """A forecast of memory: its parts, its total and its range."""
    amounts = {**estimate.parts, "total": estimate.value, "low": estimate.low, "high": estimate.high}
    return {f"{name}_bytes": round(size) for name, size in amounts.items()}


def plan_json(plan: Plan) -> dict[str, Any]:
    """The document that `plan --json` prints."""
    memory, time, device = plan.forecast["memory"], plan.forecast["time"], plan.facts.device
    return {
        "rows": plan.facts.data.split_rows,
        "sources": [asdict(one) for one in mixture(plan.case)],
        "settings": {key: asdict(advice) for key, advice in plan.settings.items()},
        "forecast": {
            "memory": {
                **bytes_json(memory),
                "one_candidate_bytes": round(plan.forecast["memory_one"].value),
                "budget_bytes": plan.case.memory_budget,
                "candidates": plan.pack_size,
            },
            "time": {
                **{f"{name}_seconds": round(seconds, 1) for name, seconds in time.parts.items()},
                "total_seconds": round(time.value, 1),
                "low_seconds": round(time.low, 1),
                "high_seconds": round(time.high, 1),
                "one_candidate_seconds": round(plan.forecast["time_one"].value, 1),
                "candidates": plan.trials,
                "trainings": round(trainings_of_search(plan.case), 3),
                "now": {
                    "cores_share": plan.facts.device.share,
                    "total_seconds": round(time.value / plan.facts.device.share, 1),
                },
            },
            **{name: bytes_json(plan.forecast[name]) for name in BESIDE if name in plan.forecast},
        },
        "ladder": [asdict(rung) for rung in ladder(plan.case, plan.shape)],
        "workers": list(plan.facts.workers),
        "device": {
            "kind": device.kind,
            "name": device.name,
            "total_bytes": device.total_bytes,
            "free_bytes": device.free_bytes,
            "others_bytes": device.others_bytes,
            "gpu": gpu_document(device, plan.settings.dtype),
        },
        "search_space": space_json(plan),
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
    }
