"""A rule, command, sampler, pruner or executor is one new file and one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import loraloom

sys.path.insert(0, str(Path(__file__).resolve().parent / "end_to_end"))

from bases import save_bert
from doorway import write_rows

FILES = {
    "plan/rules/tighter.py": '''
"""The largest gradient norm."""
from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.MAX_GRAD_NORM
ABOUT = About(does="Clips gradients.", rule="0.25 for everyone.", evidence="None: it is a test's.")


def advise(case: Case) -> Advice:
    return Advice(0.25, "the new rule says so", "a test")
''',
    "diagnose/rules/seen.py": '''
"""Whoever is looked at was seen."""
from loraloom.diagnose.case import Case
from loraloom.records import Finding

NAME = "seen"


def judge(case: Case) -> Finding:
    return Finding(NAME, "note", "it was seen", f"after {case.steps} steps", "nothing")
''',
    "cli/greet.py": '''
"""`loraloom greet`."""
from typing import Any


def greet() -> dict[str, Any]:
    """Say hello to whoever asks."""
    print("hello")
    return {}
''',
    "search/backwards.py": '''
"""The grid from its end."""
from loraloom.search.samplers import Listed, Sampler, SamplerInputs


def backwards(inputs: SamplerInputs) -> Sampler:
    return Listed(inputs.space.grid(inputs.trials)[::-1])
''',
    "search/pruners/strict.py": '''
"""Whoever is not the plan's own goes at the first evaluation."""
from collections.abc import Sequence

from loraloom.search.curves import TrialCurve
from loraloom.search.pruners.pruner import NeverPauses, Pruner, PrunerInputs
from loraloom.search.values import Verdict


class Strict(NeverPauses):
    def verdicts(self, curves: Sequence[TrialCurve], coming: int = 0) -> list[Verdict]:
        going = [one for one in curves if one.living and one.readings and not one.protected]
        why = "the new pruner is strict"
        return [Verdict(one.id, "prune", why, one.readings[-1].step) for one in going]


def strict(inputs: PrunerInputs) -> Pruner:
    return Strict()
''',
    "execute/counted.py": '''
"""The worker in this process, with its turns counted in a file."""
import os
from collections.abc import Sequence
from pathlib import Path

from loraloom.execute.inline import Inline
from loraloom.train.orders import Order


class Counted(Inline):
    def send(self, worker: str, orders: Sequence[Order]) -> None:
        with Path(os.environ["TURNS"]).open("a") as file:
            file.write(f"{worker}\\n")
        super().send(worker, orders)
''',
}
LINES = {
    "plan/rules/__init__.py": ("    finalist_seeds", '    "tighter",'),
    "diagnose/rules/__init__.py": ("    not_trained", '    "seen",'),
    "cli/main.py": ("    env", '    "greet",'),
    "config/choices.py": ("    sobol", '    "backwards": "loraloom.search.backwards:backwards",'),
    "pipeline/executor.py": (
        "from loraloom.execute.inline",
        "from loraloom.execute.counted import Counted as Inline",
    ),
}
"""File -> (how the line before it begins, without quotes; the line)."""
PRUNER_LINE = ("    median", '    "strict": "loraloom.search.pruners.strict:strict",')


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the copy can be imported from."""
    root = tmp_path_factory.mktemp("copy")
    copy = root / "loraloom"
    shutil.copytree(Path(loraloom.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        assert not (copy / name).exists()
        (copy / name).write_text(text.lstrip())
    for name, (before, line) in [*LINES.items(), ("config/choices.py", PRUNER_LINE)]:
        add_line(copy / name, before, line)
    return root


def add_line(path: Path, before: str, line: str) -> None:
    lines = path.read_text().splitlines()
    (place,) = (n for n, text in enumerate(lines) if text.replace('"', "").startswith(before))
    path.write_text("\n".join([*lines[: place + 1], line, *lines[place + 1 :]]) + "\n")


@pytest.fixture(scope="module")
def request_words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home = tmp_path_factory.mktemp("request")
    sentences = [
        f"the {who} {does} here"
        for who in ("cat", "dog", "bird")
        for does in ("sleeps", "waits", "turns")
    ]
    rows = write_rows(
        home / "rows.jsonl", [{"text": one, "label": one.split()[1]} for one in sentences * 3]
    )
    return [
        "--model",
        str(save_bert(home / "bert", sentences)),
        "--data",
        rows,
        "--output-dir",
        str(home / "runs"),
    ]


def said(package: Path, *words: str) -> str:
    """What a command of the copy prints."""
    env = {
        **os.environ,
        "PYTHONPATH": str(package),
        "TURNS": str(package / "turns"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "loraloom", *words],
        env=env,
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_is_listed_and_runs(package: Path) -> None:
    assert "greet     Say hello to whoever asks." in said(package, "--help")
    assert said(package, "greet") == "hello\n"


def test_a_rule_of_the_plan_decides(package: Path, request_words: list[str]) -> None:
    plan = json.loads(said(package, "plan", *request_words, "--json"))
    advice = plan["settings"]["training.max_grad_norm"]
    assert (advice["value"], advice["reason"]) == (0.25, "the new rule says so")


def test_sampler_pruner_executor_and_rule_of_diagnosis_are_used(
    package: Path, request_words: list[str]
) -> None:
    words = ["--trials", "3", "--max-packed", "2", "--max-steps", "4", "--quiet", "--json"]
    searched = ["search.sampler=backwards", "search.pruner=strict", "search.seeds_for_finalists=1"]
    searched += ["adapter.r=2", "search.space={adapter.lora_dropout: [0.0, 0.1, 0.2]}"]
    words += [word for one in searched for word in ("--set", one)]
    result = json.loads(said(package, "tune", *request_words, *words))
    trials = {trial["id"]: trial for trial in result["trials"]}
    drawn = [trials[name]["params"]["adapter.lora_dropout"] for name in ("t001", "t002")]
    assert drawn == sorted(drawn, reverse=True)
    assert {trials[name]["reason"] for name in ("t001", "t002")} == {"the new pruner is strict"}
    assert {finding["name"] for finding in trials["t000"]["findings"]} >= {"seen"}
    assert set((package / "turns").read_text().split()) == {"inline"}
