"""Starts, variants and options over layers in few bits: LoftQ, DoRA, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from few_bits import bitsandbytes, save_gptq
from loraloom.errors import ModelError
from loraloom.lora.base import load_base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.parts import Dora, share_norms
from loraloom.lora.quantised import QuantisedLinear
from loraloom.lora.routing import Routing, Segment
from loraloom.lora.state import load_peft, logits_of, save_adapter
from loraloom.records import AdapterSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_llama

bitsandbytes()

SENTENCES = ["one small step", "the other way round", "a step the other way"]
PATH = "model.layers.1.mlp.down_proj"


def spec(**values: Any) -> AdapterSpec:
    given: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": (PATH,), "modules_to_save": ()}
    return AdapterSpec(**{"lora_dropout": 0.0, **given, **values})


def merged(base: Any, adapter: Any, scale: float) -> torch.Tensor:
    """Q + s B A of the layer."""
    named = {entry.name: tensor for entry, tensor in adapter.tensors()}
    product = named["lora_B.weight"] @ named["lora_A.weight"]
    return base.model.get_submodule(PATH).dense() + scale * product


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_loftq_of_full_rank_gives_back_the_weight_and_of_a_lower_one_a_part(
    tmp_path: Path, kind: str, family: str, use_rslora: bool
) -> None:
    import transformers

    folder = save_llama(tmp_path, SENTENCES)
    if family == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).save_pretrained(folder)
    path = PATH if family == "llama" else "transformer.h.1.mlp.c_proj"
    full, base = (load_base(str(folder), "causal_lm", quantization=q) for q in ("none", kind))
    weight = full.model.get_submodule(path).weight.detach()
    weight = weight if family == "llama" else weight.T
    packed = PackedModel(share_copy(base.model))
    coded = base.model.get_submodule(path).dense()
    last = float((weight - coded).norm())
    assert last > 0
    for r in (2, 8, 32):
        asked = spec(r=r, init_lora_weights="loftq", use_rslora=use_rslora, target_modules=(path,))
        adapter = packed.add(f"r{r}", asked, seed=0)
        scale = 8 / (r**0.5 if use_rslora else r)
        named = {entry.name: tensor for entry, tensor in adapter.tensors()}
        whole = coded + scale * named["lora_B.weight"] @ named["lora_A.weight"]
        left = float((weight - whole).norm())
        assert left < last
        last = left
    assert last < 1e-4 * float(weight.norm())


def test_a_model_that_loftq_started_answers_nearer_to_the_full_one(tmp_path: Path) -> None:
    folder = str(save_llama(tmp_path, SENTENCES, hidden_size=64, intermediate_size=128))
    full, base = (load_base(folder, "causal_lm", quantization=q).model for q in ("none", "nf4"))
    inputs = {"input_ids": torch.arange(1, 10)[None]}
    aim = logits_of(full, inputs)
    apart = [float((logits_of(base, inputs) - aim).norm())]
    paths = tuple(name for name, layer in base.named_modules() if isinstance(layer, QuantisedLinear))
    packed = PackedModel(share_copy(base))
    for r in (16, 32):
        asked = spec(r=r, init_lora_weights="loftq", target_modules=paths)
        packed.add(f"r{r}", asked, seed=0)
        with packed.route(Routing((Segment(f"r{r}", 0, 1),))) as model:
            apart.append(float((logits_of(model, inputs) - aim).norm()))
    assert apart[0] > apart[1] > apart[2]
    with pytest.raises(ModelError, match="has only 32 directions"):
        packed.add("r33", spec(r=33, init_lora_weights="loftq", target_modules=paths), seed=0)


def test_what_loftq_started_is_loaded_by_peft_as_it_was_saved(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "base", SENTENCES, hidden_size=64, intermediate_size=128)
    base = load_base(str(folder), "causal_lm", quantization="nf4")
    packed = PackedModel(share_copy(base.model))
    adapter = packed.add("one", spec(init_lora_weights="loftq"), seed=0)
    save_adapter(tmp_path / "adapter", adapter.tensors(), adapter.spec, base)
    inputs = {"input_ids": torch.arange(1, 7)[None]}
    with packed.route(Routing((Segment("one", 0, 1),))) as model:
        ours = logits_of(model, inputs)
    theirs = logits_of(load_peft(tmp_path / "adapter", share_copy(base.model)), inputs)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, logits_of(base.model, inputs), atol=1e-4)


def test_loftq_is_refused_where_there_is_nothing_to_make_up_for(tmp_path: Path) -> None:
    save_gptq(tmp_path / "gptq", SENTENCES, 4)
    plain = save_llama(tmp_path / "plain", SENTENCES)
    for folder, why in ((tmp_path / "gptq", "full weight is not there"), (plain, "is not quantised")):
        packed = PackedModel(load_base(str(folder), "causal_lm").model)
        with pytest.raises(ModelError, match=why):
            packed.add("one", spec(init_lora_weights="loftq"), seed=0)
    packed = PackedModel(load_base(str(plain), "causal_lm", quantization="nf4").model)
    with pytest.raises(ModelError, match="more steps of LoftQ"):
        packed.add("one", spec(init_lora_weights="loftq_niter_4"), seed=0)


def test_a_layer_in_few_bits_is_not_trained_whole(tmp_path: Path) -> None:
    base = load_base(str(save_llama(tmp_path, SENTENCES)), "causal_lm", quantization="nf4")
    packed = PackedModel(base.model)
    with pytest.raises(ModelError, match="held in few bits"):
        packed.add(
            "one", spec(target_modules=("model.layers.0.mlp.up_proj",), modules_to_save=(PATH,)), 0
        )
    packed.add("two", spec(modules_to_save=("lm_head", "model.embed_tokens", "model.norm")), 0)


def test_candidates_with_dora_share_one_spread_and_keep_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(str(save_llama(tmp_path, SENTENCES)), "causal_lm", quantization="nf4")
    packed = PackedModel(base.model)
    for name in ("a", "b", "c"):
        packed.add(name, spec(use_dora=True, lora_dropout=0.5), seed=0)
    doras = [part for part in packed.layers()[PATH].parts["a"] if isinstance(part, Dora)]  # type: ignore[union-attr]
    spread, plain = list[int](), QuantisedLinear.blocks

    def counted(layer: QuantisedLinear) -> Iterator[tuple[slice, torch.Tensor]]:
        spread.append(id(layer))
        return plain(layer)

    monkeypatch.setattr(QuantisedLinear, "blocks", counted)
    share_norms([*doras, replace(doras[0]), replace(doras[0])])
    assert len(spread) == 1
    numbers = doras[0].weight.dense().numel()
    kept = list[torch.Tensor]()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    spreads = list[int]()
    for trials in ("a", "abc"):
        spread.clear()
        routing = Routing(tuple(Segment(n, i, i + 1) for i, n in enumerate(trials)), training=True)
        with hooks, packed.route(routing) as model:
            model(torch.arange(1, 16).view(3, 5)[: len(trials)]).logits.sum().backward()
        spreads.append(spread.count(id(doras[0].weight)))
    # For the norms, W x and W drop(x): nothing before the first layer needs a gradient.
    assert spreads == [3, 3]
    assert not [tensor for tensor in kept if tensor.ndim == 2 and tensor.numel() == numbers]
