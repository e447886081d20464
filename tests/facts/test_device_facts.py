"""What is told of the machine, and that every precision is tried rather than claimed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loraloom.facts import device
from loraloom.facts.device import device_facts, environment


def test_a_processor_has_memory_cores_and_a_name() -> None:
    facts = device_facts("cpu")
    assert facts.kind == "cpu" and facts.name and facts.cores >= 1
    assert 0 < facts.free_bytes <= facts.total_bytes
    assert facts.compute_capability is None


@pytest.mark.parametrize(
    ("info", "name", "native"),
    [
        ("model name\t: Fast\nflags\t\t: fpu avx512_bf16\n", "Fast", True),
        ("model name\t: Old\nflags\t\t: fpu avx2\n", "Old", False),
        ("Features\t: fp asimd bf16\n", None, True),
    ],
)
def test_bf16_in_hardware_is_read_from_the_flags(
    monkeypatch: pytest.MonkeyPatch, info: str, name: str | None, native: bool
) -> None:
    monkeypatch.setattr(device, "_cpu_info", lambda: info)
    facts = device_facts("cpu")
    assert facts.bf16_native is native
    assert name is None or facts.name == name


def test_a_container_s_limit_counts_as_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"memory.max": 2**30, "memory.current": 2**28}
    monkeypatch.setattr(device, "_read_int", lambda path: limits[Path(path).name])
    facts = device_facts("cpu")
    assert facts.total_bytes == 2**30
    assert facts.free_bytes <= 2**30 - 2**28


def test_the_environment_is_plain_and_its_precisions_are_proved() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert set(found["precisions"]) == {"fp32", "bf16", "fp16", "fp64"}
    assert found["precisions"]["fp32"] == {"works": True, "native": True}
    assert found["packages"]["torch"]


def test_a_precision_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def refuse(*args: object, **kwargs: object) -> torch.Tensor:
        raise RuntimeError("no kernel for this type")

    monkeypatch.setattr(torch, "full", refuse)
    assert environment()["precisions"]["bf16"] == {
        "works": False,
        "native": False,
        "reason": "no kernel for this type",
    }
