"""What it costs to keep a candidate, so that another worker can go on with it: bytes, CPU and wall time.

    python benchmarks/scale/keep.py          # seconds; writes keep.json
    python benchmarks/scale/keep.py --show   # the committed result

A candidate is kept as it was just scored, and between two evaluations: written, brought to the disk,
read back for its checksum. The models are random; what is written depends on the adapter's size alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULT, PARITY = HERE / "keep.json", HERE.parents[1] / "tests" / "parity"
sys.path[:0] = [str(PARITY), str(HERE.parent / "packed")]

TIMES = 20
RANKS = {"tiny": 8, "of 384 columns": 16}
"""Rank by model: that of the stories of kills, and one as wide and deep as a small encoder."""
WIDE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}


def model_of(name: str) -> Any:
    import tiny
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if name == "tiny":
        return tiny.model_of("llama", torch.float32)
    return LlamaForCausalLM(LlamaConfig(vocab_size=tiny.VOCAB, pad_token_id=0, **WIDE)).eval()


def kept(worker: Any, folder: Path) -> dict[str, float]:
    """Keep the candidate again and again: the mean of each."""
    from loraloom.train.orders import KeepEach

    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(TIMES):
        report = worker.obey([KeepEach(["a"])])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "bytes": (folder / report.kept["a"].file).stat().st_size,
        "cpu_ms": round(1000 * cpu / TIMES, 2),
        "wall_ms": round(1000 * wall / TIMES, 2),
    }


def measured(name: str) -> dict[str, Any]:
    from engine import candidate, causal_rows, trainer

    from loraloom.train.orders import Evaluate, Join, Train
    from loraloom.train.worker import Worker

    model, rows = model_of(name), causal_rows()
    made = candidate(
        "a", model, max_steps=8, evaluations=2, per_device_train_batch_size=2, r=RANKS[name]
    )
    with tempfile.TemporaryDirectory() as place:
        pack = trainer(model, rows, validation=rows[:6])
        pack.shelf.folder = Path(place)
        worker = Worker("w0", pack, lambda seat, to: 0.0, lambda seat, order: None, shared=True)
        worker.obey([Join(made, 1), *[Train()] * 4, Evaluate()])
        numbers = pack.seats["a"].adapter.arena.numel
        scored = kept(worker, Path(place))
        worker.obey([Train()])
        between = kept(worker, Path(place))
    return {"model": name, "numbers": numbers, "just_scored": scored, "between": between}


def table(result: dict[str, Any]) -> str:
    lines = [f"{'model':<16}{'numbers':>9}{'':>14}{'bytes':>10}{'CPU ms':>8}{'wall ms':>9}"]
    for case in result["cases"]:
        for when in ("just_scored", "between"):
            told = case[when]
            lines.append(
                f"{case['model']:<16}{case['numbers']:>9}{when.replace('_', ' '):>14}"
                f"{told['bytes']:>10}{told['cpu_ms']:>8}{told['wall_ms']:>9}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", action="store_true")
    if not parser.parse_args().show:
        from machine import describe, versions

        told = {"cases": [measured(name) for name in RANKS], "machine": describe("cpu")}
        RESULT.write_text(json.dumps({**told, "versions": versions()}, indent=1) + "\n")
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
