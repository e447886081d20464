"""From samples to the numbers that are promised: ratios within one round, their medians, and the tables.

Arms of one round ran next to one another, so what slowed the machine slowed them alike: ratios are
formed inside a round, and the median is taken over rounds. Nothing here measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from arms import Arm, Sample

FLOP_PER_WEIGHT = 4
"""Of one token under LoRA: 2 forward, 2 for the gradient of the activations; frozen
weights have none themselves."""
MEMORY_DROPOUT = 0.05


@dataclass(frozen=True)
class Measured:
    """A sample, the round it belongs to, and the rate of the machine's own matmul
    (FLOP/s) just before."""

    round: int
    matmul_rate: float
    sample: Sample

    @property
    def matmul_fraction(self) -> float:
        return (
            FLOP_PER_WEIGHT
            * self.sample.matmul_parameters
            * self.sample.tokens_per_second
            / self.matmul_rate
        )

    @property
    def peak_bytes_per_adapter(self) -> float | None:
        return (
            None if self.sample.peak_bytes is None else self.sample.peak_bytes / self.sample.arm.adapters
        )


@dataclass(frozen=True)
class Claim:
    """A target and what was reached: `values` by round, their median in `reached` (None
    where nothing was measured)."""

    key: str
    text: str
    tokens: int
    target: float
    at_most: bool
    values: tuple[float, ...]

    @property
    def reached(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        if self.reached is None:
            return None
        return self.reached <= self.target if self.at_most else self.reached >= self.target


@dataclass(frozen=True)
class Summary:
    """One arm over all its rounds: medians."""

    arm: Arm
    tokens_per_second: float
    matmul_fraction: float
    peak_bytes_per_adapter: float | None


def summaries(measured: Sequence[Measured]) -> list[Summary]:
    """One for each arm, by tokens, in the order of measuring."""
    arms = sorted(
        dict.fromkeys(each.sample.arm for each in measured), key=lambda arm: (arm.tokens, arm.dropout)
    )
    found: list[Summary] = []
    for arm in arms:
        own = [each for each in measured if each.sample.arm == arm]
        peaks = [each.peak_bytes_per_adapter for each in own if each.peak_bytes_per_adapter is not None]
        found.append(
            Summary(
                arm,
                median(each.sample.tokens_per_second for each in own),
                median(each.matmul_fraction for each in own),
                median(peaks) if peaks else None,
            )
        )
    return found


def claims(
    measured: Sequence[Measured], targets: dict[str, dict[int, float]], packed: int
) -> list[Claim]:
    """Every target of the configuration with what was reached.

    Args:
        targets: by key (see `wordings`) and tokens.
        packed: how many candidates the pack has that the targets speak of.
    """
    found: list[Claim] = []
    for key, by_tokens in targets.items():
        text, at_most, values = wordings(packed)[key]
        for tokens, target in by_tokens.items():
            there = [each for each in measured if each.sample.arm.tokens == tokens]
            found.append(Claim(key, text, tokens, target, at_most, values(there)))
    return found


Values = Callable[[Sequence[Measured]], tuple[float, ...]]


def wordings(packed: int) -> dict[str, tuple[str, bool, Values]]:
    """What can be promised: in words, whether less is better, and the values by round
    from samples of one length."""
    pack = f"packed K={packed}"

    def speedup(precision: str) -> Values:
        return lambda there: _paired(
            [each for each in there if _is(each, "loraloom", "bfloat16", packed)],
            [each for each in there if _is(each, "peft_trainer", precision, 1)],
            lambda each: each.sample.tokens_per_second,
        )

    return {
        "over_defaults": (f"{pack} over PEFT + Trainer at its defaults", False, speedup("float32")),
        "over_same_precision": (
            f"{pack} over PEFT + Trainer, both bfloat16",
            False,
            speedup("bfloat16"),
        ),
        "matmul_fraction": (
            f"{pack}, fraction of the bfloat16 matmul rate",
            False,
            lambda there: _fractions(there, packed),
        ),
        "memory_share": (
            f"{pack}, peak memory per adapter over PEFT's, dropout {MEMORY_DROPOUT:g}",
            True,
            lambda there: _paired(
                [each for each in there if _is(each, "loraloom", "bfloat16", packed, MEMORY_DROPOUT)],
                [each for each in there if _is(each, "peft_trainer", "bfloat16", 1, MEMORY_DROPOUT)],
                lambda each: each.peak_bytes_per_adapter,
            ),
        ),
    }


def _fractions(there: Sequence[Measured], packed: int) -> tuple[float, ...]:
    return tuple(each.matmul_fraction for each in there if _is(each, "loraloom", "bfloat16", packed))


def _is(each: Measured, engine: str, precision: str, adapters: int, dropout: float = 0.0) -> bool:
    arm = each.sample.arm
    return (arm.engine, arm.precision, arm.adapters, arm.dropout) == (
        engine,
        precision,
        adapters,
        dropout,
    )


def _paired(
    left: Sequence[Measured], right: Sequence[Measured], value: Callable[[Measured], float | None]
) -> tuple[float, ...]:
    """left / right of each round that has both."""
    below = {each.round: value(each) for each in right}
    pairs = [(value(each), below.get(each.round)) for each in left]
    return tuple(above / under for above, under in pairs if above is not None and under)


# -- words
# -------------------------------------------------------------------------------------------------------


def table_of_arms(rows: Sequence[Summary]) -> str:
    """Every arm: speed, share of the matmul rate, memory."""
    lines: list[tuple[str, ...]] = [
        ("tokens", "arm", "tokens/s", "of matmul rate", "peak MB", "per adapter")
    ]
    for row in rows:
        each = row.peak_bytes_per_adapter
        peak = (
            ("-", "-")
            if each is None
            else (f"{each * row.arm.adapters / 1e6:,.1f}", f"{each / 1e6:,.1f}")
        )
        lines.append(
            (
                str(row.arm.tokens),
                row.arm.name,
                f"{row.tokens_per_second:,.0f}",
                f"{row.matmul_fraction:.3f}",
                *peak,
            )
        )
    return _aligned(lines, left=1)


def table_of_claims(rows: Sequence[Claim]) -> str:
    """Every target, what was reached, and whether that is enough."""
    lines = [("tokens", "promise", "target", "reached", "lowest-highest", "")]
    for row in rows:
        target = f"{'<=' if row.at_most else '>='} {row.target:.2f}"
        if row.reached is None:
            lines.append((str(row.tokens), row.text, target, "-", "-", "not measured"))
        else:
            span = f"{min(row.values):.2f}-{max(row.values):.2f}"
            lines.append(
                (
                    str(row.tokens),
                    row.text,
                    target,
                    f"{row.reached:.2f}",
                    span,
                    "met" if row.met else "missed",
                )
            )
    return _aligned(lines, left=1)


def _aligned(lines: Sequence[tuple[str, ...]], left: int) -> str:
    """Columns of one width; column `left` is words, the others are set to the right."""
    columns = [
        [cell.ljust(width) if number == left else cell.rjust(width) for cell in column]
        for number, column in enumerate(zip(*lines, strict=True))
        for width in [max(map(len, column))]
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
