"""A plan for a LLaMA-like model builds none: what takes the seconds stays outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_llama

SENTENCES = ["one small step", "the other way round", "a step the other way"]
HEAVY = (
    "transformers.modeling_utils",
    "transformers.configuration_utils",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
    "torch.distributed.tensor",
    "peft",
    "optuna",
    "plotly",
    "scipy",
    "loraloom.pipeline.preflight.rehearsal",
)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_plan_imports_no_models(tmp_path: Path, labelled: bool) -> None:
    model, data = save_llama(tmp_path / "model", SENTENCES), tmp_path / "rows.jsonl"
    (model / "model.safetensors").unlink()
    rows = [
        {"text": text} | ({"label": number % 2} if labelled else {})
        for number, text in enumerate(SENTENCES * 20)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [
        "plan",
        "--model",
        str(model),
        "--data",
        str(data),
        "--output-dir",
        str(tmp_path / "runs"),
        "--json",
    ]
    code = (
        "import sys; from loraloom.cli.main import main; code = main(sys.argv[1:]);print('heavy:',"
        f" [name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("heavy: []\n")
    assert json.loads(done.stdout)["settings"]["adapter.target_modules"]["value"]
