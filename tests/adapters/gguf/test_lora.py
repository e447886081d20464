"""GGUF LoRAs and GGUF merges beside the live adapter in PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bases import save_adapter
from small_families import logits, save_family
from torch import Tensor

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import read_form
from loraloom.adapters.gguf import lora
from loraloom.adapters.gguf.converter import convert
from loraloom.adapters.gguf.families import Place
from loraloom.adapters.gguf.lora import convert_lora
from loraloom.adapters.gguf.runtime import available, open_gguf
from loraloom.adapters.merge import plan_merge
from loraloom.errors import LoraloomError, ModelError, RequestError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no llama.cpp: {available()}")
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, "k_proj": 6},
    "alpha_pattern": {r"layers\.1\..*": 3},
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("Llama", {"target_modules": EVERY}),
    "rsLoRA": ("Llama", {"target_modules": EVERY, "use_rslora": True}),
    "patterns": ("Llama", {"target_modules": EVERY, **PATTERNS}),
    "patterns, rsLoRA": ("Mistral", {"target_modules": EVERY, **PATTERNS, "use_rslora": True}),
    "embeddings": ("Mistral", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "fused": ("Phi-3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
    "tied": ("Qwen2", {"target_modules": EVERY}),
    "Gemma": ("Gemma", {"target_modules": EVERY}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each family that is named above, and its file."""
    root = tmp_path_factory.mktemp("bases")
    found = {kind: save_family(kind, root / kind) for kind in {family for family, _ in KINDS.values()}}
    for kind, folder in found.items():
        convert(folder, root / f"{kind}.gguf", "F32")
    return found


def rows() -> list[Tensor]:
    return [torch.randint(0, 600, (40,), generator=torch.Generator().manual_seed(3))]


def kl(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    p, q = (torch.cat(list(one)).double().log_softmax(-1) for one in (reference, other))
    return (p.exp() * (p - q)).sum(-1).mean()


def run(path: Path, adapter: Path | None = None) -> list[Tensor]:
    with open_gguf(path, adapter) as model:
        return [model.logits(row.tolist()) for row in rows()]


def made(base: Path, folder: Path, **config: Any) -> tuple[Any, BaseFiles]:
    form = read_form(save_adapter(base, folder, **config))
    return form, BaseFiles(base, form)


@pytest.mark.parametrize("kind", KINDS)
def test_base_and_gguf_lora_are_the_live_adapter(
    kind: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    family, asked = KINDS[kind]
    base, bound = bases[family], 1e-6 if family == "Gemma" else 1e-9
    form, files = made(base, tmp_path / "a", **asked)
    expected = logits(base, rows(), tmp_path / "a")
    convert_lora(form, files, tmp_path / "lora.gguf")
    whole = base.with_name(f"{family}.gguf")
    assert kl(expected, run(whole, tmp_path / "lora.gguf")) <= bound
    assert kl(expected, run(whole)) > 1e-3  # the adapter does something

    convert(plan_merge(form, files), tmp_path / "merged.gguf", "F32")
    assert kl(expected, run(tmp_path / "merged.gguf")) <= bound


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_one_side_of_tied_embeddings_is_merged_alone_and_is_no_lora(
    target: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    base = bases["Qwen2"]
    form, files = made(base, tmp_path / "a", target_modules=["q_proj", target])
    with pytest.raises(ModelError, match="shares its weight"):
        convert_lora(form, files, tmp_path / "lora.gguf")
    convert(plan_merge(form, files), tmp_path / "merged.gguf", "F32")
    expected = logits(base, rows(), tmp_path / "a")
    assert kl(expected, run(tmp_path / "merged.gguf")) <= 1e-9


def test_gemma_has_no_place_for_an_output_layer_of_its_own(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    form, files = made(bases["Gemma"], tmp_path / "a", target_modules=["lm_head"])
    with pytest.raises(ModelError, match="no copy of the embeddings"):
        convert(plan_merge(form, files), tmp_path / "merged.gguf", "F32")
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("mistake", ["order", "scale"])
def test_a_wrong_order_or_scale_of_b_is_seen(
    mistake: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp's own script scales rsLoRA by alpha / r."""
    form, files = made(bases["Llama"], tmp_path / "a", target_modules=EVERY, use_rslora=True)
    kept = lora.write

    def scaled_as_lora(path: Path, metadata: Any, tensors: Any) -> None:
        kept(path, {**metadata, "adapter.lora.alpha": 8.0}, tensors)

    if mistake == "order":
        monkeypatch.setattr(Place, "of", lambda self, values: values)
    else:
        monkeypatch.setattr(lora, "write", scaled_as_lora)
    convert_lora(form, files, tmp_path / "lora.gguf")
    expected = logits(bases["Llama"], rows(), tmp_path / "a")
    assert kl(expected, run(bases["Llama"].with_name("Llama.gguf"), tmp_path / "lora.gguf")) > 1e-4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules trained whole: lm_head"),
        ({"trainable_token_indices": [3, 7]}, "tokens trained one by one"),
    ],
)
def test_what_a_gguf_lora_cannot_hold_is_refused(
    asked: dict[str, Any], said: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    form, files = made(bases["Llama"], tmp_path / "a", **asked)
    with pytest.raises(RequestError, match="A and B only") as refusal:
        convert_lora(form, files, tmp_path / "lora.gguf")
    assert said in str(refusal.value) and "merged" in str(refusal.value)
    assert not (tmp_path / "lora.gguf").exists()


def test_an_adapter_of_another_base_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    form = read_form(save_adapter(bases["Phi-3"], tmp_path / "a", target_modules=["qkv_proj"]))
    with pytest.raises(LoraloomError, match="no layer"):
        convert_lora(form, BaseFiles(bases["Llama"], form), tmp_path / "lora.gguf")
