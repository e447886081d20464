"""Preference losses of a pack against TRL's own trainers, where TRL is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "preferences"
BOUNDS = {"first_loss": 1e-5, "first_rewards": 1e-4, "first_grad_norm": 2e-5, "weights": 2e-2}
"""Of differences as a share of TRL's numbers, in float32; of weights after four steps of AdamW, which
moves those by a whole step whose gradient is all but zero."""


@pytest.mark.parametrize(
    "pack", [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, 6))]
)
def test_losses_are_those_of_trl(pack: int, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="TRL is compared with where it is installed: pip install trl")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.syspath_prepend(str(BENCHMARK))
    parity = __import__("parity")
    try:
        table = parity.run(shared, (parity.PACKS[pack],))
    finally:
        for name in ("parity", "pairs"):
            sys.modules.pop(name, None)
    assert len(table) == 2
    for name, found in table.items():
        for quantity, bound in BOUNDS.items():
            assert found[quantity] < bound, (name, quantity)
