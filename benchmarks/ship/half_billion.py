"""Memory and processor time of writing an artefact of a model of half a billion numbers.

    python benchmarks/ship/half_billion.py    # three minutes of one core, 4 GiB of disk

The model has the shape of Qwen2.5-0.5B and random numbers in bfloat16; the adapter has rank 16 on all
linear layers. Each artefact is written by `loraloom adapter export` in a process of its own, up to its
proof, which needs the live model. Writes half_billion.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
TOKENIZER = SHARED / "models" / "tinychat-5M"
SHAPE: Mapping[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
RANK = 16
TARGETS = ("merged", "vllm", "gguf-lora", "gguf:F16", "gguf:Q8_0", "gguf:Q4_K_M")
WRITE = """
import json, resource, sys
from pathlib import Path
from loraloom.adapters.export.targets import plan_export
from loraloom.pipeline.export import Exporter
adapter, target, base, out = sys.argv[1:]
planned = plan_export(Exporter(adapter, base).source, target)
folder = planned.write(Path(out)).folder
used = resource.getrusage(resource.RUSAGE_SELF)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
for path in planned.for_proof(folder):
    path.unlink()
size = sum(path.stat().st_size for path in folder.iterdir())
print(json.dumps({
    "peak_mib": int(status["VmHWM"].split()[0]) / 1024,
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "mib": size / 2**20,
}))
"""


def save_model(folder: Path) -> Path:
    """The base, with a tokenizer that has fewer tokens than it has rows."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    Qwen2ForCausalLM(Qwen2Config(**SHAPE)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((TOKENIZER / name).read_bytes())
    return folder


def save_adapter(base: Path, folder: Path) -> Path:
    """An adapter of random numbers."""
    from peft import LoraConfig, get_peft_model

    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=layers, task_type="CAUSAL_LM")
    made: Any = get_peft_model(Qwen2ForCausalLM.from_pretrained(base, dtype=torch.bfloat16), config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.02)
    made.save_pretrained(str(folder))
    return folder


def written(adapter: Path, base: Path, target: str, out: Path) -> dict[str, float]:
    """What writing one artefact takes."""
    words = [sys.executable, "-c", WRITE, str(adapter), target, str(base), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        base = save_model(Path(place) / "base")
        adapter = save_adapter(base, Path(place) / "adapter")
        for target in TARGETS:
            with tempfile.TemporaryDirectory(dir=place) as out:
                found[target] = written(adapter, base, target, Path(out) / "out")
            print(target, found[target], flush=True)
    text = json.dumps(found, indent=1) + "\n"
    (HERE / "half_billion.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
