"""Families that are not proved here, through `convert_hf_to_gguf.py` of a checkout of llama.cpp.

It runs in a process of its own. It knows pre-tokenizers by a hash of the tokens of one text and refuses
what it has not met; ours, chosen by the expressions that cut, is put in its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from loraloom.adapters.gguf.model_file import source_of
from loraloom.adapters.gguf.pre_tokenizers import is_byte_level, name_of
from loraloom.adapters.gguf.whole_files import Written, unfinished_file
from loraloom.adapters.operations import Plan, apply
from loraloom.errors import ModelError, RequestError, RunError

VARIABLE, SCRIPT = "LLAMA_CPP", "convert_hf_to_gguf.py"
_DRIVER = """
import sys
folder, pre, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, folder)
import convert_hf_to_gguf as script
if pre:
    text_model = getattr(script, "TextModel", None)
    if text_model is None:
        from conversion.base import TextModel as text_model
    text_model.get_vocab_base_pre = lambda self, tokenizer: pre
script.main()
"""


def script_folder() -> Path | None:
    """The checkout that the environment names; None where it names none.

    Raises:
        RequestError: there is no such script in it.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    folder = Path(named)
    if not (folder / SCRIPT).is_file():
        raise RequestError(
            f"{VARIABLE} names a folder without {SCRIPT}",
            got=named,
            need="a checkout of llama.cpp",
            next="git clone https://github.com/ggml-org/llama.cpp",
        )
    return folder


def write_by_script(llama_cpp: Path, source: Path | Plan, out: Path, kind: str) -> Written:
    """Write a model of any family that llama.cpp's converter knows.

    Raises:
        RequestError: the disk refuses.
        RunError: the script fails; its last line is told.
    """
    with unfinished_file(out) as partial, tempfile.TemporaryDirectory(dir=partial.parent) as beside:
        folder = _whole(source, Path(beside))
        words = [str(llama_cpp), _pre(source), str(folder), "--outfile", str(partial)]
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER, *words, "--outtype", kind.lower()],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not partial.is_file():
            raise RunError(
                f"llama.cpp's {SCRIPT} cannot convert the model",
                where=str(llama_cpp),
                got=(done.stderr.strip().splitlines() or ["nothing was written"])[-1],
                next="keep the merged safetensors: loraloom adapter merge",
            )
    notes = ("converted by llama.cpp's own script: this family is not proved here",)
    return Written(out, kind, out.stat().st_size, exact=False, notes=notes)


def _whole(source: Path | Plan, beside: Path) -> Path:
    """The model as a folder: a merge is written in float32, so that it is rounded once."""
    if isinstance(source, Path):
        return source
    return apply(replace(source, dtype=torch.float32), beside / "merged")


def _pre(source: Path | Plan) -> str:
    """Our name of the pre-tokenizer; empty where the script has to know."""
    path = source_of(source).beside.get("tokenizer.json")
    if path is None:
        return ""
    try:
        tokenizer = json.loads(path.read_bytes())
        return name_of(tokenizer, str(path)) if is_byte_level(tokenizer) else ""
    except (ModelError, OSError, ValueError, LookupError):
        return ""
