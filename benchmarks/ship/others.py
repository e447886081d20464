"""The same adapters merged by PEFT and converted by llama.cpp's own scripts, asked as ours are."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from loraloom.adapters.artefacts import Artefact
from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.export.gguf import opened_base, opened_gguf
from loraloom.adapters.gguf.llama_cpp_script import write_by_script
from loraloom.adapters.proof import REPORTED, Proof
from loraloom.adapters.verify import Reference, prove, prove_merged

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
KINDS = ("F16", "Q8_0")


def figures(proof: Proof) -> dict[str, Any]:
    """What the tables show of a proof."""
    return {
        "kl_mean": proof.kl_mean,
        "kl_max": proof.kl_max,
        "relative": proof.relative_difference,
        "top1": proof.top1_agreement,
        "effect": proof.effect,
        "token_ids_equal": proof.token_ids_equal,
    }


def all_of(
    reference: Reference, files: BaseFiles, place: Path, llama_cpp: str | None
) -> list[dict[str, Any]]:
    """What other tools make of the adapter in `reference`."""
    adapter, base = Path(reference.adapter), files.folder
    found = [peft_merge(reference, files, adapter, base, place / name, name) for name in DTYPES]
    if llama_cpp:
        found += by_llama_cpp(reference, adapter, base, place, Path(llama_cpp))
    return found


def peft_merge(
    reference: Reference, files: BaseFiles, adapter: Path, base: Path, out: Path, name: str
) -> dict[str, Any]:
    """`merge_and_unload` over a base that was loaded in one type, saved in it."""
    start = time.process_time()
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[name])
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(out)
    seconds = time.process_time() - start
    AutoTokenizer.from_pretrained(base).save_pretrained(out)
    proof = prove_merged(out, reference, files)
    size = (out / "model.safetensors").stat().st_size
    by = {"artefact": f"merged {name}", "by": "PEFT"}
    return {**by, **figures(proof), "bytes": size, "seconds": seconds}


def by_llama_cpp(
    reference: Reference, adapter: Path, base: Path, place: Path, llama_cpp: Path
) -> Iterator[dict[str, Any]]:
    """`convert_hf_to_gguf.py` as it is, and with our name of the pre-tokenizer; then the LoRA."""
    merged = place / "F32"
    for kind in KINDS:
        about = {"artefact": f"gguf:{kind}", "by": "llama.cpp of PEFT's merge"}
        path = place / f"theirs-{kind}.gguf"
        words = [str(merged), "--outfile", str(path), "--outtype", kind.lower()]
        refused = refusal(llama_cpp / "convert_hf_to_gguf.py", words)
        if refused:
            yield {**about, "refused": refused}
            about["by"] += ", pre-tokenizer named"
            path.unlink(missing_ok=True)
            write_by_script(llama_cpp, merged, path, kind)
        with opened_gguf(path) as artefact:
            yield {**about, **asked(reference, artefact), "bytes": path.stat().st_size, "seconds": None}
    about = {"artefact": "gguf-lora", "by": "llama.cpp"}
    path = place / "theirs-lora.gguf"
    words = [str(adapter), "--base", str(base), "--outfile", str(path), "--outtype", "f32"]
    refused = refusal(llama_cpp / "convert_lora_to_gguf.py", words)
    if refused:
        yield {**about, "refused": refused}
        return
    with opened_base(base, "F32", path) as artefact:
        yield {**about, **asked(reference, artefact), "bytes": path.stat().st_size, "seconds": None}


def refusal(script: Path, words: list[str]) -> str | None:
    """The last line of a script that failed; None where it wrote its file."""
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def asked(reference: Reference, artefact: Artefact) -> dict[str, Any]:
    """An artefact of another tool beside what was trained."""
    return figures(prove(reference, artefact, "GGUF", promise=REPORTED))
