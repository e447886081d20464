"""What a person types: the tests that need a GPU, and one search of a tiny model, each
a command of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from isolate import LINES, ROOT, tidy

from steps.bench import Bench, Failed, NotMeasuredError

DOOR = ("pydantic", "typer", "rich", "optuna", "scipy", "sqlalchemy", "plotly", "jinja2", "pyarrow")
TESTS = ("pytest", "hypothesis")
SENTENCES = [
    f"the {animal} {verb} {place}"
    for animal in ("cat", "dog", "bird")
    for verb in ("sleeps", "waits", "turns")
    for place in ("here", "there", "in the house", "by the door")
]


def measure(bench: Bench) -> None:
    bench.part("tune", lambda: tune(bench), limit=110.0)
    bench.part("gpu tests", lambda: gpu_tests(bench), limit=120.0)


def need(packages: Sequence[str]) -> None:
    """Raises:
    NotMeasuredError: packages are missing.
    """
    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        raise NotMeasuredError(f"not installed: {', '.join(absent)}")


def tune(bench: Bench) -> dict[str, Any]:
    """Two candidates of a tiny decoder through `loraloom tune`."""
    need(DOOR)
    sys.path.insert(0, str(ROOT / "tests" / "end_to_end"))
    from bases import save_llama

    with TemporaryDirectory() as place:
        folder = Path(place)
        model, data = save_llama(folder / "model", SENTENCES), folder / "rows.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES))
        words = [
            "--model",
            str(model),
            "--data",
            str(data),
            "--validation",
            "0.2",
            "--trials",
            "2",
            "--max-steps",
            "4",
        ]
        words += [
            "--set",
            "search.seeds_for_finalists=1",
            "--output-dir",
            str(folder),
            "--name",
            "run",
            "--json",
        ]
        found = command(bench, [sys.executable, "-m", "loraloom", "tune", *words], said=False)
        result = json.loads((folder / "run" / "run.json").read_text())
    return {**found, "run_status": result["status"], "device": result["environment"]["device"]}


def gpu_tests(bench: Bench) -> dict[str, Any]:
    """`pytest -m gpu`."""
    bench.only_on_cuda()
    need((*DOOR, *TESTS))
    return command(
        bench,
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short"],
    )


def command(bench: Bench, words: Sequence[str], *, said: bool = True) -> dict[str, Any]:
    """Raises:
    Failed: it did not end with 0.
    """
    started = time.monotonic()
    hidden = {} if bench.on_cuda else {"CUDA_VISIBLE_DEVICES": ""}
    running = subprocess.Popen(
        list(words),
        cwd=ROOT,
        env=os.environ | hidden,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last: deque[str] = deque(maxlen=3 * LINES)
    for line in running.stdout or ():
        print(line, end="")  # so that a step which is ended at its limit has last words
        last.append(line)
    code = running.wait()
    found = {"exit_code": code, "command_seconds": round(time.monotonic() - started, 1)}
    if code:
        raise Failed(f"ended with {code}", found | {"said": tidy(list(last))})
    return found | ({"said": tidy(list(last))} if said else {})
