"""Each family, converted and run by llama.cpp, beside transformers in float32."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from small_families import FAMILIES, logits, save_family
from torch import Tensor

from loraloom.adapters.gguf import model_file, writer
from loraloom.adapters.gguf.converter import convert
from loraloom.adapters.gguf.families import Layout, Place
from loraloom.adapters.gguf.runtime import available, open_gguf

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no llama.cpp: {available()}")
BOUNDS = {"F16": 1e-5, "BF16": 2e-4, "Q8_0": 5e-3}
"""Mean KL, nats a token."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each family's model once."""
    root = tmp_path_factory.mktemp("families")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).is_dir() else save_family(kind, root / kind)

    return folder


def rows_of(folder: Path) -> list[Tensor]:
    """Random tokens; the second row is longer than any window, or context of training, here."""
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    random = torch.Generator().manual_seed(3)
    return [torch.randint(0, size, (length,), generator=random) for length in (20, 100)]


def kl(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Of each position."""
    p, q = (torch.cat(list(one)).double().log_softmax(-1) for one in (reference, other))
    return (p.exp() * (p - q)).sum(-1)


def run(path: Path, rows: Sequence[Tensor]) -> list[Tensor]:
    with open_gguf(path) as model:
        return [model.logits(row.tolist()) for row in rows]


@pytest.mark.parametrize("kind", FAMILIES)
def test_llama_cpp_computes_what_transformers_computes(
    kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders(kind)
    rows = rows_of(folder)
    expected = logits(folder, rows)
    written = convert(folder, tmp_path / "a.gguf", "F32")
    got = run(written.path, rows)
    assert written.exact is not kind.startswith("Gemma")
    worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, got, strict=True))
    assert kl(expected, got).mean() <= (1e-9 if written.exact else 1e-6)
    assert worst <= (1e-5 if written.exact else 1e-2)
    for name, bound in BOUNDS.items():
        convert(folder, tmp_path / name, name)
        assert kl(expected, run(tmp_path / name, rows)).mean() <= bound, name


@pytest.mark.parametrize("name", ["tinychat-5M", "stories260K"])
def test_real_models_are_what_they_are(name: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "models" / name
    rows = rows_of(folder)
    expected = logits(folder, rows)
    for kind, bound in {"F32": 1e-9, **BOUNDS}.items():
        convert(folder, tmp_path / kind, kind)
        assert kl(expected, run(tmp_path / kind, rows)).mean() <= bound, kind


class TableGelu(torch.nn.Module):
    """GELU as ggml looks it up: by the float16 that is nearest, and as a float16."""

    def forward(self, x: Tensor) -> Tensor:
        found = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x.abs() >= 10, x.clamp(min=0), found)


@pytest.mark.parametrize("kind", ["Gemma", "Gemma 2", "Gemma 3"])
def test_nothing_but_the_table_of_gelu_keeps_gemma_from_being_exact(
    kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """With the same table transformers gets the same logits; where a number lies on the edge of two
    float16, the two may round it apart, so it is the median of a short row that is compared."""
    folder = folders(kind)
    rows = rows_of(folder)[:1]
    model: Any = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for layer in model.model.layers:
        layer.mlp.act_fn = TableGelu()
    with torch.no_grad():
        expected = [model(row[None]).logits[0] for row in rows]
    convert(folder, tmp_path / "a.gguf", "F32")
    assert kl(expected, run(tmp_path / "a.gguf", rows)).median() <= 1e-9


def unpermuted(layout: Layout, name: str) -> Place | None:
    place = Layout.place(layout, name)
    return place and replace(place, heads=0)


def permuted_by_all_heads(layout: Layout, name: str) -> Place | None:
    """As if keys were not shared."""
    place = Layout.place(layout, name)
    return place and replace(
        place, heads=int(layout.config["num_attention_heads"]) if place.heads else 0
    )


def unshifted(layout: Layout, name: str) -> Place | None:
    place = Layout.place(layout, name)
    return place and replace(place, shift=0.0)


def swapped_norms(layout: Layout, name: str) -> Place | None:
    other = {
        "input_layernorm": "post_attention_layernorm",
        "post_attention_layernorm": "input_layernorm",
    }
    part = next((one for one in other if one in name), None)
    return Layout.place(layout, name.replace(part, other[part]) if part else name)


@pytest.mark.parametrize(
    ("kind", "mistake"),
    [
        ("Llama", unpermuted),
        ("Llama", permuted_by_all_heads),
        ("Mistral", unpermuted),
        ("Gemma", unshifted),
        ("Gemma 3", unshifted),
        ("Qwen2", swapped_norms),
    ],
)
def test_a_wrong_order_of_rows_or_a_shift_left_out_is_seen(
    kind: str,
    mistake: Any,
    folders: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = folders(kind)
    rows = rows_of(folder)

    class Mistaken(Layout):
        def place(self, name: str) -> Place | None:
            return mistake(self, name)

    monkeypatch.setattr(model_file, "Layout", Mistaken)
    convert(folder, tmp_path / "a.gguf", "F32")
    assert kl(logits(folder, rows), run(tmp_path / "a.gguf", rows)).mean() > 1e-3


@pytest.mark.parametrize("kind", ["Llama 3.1", "Phi-3, long", "Qwen2, YaRN", "Llama, linear"])
def test_rope_factors_left_out_are_seen(
    kind: str, folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders(kind)
    rows = rows_of(folder)
    kept = writer.write

    def without(path: Path, metadata: Any, tensors: Any) -> None:
        metadata = {key: value for key, value in metadata.items() if "rope.scaling" not in key}
        kept(path, metadata, [one for one in tensors if not one.name.startswith("rope_")])

    monkeypatch.setattr(model_file, "write", without)
    convert(folder, tmp_path / "a.gguf", "F32")
    assert kl(logits(folder, rows), run(tmp_path / "a.gguf", rows)).mean() > 1e-6
