"""What does each artefact differ by from the adapter that was trained, and what does it take?

    python benchmarks/ship/run.py                   # two minutes of one core; writes result.json
    python benchmarks/ship/run.py --show            # the tables of the committed result
    python benchmarks/ship/run.py --model FOLDER    # another base than ../shared/models/tinychat-5M
    LLAMA_CPP=FOLDER python benchmarks/ship/run.py  # llama.cpp's own converters beside ours

Four adapters of one model (LoRA, rsLoRA, alpha_pattern, rank_pattern) are brought to every format that
can be asked here, and by other tools to some. README.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import others
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.export.merged import Merged
from loraloom.adapters.export.target import Export, Source
from loraloom.adapters.export.targets import plan_export
from loraloom.adapters.form import Form, read_form
from loraloom.adapters.merge import plan_merge
from loraloom.adapters.verify import Reference, kl_of, prove, reference_of
from loraloom.facts.device import environment

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True, "lora_alpha": 6},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 32, "layers.2.mlp.up_proj": 4}},
    "rank_pattern": {"rank_pattern": {"q_proj": 4, "layers.2.mlp.up_proj": 20}},
}
"""What each has beside rank 8 and alpha 16 on all linear layers."""
SPREAD = 0.02
"""Standard deviation of the random A (beside its start) and B: the effect is a mean KL of about 0.1."""
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TARGETS = ("gguf:F32", "gguf:F16", "gguf:BF16", "gguf:Q8_0", "gguf:Q4_K_M", "gguf-lora", "vllm")


def save_adapter(base: Path, folder: Path, config: Mapping[str, Any]) -> Path:
    """A PEFT adapter with random numbers, the same in every run."""
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    asked = {"r": 8, "lora_alpha": 16, "target_modules": LAYERS, "task_type": "CAUSAL_LM", **config}
    made: Any = get_peft_model(model, LoraConfig(**asked))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * SPREAD)
    made.save_pretrained(str(folder))
    return folder


def ours(source: Source) -> Iterator[tuple[str, Export]]:
    """Our artefacts by name."""
    for name, dtype in DTYPES.items():
        yield f"merged {name}", Merged(source, plan_merge(source.form, source.files, dtype))
    for target in TARGETS:
        yield target, plan_export(source, target)


def measured(reference: Reference, export: Export, out: Path) -> dict[str, Any]:
    """One of our artefacts: written, weighed, asked."""
    start = time.process_time()
    folder = export.write(out).folder
    seconds = time.process_time() - start
    for path in export.for_proof(folder):
        path.unlink()
    size = sum(path.stat().st_size for path in weights(folder))
    with export.opened(folder) as artefact:
        proof = prove(reference, artefact, export.format, promise=export.promise)
    base_kl = None
    opened = export.base_opened()
    if opened is not None and reference.bare is not None:
        with opened as base:
            found = [base.logits(row) for row in reference.probes.rows]
        base_kl = float(kl_of(reference.bare, found).mean())
    return others.figures(proof) | {"bytes": size, "seconds": seconds, "base_kl": base_kl}


def weights(folder: Path) -> list[Path]:
    """Files with numbers."""
    return [path for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf")]


def one_adapter(form: Form, base: Path, place: Path) -> list[dict[str, Any]]:
    """Every artefact of one adapter, ours and others'."""
    files = BaseFiles(base, form)
    reference = reference_of(form, files)
    source = Source(form, files, str(base), form.folder.name)
    found: list[dict[str, Any]] = []
    for name, export in ours(source):
        row = measured(reference, export, place / name.replace(":", "-"))
        found.append({"artefact": name, "by": "loraloom", **row})
    found += others.all_of(reference, files, place, os.environ.get("LLAMA_CPP"))
    return found


def run(base: Path) -> dict[str, Any]:
    """The whole benchmark."""
    rows: list[dict[str, Any]] = []
    for name, config in ADAPTERS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            form = read_form(save_adapter(base, place / "adapter", config))
            rows += [{"adapter": name, **row} for row in one_adapter(form, base, place)]
            print(f"{name}: {len(rows)} artefacts so far", flush=True)
    return {
        "model": base.name,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(),
        "threads": torch.get_num_threads(),
        "rows": rows,
    }


def table(rows: Sequence[Mapping[str, Any]], adapter: str) -> str:
    """The artefacts of one adapter, as README.md has them."""
    lines = [
        "| artefact | by | KL mean | KL max | top-1 | base's own loss | MiB | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["adapter"] != adapter:
            continue
        if "refused" in row:
            lines.append(f"| {row['artefact']} | {row['by']} | refused: {row['refused']} | | | | | |")
            continue
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
        own = "" if row.get("base_kl") is None else f"{row['base_kl']:.1e}"
        lines.append(
            f"| {row['artefact']} | {row['by']} | {row['kl_mean']:.1e} | {row['kl_max']:.1e}"
            f" | {row['top1']:.1%} | {own} | {row['bytes'] / 2**20:.1f} | {seconds} |"
        )
    return "\n".join(lines)


def by_adapter(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean KL of each artefact, a column for each adapter."""
    lines = [
        f"| artefact | by | {' | '.join(ADAPTERS)} |",
        f"| --- | --- | {' | '.join('---' for _ in ADAPTERS)} |",
    ]
    effects = {row["adapter"]: row["effect"] for row in rows if "effect" in row}
    lines.append(f"| *effect of the adapter* | | {' | '.join(f'{effects[a]:.1e}' for a in ADAPTERS)} |")
    for artefact, by in dict.fromkeys((row["artefact"], row["by"]) for row in rows):
        cells = [
            next(r for r in rows if (r["artefact"], r["by"], r["adapter"]) == (artefact, by, adapter))
            for adapter in ADAPTERS
        ]
        shown = ["refused" if "refused" in cell else f"{cell['kl_mean']:.1e}" for cell in cells]
        lines.append(f"| {artefact} | {by} | {' | '.join(shown)} |")
    return "\n".join(lines)


def show(result: Mapping[str, Any]) -> None:
    """Both tables."""
    print(table(result["rows"], "LoRA"), end="\n\n")
    print(by_adapter(result["rows"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "tinychat-5M")
    parser.add_argument("--show", action="store_true", help="the tables of the committed result")
    asked = parser.parse_args()
    file = HERE / "result.json"
    if asked.show:
        show(json.loads(file.read_text(encoding="utf-8")))
        return
    if not asked.model.is_dir():
        print(f"there is no model in {asked.model}: name one with --model")
        return
    result = run(asked.model)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result)


if __name__ == "__main__":
    main()
