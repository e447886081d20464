"""Each choice that the engine makes, taken back alone: 16 candidates, 1B, and the ratio
of its tick to the default's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from loraloom.evals import cross_entropy
from steps.bench import Bench
from steps.packs import DTYPE
from steps.training import (
    ALPHA,
    RANK,
    Pace,
    build,
    engine,
    forget_peak,
    linears,
    make_rows,
    pack_of,
    peak_bytes,
    timed,
    ways,
)

PACE = Pace(least=8, seconds=0.8, most=16)
DEFAULT = "default"

Each = Callable[[int], dict[str, Any]]


def measure(bench: Bench) -> None:
    Comparison(bench, *(("small", 8, 4) if bench.small else ("1B", 256, 16))).run()


class Comparison:
    """Arms over one base, one after another; the default comes first and last, which
    shows how far the machine drifts."""

    def __init__(self, bench: Bench, shape: str, tokens: int, packed: int) -> None:
        self.bench, self.tokens, self.packed = bench, tokens, packed
        self.model = build(shape, DTYPE, bench.device)
        self.default: float | None = None
        self.even: float | None = None

    def run(self) -> None:
        alike = self._ratio_to_default
        first = self.bench.part(DEFAULT, self._arm)
        self.default = None if first is None else first["run_ms"]
        for rows in (49, 512, 2048, 4096):
            alike(f"{rows} rows of logits at once", lambda rows=rows: self._with_chunk(rows))
        for switch in ("kernels", "fused", "graphs"):
            for value in (False, True):
                alike(
                    f"{switch} {'on' if value else 'off'}", lambda s=switch, v=value: self._arm(**{s: v})
                )
        alike("dropout 0.05", lambda: self._arm(each=lambda n: {"lora_dropout": 0.05}))
        alike(
            "ranks 4 and 12",
            lambda: self._arm(each=lambda n: {"r": 4 + 8 * (n % 2), "lora_alpha": 4 + 8 * (n % 2)}),
        )
        alike("scales differ", lambda: self._arm(each=lambda n: {"lora_alpha": ALPHA + n}))
        alike("rank 64", lambda: self._arm(each=lambda n: {"r": 8 * RANK}))
        alike("targets differ", lambda: self._arm(each=self._targets))
        even = self.bench.part("even batches: 2 rows each", lambda: self._batches(lambda n: 2))
        self.even = None if even is None else even["run_ms"]
        self.bench.part(
            "uneven batches: 1 and 3 rows",
            lambda: self._ratio(self._batches(lambda n: 1 + 2 * (n % 2)), self.even),
        )
        alike(f"{DEFAULT} again", self._arm)

    def _ratio_to_default(self, name: str, arm: Callable[[], dict[str, Any]]) -> None:
        self.bench.part(name, lambda: self._ratio(arm(), self.default))

    @staticmethod
    def _ratio(found: dict[str, Any], standard: float | None) -> dict[str, Any]:
        """Above 1: so much slower."""
        return {**found, "ratio": None if standard is None else found["run_ms"] / standard}

    def _arm(
        self, each: Each = lambda n: {}, tokens: int | None = None, **switches: bool
    ) -> dict[str, Any]:
        forget_peak(self.bench)
        trainer = engine(
            self.model, make_rows(tokens or self.tokens, self.model.config.vocab_size), **switches
        )
        pack_of(self.model, trainer, self.packed, each)
        times = timed(self.bench, trainer.tick, None if self.bench.small else PACE)
        return {**times, "peak_bytes": peak_bytes(self.bench), "ways": ways(trainer)}

    def _with_chunk(self, rows: int) -> dict[str, Any]:
        """Logits of so many tokens at once, whatever the device."""
        with mock.patch.object(cross_entropy, "chunk_rows", return_value=rows):
            return self._arm()

    def _targets(self, number: int) -> dict[str, Any]:
        names = (
            ("q_proj", "k_proj", "v_proj", "o_proj")
            if number % 2
            else ("gate_proj", "up_proj", "down_proj")
        )
        return {"target_modules": linears(self.model, *names)}

    def _batches(self, rows: Callable[[int], int]) -> dict[str, Any]:
        """Batches of rows half as long: as many tokens a tick as the default has, in
        one pass, even and uneven alike."""
        return self._arm(lambda n: {"per_device_train_batch_size": rows(n)}, self.tokens // 2)
