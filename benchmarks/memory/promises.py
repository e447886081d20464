"""What is promised of quantised packs, each beside what a result says of it. A table is made of a result
and of nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

Result = dict[str, Any]
NOT_MEASURED = "not measured"
LOFTQ = "nf4, LoftQ"
Values = Callable[[Result], Sequence[float]]


@dataclass(frozen=True)
class Promise:
    """A line of the table: `values` by round or arm, `pick` makes one of them."""

    text: str
    values: Values
    show: str
    target: float
    at_most: bool = True
    pick: Callable[[Sequence[float]], float] = median

    def reached(self, result: Result) -> float | None:
        found = self.values(result)
        return self.pick(found) if found else None

    def cells(self, result: Result) -> tuple[str, str, str, str, str]:
        reached = self.reached(result)
        wanted = f"{'<=' if self.at_most else '>='} {self.show.format(self.target)}"
        if reached is None:
            return self.text, wanted, NOT_MEASURED, "", ""
        found = self.values(result)
        met = reached <= self.target if self.at_most else reached >= self.target
        span = f"{self.show.format(min(found))} to {self.show.format(max(found))}"
        return self.text, wanted, self.show.format(reached), span, "met" if met else "missed"


def steps(result: Result, kind: str, packed: int, tokens: int, threads: int) -> dict[int, float]:
    """Milliseconds of a step by round."""
    return {
        one["round"]: one["step_ms"]
        for one in result.get("timed", ())
        if one["arm"] == {"kind": kind, "packed": packed, "tokens": tokens} and one["threads"] == threads
    }


def over_dense(kind: str, packed: int, tokens: int, threads: int = 1) -> Values:
    """Time of a step as a multiple of the bf16 pack's, round by round."""

    def read(result: Result) -> list[float]:
        ours, theirs = (steps(result, one, packed, tokens, threads) for one in (kind, "bf16"))
        return [ours[number] / theirs[number] for number in ours if number in theirs]

    return read


def over_peft(packed: int, tokens: int, threads: int = 1) -> Values:
    """How many times as fast an NF4 pack is as PEFT one after another, round by round."""

    def read(result: Result) -> list[float]:
        ours = steps(result, "nf4", packed, tokens, threads)
        theirs = steps(result, "peft nf4", 1, tokens, threads)
        return [packed * theirs[number] / ours[number] for number in ours if number in theirs]

    return read


def memory_errors(result: Result) -> list[float]:
    """Sizes of the forecast's errors, by arm."""
    return [abs(one["error"]) for one in result.get("held", ())]


def probed(result: Result) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Arms whose forecast was probed, beside what was held."""
    held = list(result.get("held", ()))
    return [
        (one, other) for one in result.get("probed", ()) for other in held if one["arm"] == other["arm"]
    ]


def probed_errors(result: Result) -> list[float]:
    return [abs(one["probed_bytes"] / other["measured_bytes"] - 1) for one, other in probed(result)]


def time_errors(result: Result) -> list[float]:
    """Sizes of the errors of a step's time after a probe, on one thread: of the median over rounds."""
    found: list[float] = []
    for one in result.get("probed", ()):
        arm = one["arm"]
        laps = steps(result, arm["kind"], arm["packed"], arm["tokens"], 1)
        if laps:
            found.append(abs(one["probed_ms"] / median(laps.values()) - 1))
    return found


def float32_share(result: Result) -> list[float]:
    """Peak above the base for each adapter, as a share of PEFT's."""
    found = result.get("float32", {})
    return [found["ours"] / found["packed"] / found["theirs"]] if found else []


def billion(result: Result) -> list[float]:
    found = result.get("billion")
    if not found:
        return []
    return [max(found["measured_bytes"], found["loading_bytes"]) / 2**30]


PROMISES = (
    Promise(
        "NF4 pack of 4, 32 tokens, time of the bf16 pack's step",
        over_dense("nf4", 4, 32),
        "{:.2f}",
        1.15,
    ),
    Promise(
        "NF4 pack of 16, 32 tokens, speed over PEFT + bitsandbytes one after another",
        over_peft(16, 32),
        "{:.2f}",
        3.5,
        at_most=False,
    ),
    Promise("memory forecast, median error", memory_errors, "{:.1%}", 0.03),
    Promise("memory forecast after a probe, median error", probed_errors, "{:.1%}", 0.01),
    Promise("time of a step forecast after a probe, median error", time_errors, "{:.1%}", 0.01),
    Promise(
        "float32 pack of 8, 32 tokens, peak memory per adapter over PEFT's", float32_share, "{:.2f}", 0.5
    ),
    Promise("1B in NF4, K=8, r 16, 256 tokens: peak in GiB", billion, "{:.2f}", 4.0),
)


def table(result: Result) -> str:
    """All tables, in Markdown."""
    parts = [promises(result), arms(result), gaps(result), one_billion(result)]
    return "\n\n".join(part for part in parts if part)


def promises(result: Result) -> str:
    head = ("promise", "target", "reached", "lowest to highest", "")
    return lines(head, [one.cells(result) for one in PROMISES])


def arms(result: Result) -> str:
    """Every arm: time by threads, memory, forecasts."""
    keys = dict.fromkeys(
        tuple(one["arm"].values()) for part in ("timed", "held") for one in result.get(part, ())
    )
    rows = [_arm(result, *key) for key in sorted(keys, key=lambda key: (key[2], key[1], key[0]))]
    head = (
        "tokens",
        "K",
        "base",
        "ms a step, 1 thread",
        "2 threads",
        "after a probe",
        "above the base, MB",
        "process, MB",
        "forecast",
        "after a probe",
    )
    return lines(head, rows) if rows else ""


def _arm(result: Result, kind: str, packed: int, tokens: int) -> tuple[str, ...]:
    arm = {"kind": kind, "packed": packed, "tokens": tokens}

    def own(part: str) -> list[dict[str, Any]]:
        return [one for one in result.get(part, ()) if one["arm"] == arm]

    times = [steps(result, kind, packed, tokens, threads) for threads in (1, 2)]
    above = [one["peak_bytes"] for one in own("timed") if one["threads"] == 1]
    held, after = (next(iter(own(part)), None) for part in ("held", "probed"))
    return (
        str(tokens),
        str(packed),
        kind,
        *(f"{median(laps.values()):.0f}" if laps else "-" for laps in times),
        f"{after['probed_ms'] / median(times[0].values()) - 1:+.1%}" if after and times[0] else "-",
        f"{median(above) / 1e6:,.0f}" if above else "-",
        f"{held['measured_bytes'] / 1e6:,.0f}" if held else "-",
        f"{held['error']:+.1%}" if held else "-",
        f"{after['probed_bytes'] / held['measured_bytes'] - 1:+.1%}" if after and held else "-",
    )


def gaps(result: Result) -> str:
    """Loss over a base in few bits beside the dense one, task by task."""
    rows = [_gap(task, one) for task in result.get("gap", ()) for one in task["ways"]]
    head = ("task", "rate", "base", "loss before training", "after it", "over bf16, in pairs", "closed")
    return lines(head, rows) if rows else ""


def _gap(task: Result, one: Result) -> tuple[str, ...]:
    return (
        task["data"].split("/")[1],
        f"{task['rate']:g}",
        one["name"],
        f"{one['bare']:.4f}",
        f"{one['loss']:.4f}",
        f"{one['gap']:+.4f} +- {one['gap_half_width']:.4f}" if "gap" in one else "",
        "{:.0%} +- {:.0%}".format(*closed(task)) if one["name"] == LOFTQ else "",
    )


def closed(task: Result) -> tuple[float, float]:
    """The share of NF4's gap to bf16 that LoftQ closes, and half an interval of two standard errors over
    seeds (of a ratio of means, by the delta method)."""
    losses = {one["name"]: one["losses"] for one in task["ways"]}
    nf4, loftq = (
        [ours - dense for ours, dense in zip(losses[name], losses["bf16"], strict=True)]
        for name in ("nf4", LOFTQ)
    )
    left = fmean(loftq) / fmean(nf4)
    spread = stdev(ours - left * theirs for ours, theirs in zip(loftq, nf4, strict=True))
    return 1 - left, 2 * spread / math.sqrt(len(nf4)) / abs(fmean(nf4))


def one_billion(result: Result) -> str:
    found = result.get("billion")
    if not found:
        return ""
    size = {
        key: f"{found[f'{key}_bytes'] / 2**30:.2f} GiB"
        for key in ("base", "loading", "measured", "forecast", "limit")
    }
    return lines(
        ("numbers", "base", "most while it loads", "most after it", "forecast", "error", "limit"),
        [
            (
                f"{found['parameters'] / 1e9:.2f}e9",
                size["base"],
                size["loading"],
                size["measured"],
                size["forecast"],
                f"{found['error']:+.1%}",
                size["limit"],
            )
        ],
    )


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, ["---"] * len(head), *rows)
    )
