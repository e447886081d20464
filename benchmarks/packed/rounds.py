"""What a run measures and in which order: profiles of config.yaml, and rounds of arms
in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from arms import Arm, Pace, Sample, measure, measure_matmul
from verdict import MEMORY_DROPOUT, Measured

CONFIG = Path(__file__).resolve().with_name("config.yaml")


@dataclass(frozen=True)
class Profile:
    """One entry of config.yaml."""

    model: dict[str, Any]
    tokens: list[int]
    packed: list[int]
    headline: int
    defaults: bool
    rounds: int
    pace: dict[str, Any]
    matmul: list[int]
    targets: dict[str, dict[int, float]]

    def arms(self, tokens: int) -> list[Arm]:
        """What a round measures at one length."""
        trainers = [Arm("peft_trainer", "float32", 1, tokens)] if self.defaults else []
        trainers.append(Arm("peft_trainer", "bfloat16", 1, tokens))
        return trainers + [Arm("loraloom", "bfloat16", adapters, tokens) for adapters in self.packed]

    def memory_arms(self, tokens: int) -> list[Arm]:
        """What is measured once, for its memory: it hardly varies."""
        sizes = dict.fromkeys((1, self.headline))
        alone = Arm("peft_trainer", "bfloat16", 1, tokens, MEMORY_DROPOUT)
        return [
            alone,
            *(Arm("loraloom", "bfloat16", adapters, tokens, MEMORY_DROPOUT) for adapters in sizes),
        ]


def read_profile(name: str) -> Profile:
    return Profile(**yaml.safe_load(CONFIG.read_text())[name])


class Bench:
    """Runs a profile; what was measured stands in `measured`."""

    def __init__(self, profile: Profile, device: str, say: Callable[[str], None]) -> None:
        self.profile, self.device, self.say = profile, device, say
        self.measured: list[Measured] = []
        self._context = _context(device)

    def run(self) -> None:
        pace = Pace(**self.profile.pace)
        for number in range(self.profile.rounds):
            for tokens in self.profile.tokens:
                arms = self.profile.arms(tokens)
                self._round(number, arms if number % 2 == 0 else arms[::-1], pace)
        brief = Pace(pace.warmup_steps, pace.least_steps, 0.0)
        for tokens in self.profile.tokens:
            self._round(0, self.profile.memory_arms(tokens), brief)

    def _round(self, number: int, arms: Sequence[Arm], pace: Pace) -> None:
        rate = self._alone(measure_matmul, self.profile.matmul, self.device)
        self.say(f"round {number + 1}: bfloat16 matmul {rate / 1e9:,.0f} GFLOP/s")
        for arm in arms:
            sample: Sample = self._alone(measure, arm, self.profile.model, pace, self.device)
            self.measured.append(Measured(number, rate, sample))
            self.say(
                f"round {number + 1}, {arm.tokens} tokens, {arm.name}: {sample.tokens_per_second:,.0f}"
                " tokens/s"
            )

    def _alone(self, work: Callable[..., Any], *args: Any) -> Any:
        """Call `work` in a process that did nothing before and does nothing after."""
        with ProcessPoolExecutor(1, mp_context=self._context) as pool:
            return pool.submit(work, *args).result()


def _context(device: str) -> Any:
    """Processes forked off one that has the libraries loaded and has computed nothing
    yet; on CUDA, wholly new ones."""
    if device == "cuda" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["peft", "transformers.trainer", "transformers.models.llama.modeling_llama"]
    )
    return context
