"""Peak memory of training above a float32 base, of a pack or of PEFT + Trainer, by the arms of
benchmarks/packed.

    python benchmarks/memory/float32_memory.py ours     # or: theirs; prints one JSON document
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "packed"))

from arms import Arm, Pace, measure
from rounds import read_profile

PACKED, TOKENS = 8, 32


def main(words: list[str]) -> dict[str, Any]:
    profile = read_profile("quick" if "--quick" in words else "cpu")
    ours = words[0] == "ours"
    arm = Arm("loraloom" if ours else "peft_trainer", "float32", PACKED if ours else 1, TOKENS)
    sample = measure(arm, profile.model, Pace(2, 3, 0.0), "cpu")
    return {"adapters": arm.adapters, "tokens": TOKENS, "peak_bytes": sample.peak_bytes}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
