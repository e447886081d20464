"""An adapter as a GGUF LoRA, which llama.cpp adds to a base while it runs.

llama.cpp scales each product by alpha / rank, with one alpha for all of it, and by 1 where alpha is 0
(`llama_adapter_lora_weight::get_scale`). So B takes its layer's true scale on and alpha is written as 0:
exact for rsLoRA and for patterns of ranks and alphas, which one alpha cannot say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Factor, Form
from loraloom.adapters.gguf.families import Layout
from loraloom.adapters.gguf.whole_files import Written, unfinished_file
from loraloom.adapters.gguf.writer import F32, Entry, Unsigned, Value, size_of, write
from loraloom.errors import ModelError, RequestError


def convert_lora(form: Form, files: BaseFiles, out: Path) -> Written:
    """Write a GGUF LoRA in float32; nothing is left of it where that fails.

    Raises:
        RequestError: the family is none of those known here, or the disk refuses.
        ModelError: the adapter has what such a file cannot hold, or is one of another base.
    """
    refuse_more_than_factors(form, files)
    layout = Layout(files.config, str(files.folder))
    tensors = [entry for path in form.factors for entry in _pair(form.factors[path], files, layout)]
    if not tensors:
        raise ModelError("the adapter changes nothing", where=str(form.folder), next="train it again")
    metadata: dict[str, Value] = {
        "general.architecture": layout.arch,
        "general.type": "adapter",
        "general.name": form.folder.name,
        "general.file_type": Unsigned(F32.file_type),
        "adapter.type": "lora",
        "adapter.lora.alpha": 0.0,
    }
    with unfinished_file(out, size_of(tensors)) as partial:
        write(partial, metadata, tensors)
    return Written(out, F32.name, out.stat().st_size, layout.family.exact, ())


def refuse_more_than_factors(form: Form, files: BaseFiles) -> None:
    """PEFT saves embeddings along with an adapter of them: the base's over again are no change.

    Raises:
        RequestError: it has more than A and B.
    """
    own = {name: tensor for name, tensor in form.whole.items() if not _is_in_base(name, tensor, files)}
    beyond = replace(form, whole=own).beyond_factors()
    if beyond:
        raise RequestError(
            "a GGUF LoRA holds A and B only",
            where=str(form.folder),
            got="; ".join(beyond),
            need="plain LoRA, rsLoRA, or patterns of ranks and alphas",
            next="export the merged model: --to gguf:F16",
        )


def _is_in_base(name: str, tensor: Tensor, files: BaseFiles) -> bool:
    stored = files.stored(name)
    return stored is not None and torch.equal(stored.read().to(tensor.dtype), tensor)


def _pair(factor: Factor, files: BaseFiles, layout: Layout) -> Iterator[Entry]:
    """A and B of one layer under llama.cpp's name; nothing where B is zero.

    Raises:
        ModelError: the base has no such layer, or llama.cpp would not apply it there alone.
    """
    if not factor.b_OR.any():
        return
    files.layer(factor)
    name = f"{factor.path}.weight"
    place, twins = layout.place(name), files.twins(name)
    if place is None or twins:
        raise ModelError(
            f"`{factor.path}` shares its weight with {', '.join(twins)}, and llama.cpp changes both",
            need="an adapter of layers that have a weight of their own",
            next="export the merged model: --to gguf:F16",
        )
    scaled = replace(place, shift=0.0).of(factor.b_OR * factor.scale)
    # of embeddings, llama.cpp takes the rows of A that belong to the tokens
    yield _entry(f"{place.name}.lora_a", factor.a_RD.T if factor.is_embedding else factor.a_RD)
    yield _entry(f"{place.name}.lora_b", scaled)


def _entry(name: str, values: Tensor) -> Entry:
    return Entry(name, tuple(values.shape), F32, lambda: iter([values]))
