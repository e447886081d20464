"""Packs over a base in 16, 8 and 4 bits, and PEFT over bitsandbytes: which arms are measured, and in
what order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from one_arm import Arm, Kind
from random_llama import save_base, save_rows

HERE = Path(__file__).resolve().parent
KINDS: tuple[Kind, ...] = ("bf16", "nf4", "int8")
SECONDS = 600
"""An arm that takes longer has gone wrong."""
ROWS, HELD_OUT_TOKENS = 64, 2048
"""Training rows, and tokens of all validation rows: more than a pass that scores takes at once."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Profile:
    """What is measured. `rounds` by number of threads."""

    shape: dict[str, Any]
    tokens: tuple[int, ...]
    packed: tuple[int, ...]
    rounds: dict[int, int]
    pace: dict[str, Any]
    inside: bool = False
    """Whether arms run in this process: where their numbers mean nothing, it need not be their own."""


FULL = Profile(
    shape={
        "hidden_size": 576,
        "num_hidden_layers": 10,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "tie_word_embeddings": False,
    },
    tokens=(32, 128),
    packed=(1, 4, 8, 16),
    rounds={1: 2, 2: 1},
    pace={},
)
"""92 million numbers, 35 million of them inside the blocks."""
QUICK = Profile(
    shape={
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "tie_word_embeddings": False,
    },
    tokens=(8,),
    packed=(2,),
    rounds={1: 1},
    pace={"warmup": 1, "least": 1, "seconds": 0.0},
    inside=True,
)


class Packs:
    """Runs arms, each in a process of its own, over one base that lies in `work`."""

    def __init__(self, profile: Profile, work: Path, say: Say) -> None:
        self.profile, self.say = profile, say
        work.mkdir(exist_ok=True)
        self.base = save_base(work / "base", profile.shape)
        self.rows = {tokens: self._rows(work / str(tokens), tokens) for tokens in profile.tokens}

    def _rows(self, folder: Path, tokens: int) -> Path:
        folder.mkdir()
        vocabulary = self.profile.shape["vocab_size"]
        save_rows(folder / "train.jsonl", vocabulary, tokens, ROWS, seed=0)
        save_rows(folder / "validation.jsonl", vocabulary, tokens, HELD_OUT_TOKENS // tokens, seed=1)
        return folder

    def arms(self, kinds: tuple[Kind, ...] = KINDS) -> Iterator[Arm]:
        """By length and pack, so that kinds of one size run next to one another."""
        for tokens, rows in self.rows.items():
            for packed in self.profile.packed:
                for kind in kinds:
                    yield Arm(kind, packed, tokens, str(self.base), str(rows))

    def alone(self) -> Iterator[Arm]:
        """PEFT's, one candidate."""
        for tokens, rows in self.rows.items():
            yield Arm("peft nf4", 1, tokens, str(self.base), str(rows))

    def timed(self) -> list[dict[str, Any]]:
        """Rounds of all arms, every other one backwards."""
        found: list[dict[str, Any]] = []
        for threads, rounds in self.profile.rounds.items():
            for number in range(rounds):
                arms = [*self.alone(), *self.arms()]
                for arm in arms if number % 2 == 0 else arms[::-1]:
                    one = self._one("timed", arm, threads)
                    found.append({"round": number, "threads": threads, **one})
                    self.say(
                        f"{threads} threads, round {number + 1}, {words(arm)}: {one['step_ms']:.0f} ms"
                    )
        return found

    def held(self) -> list[dict[str, Any]]:
        """Whole processes beside their forecasts, on one thread."""
        found: list[dict[str, Any]] = []
        for arm in self.arms():
            one = self._one("held", arm, 1)
            one["error"] = one["forecast_bytes"] / one["measured_bytes"] - 1
            found.append(one)
            self.say(
                f"{words(arm)}: {one['forecast_bytes'] / 1e6:,.0f} MB forecast,"
                f" {one['measured_bytes'] / 1e6:,.0f} measured ({one['error']:+.1%})"
            )
        return found

    def probed(self) -> list[dict[str, Any]]:
        """Forecasts after a probe, on one thread."""
        found: list[dict[str, Any]] = []
        for arm in self.arms():
            one = self._one("probed", arm, 1)
            found.append(one)
            self.say(
                f"{words(arm)}: {one['probed_bytes'] / 1e6:,.0f} MB and {one['probed_ms']:.0f} ms"
                " after a probe"
            )
        return found

    def _one(self, mode: str, arm: Arm, threads: int) -> dict[str, Any]:
        """What one_arm.py prints, without the folders of this machine."""
        arguments = [mode, json.dumps(asdict(arm)), json.dumps(self.profile.pace)]
        found = alone("one_arm", arguments, threads, inside=self.profile.inside)
        found["arm"] = {key: found["arm"][key] for key in ("kind", "packed", "tokens")}
        return found


def alone(script: str, words: list[str], threads: int, *, inside: bool = False) -> dict[str, Any]:
    """What the script of this name beside this one prints, in a process with so many threads.

    Raises:
        RuntimeError: it failed.
    """
    if inside:
        return json.loads(json.dumps(import_module(script).main(words)))
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(HERE / f"{script}.py"), *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def words(arm: Arm) -> str:
    return f"{arm.kind} K={arm.packed}, {arm.tokens} tokens"
