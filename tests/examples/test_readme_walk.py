"""The walk of the README from data to an answer of llama.cpp, as it stands there, on a small model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_from_data_to_an_answer_of_llama_cpp(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: extra `llama`")
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## After training\n")[2]
    block = section.partition("```bash\n")[2].partition("\n```")[0]
    walk, count = re.subn(r"^MODEL=\S+", f"MODEL={shared / 'models' / 'tinychat-5M'}", block)
    assert count == 1
    days = ("Monday", "Tuesday", "Friday", "Sunday")
    turns = [("user", "Is it open on {}?"), ("assistant", "Yes, on {} from ten to four.")]
    rows = [
        {"messages": [{"role": role, "content": text.format(day)} for role, text in turns]}
        for day in days * 6
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tools = tmp_path / "tools"
    tools.mkdir()
    call = f'#!/bin/sh\nexec "{sys.executable}" -m loraloom "$@"\n'
    for name, script in (("loraloom", call), ("python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", walk],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "measured: KL" in done.stdout and "proved: KL" in done.stdout
    assert done.stdout.count("token ids equal; its answers end") == 2
    answer = done.stdout.strip().splitlines()[-1]
    assert answer and "vllm serve" not in answer
    ship = tmp_path / "runs" / "first" / "ship"
    assert {path.name for path in ship.iterdir()} == {"gguf-Q4_K_M", "vllm"}
