"""Facts to plan on: models by their config, data and machines by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from machines import CONFIGS, CPU, data

from loraloom.facts.device import DeviceFacts
from loraloom.facts.model import ModelFacts, model_facts
from loraloom.plan import time
from loraloom.plan.planner import Facts
from loraloom.records import Task


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelFacts]:
    """Facts of one of CONFIGS, by name."""
    made: dict[tuple[str, Task | None], ModelFacts] = {}

    def make(name: str, task: Task | None = None) -> ModelFacts:
        if (name, task) not in made:
            folder = tmp_path_factory.mktemp(name)
            CONFIGS[name]().save_pretrained(folder)
            made[name, task] = model_facts(str(folder), task=task)
        return made[name, task]

    return make


@pytest.fixture
def facts(model: Callable[..., ModelFacts]) -> Callable[..., Facts]:
    """Facts(model by name, data, device); keyword arguments beyond `device` and `task`
    go to the data."""

    def make(name: str, *, task: Task | None = None, device: DeviceFacts = CPU, **more: Any) -> Facts:
        found = model(name, task)
        return Facts(found, data(found.task, **more), device)

    return make


@pytest.fixture(autouse=True)
def fixed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose speed does not depend on who else uses it."""
    monkeypatch.setattr(
        time, "matmul_flops", lambda kind, dtype: {"cpu": 1e11, "cuda": 5e14, "mps": 5e12}[kind]
    )
