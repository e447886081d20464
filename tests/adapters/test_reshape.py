"""combine, average, resize and extract: what comes out is what the live adapters compute."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small_bases import called, load_base, save_adapter
from transformers import AutoTokenizer

from loraloom.adapters.combine import METHODS
from loraloom.adapters.form import Form, read_form
from loraloom.adapters.save import write_form

Bases = Callable[[str], Path]
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 6},
    "alpha_pattern": {r"layers\.1\..*": 3},
}
PLAIN: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "patterns": PATTERNS,
    "patterns, rsLoRA": {**PATTERNS, "use_rslora": True},
}


def updates(folder: Path, base: Path) -> dict[str, torch.Tensor]:
    """The dense update of each layer, as PEFT computes it."""
    loaded: Any = PeftModel.from_pretrained(load_base(base, "CAUSAL_LM"), str(folder))
    model = loaded.get_base_model()
    return {
        path: module.get_delta_weight("default").detach()
        for path, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for path, update in expected.items():
        assert float((got[path] - update).norm() / update.norm()) < 1e-5, path


@pytest.mark.parametrize("kind", PLAIN)
def test_identities(kind: str, bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a", **PLAIN[kind])
    expected = updates(adapter, base)
    ways: dict[str, Sequence[object]] = {
        "combined": ("combine", adapter, "--method", "ties"),
        "resized": ("resize", adapter, "--rank", "6"),
        "energetic": ("resize", adapter, "--energy", "1"),
        "by ratio": ("resize", adapter, "--ratio", "1e-6"),
    }
    for name, words in ways.items():
        code, _, err = called("adapter", *words, "--out", tmp_path / name)
        assert code == 0, err
        same(updates(tmp_path / name, base), expected)
    code, _, err = called("adapter", "merge", adapter, "--model", base, "--out", tmp_path / "m")
    assert code == 0, err
    words = ("--base", base, "--tuned", tmp_path / "m", "--rank", 6, "--out", tmp_path / "x")
    code, out, err = called("adapter", "extract", *words, "--json")
    assert code == 0, err
    assert json.loads(out)["left_out"] == []
    same(updates(tmp_path / "x", base), expected)


def test_cat_is_both_live(bases: Bases, tmp_path: Path) -> None:
    """Unequal ranks, unequal layers, weights."""
    base = bases("llama")
    first = save_adapter(base, tmp_path / "a", seed=1)
    second = save_adapter(
        base, tmp_path / "b", seed=2, r=3, use_rslora=True, target_modules=["q_proj", "up_proj"]
    )
    words = (first, second, "--weights", "0.5,-2", "--out", tmp_path / "c", "--json")
    code, out, err = called("adapter", "combine", *words)
    assert code == 0, err
    found = json.loads(out)
    assert found["error"] < 1e-6 and found["rank"] == 7
    assert found["conflicts"][0]["common"] == 2
    one, two, both = (updates(tmp_path / name, base) for name in "abc")
    assert both.keys() == one.keys() | two.keys()
    expected = {
        path: 0.5 * one.get(path, torch.zeros(())) - 2 * two.get(path, torch.zeros(())) for path in both
    }
    same(both, expected)


def test_one_adapter_alone_keeps_what_is_no_sum(bases: Bases, tmp_path: Path) -> None:
    """With a weight of 1; magnitudes have no place in what is written."""
    base = bases("qwen2")
    biased = save_adapter(base, tmp_path / "a", bias="lora_only")
    code, _, err = called("adapter", "combine", biased, "--model", base, "--out", tmp_path / "c")
    assert code == 0, err
    before, after = read_form(biased).whole, read_form(tmp_path / "c").whole
    assert len(after) == 4 and after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    words = ("adapter", "combine", biased, "--weights", "0.5", "--out", tmp_path / "d")
    code, _, err = called(*words)
    assert code == 2 and "4 trained biases" in err
    dora = save_adapter(base, tmp_path / "dora", use_dora=True)
    code, _, err = called("adapter", "combine", dora, "--out", tmp_path / "d")
    assert code == 2 and "DoRA" in err


def test_what_was_made_is_proved_over_its_base(bases: Bases, tmp_path: Path) -> None:
    """cat answers as both adapters live; ties does not, and says by how much."""
    base = bases("llama")
    folders = [save_adapter(base, tmp_path / "a", seed=1)]
    folders.append(save_adapter(base, tmp_path / "b", seed=2, target_modules=["q_proj", "up_proj"]))
    for method, exact in (("cat", True), ("soup", False), ("ties", False)):
        out = tmp_path / method
        words = ("--weights", "0.5,-2", "--method", method, "--model", base, "--out", out)
        code, text, err = called("adapter", "combine", *folders, *words, "--json")
        assert code == 0, err
        proof = json.loads((out / "proof.json").read_text())
        assert json.loads(text)["proof"] == proof
        assert proof["passed"] and proof["adapters"] == [str(folder) for folder in folders]
        assert (proof["error"] < 1e-6) is exact
        assert (proof["least"] is None) is (method == "ties")
        assert (proof["logits"]["kl_mean"] < 1e-9) is exact
        assert proof["logits"]["effect"] > 1e-3
    code, text, err = called("adapter", "verify", tmp_path / "cat", "--model", base)
    assert code == 0, err
    assert text.startswith("proved: KL")


def half_of_one_layer(form: Form, out: Path) -> Path:
    path = next(iter(form.factors))
    spoilt = replace(form.factors[path], scale=0.5)
    return write_form(replace(form, factors={**form.factors, path: spoilt}), out)


@pytest.mark.parametrize("verb", ["combine", "resize", "average"])
def test_an_adapter_that_is_not_what_was_asked_for_is_rejected(
    verb: str, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bases("llama")
    folders = [save_adapter(base, tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    monkeypatch.setattr("loraloom.pipeline.reshape.write_form", half_of_one_layer)
    words = (folders[0], "--rank", "3") if verb == "resize" else folders
    code, out, err = called("adapter", verb, *words, "--out", tmp_path / "c", "--json")
    assert code == 1 and "is not what was asked for" in err
    assert json.loads(out)["proof"]["passed"] is False
    assert not (tmp_path / "c").exists() and (tmp_path / "c.rejected").is_dir()


def test_a_ratio_keeps_directions_by_their_size(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a", r=6)
    values = [torch.linalg.svdvals(update.double()) for update in updates(adapter, base).values()]
    ratio = 0.6
    expected = max(int((one >= ratio * one[0]).sum()) for one in values)
    words = ("adapter", "resize", adapter, "--ratio", ratio, "--out", tmp_path / "r", "--json")
    code, out, err = called(*words)
    assert code == 0, err
    found = json.loads(out)
    assert found["rank"] == expected < 6
    lost = sum(float(one[expected:].square().sum()) for one in values)
    every = sum(float(one.square().sum()) for one in values)
    assert found["proof"]["error"] == pytest.approx((lost / every) ** 0.5, rel=1e-3)
    for wrong in (("--ratio", 2), ("--ratio", 0.1, "--rank", 2)):
        code, _, err = called("adapter", "resize", adapter, *wrong, "--out", tmp_path / "x")
        assert code == 2 and "--ratio" in err


def test_the_mean_of_adapters_is_that_of_their_updates(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    folders = [save_adapter(base, tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    words = (*folders, "--rank", "12", "--out", tmp_path / "m")
    code, out, err = called("adapter", "average", *words)
    assert code == 0, err
    assert "mean of the updates of 3 adapters" in out and "no run lies around them" in out
    parts = [updates(folder, base) for folder in folders]
    mean = {path: torch.stack([part[path] for part in parts]).mean(0) for path in parts[0]}
    same(updates(tmp_path / "m", base), mean)
    code, _, err = called("adapter", "average", folders[0], "--out", tmp_path / "n")
    assert code == 2 and "a mean needs two" in err


def test_conflicts_are_shown_by_module_and_adapters_of_other_layers_are_stacked(
    bases: Bases, tmp_path: Path
) -> None:
    base = bases("llama")
    first = save_adapter(base, tmp_path / "a", target_modules=["q_proj", "v_proj"])
    beside = save_adapter(base, tmp_path / "b", target_modules=["up_proj"])
    against = save_adapter(base, tmp_path / "c", target_modules=["v_proj"])
    mirrored = load_file(first / "adapter_model.safetensors")
    kept = {
        key: -tensor if "lora_B" in key else tensor
        for key, tensor in mirrored.items()
        if "v_proj" in key
    }
    save_file(kept, against / "adapter_model.safetensors")
    words = ("adapter", "combine", first, beside, against, "--out", tmp_path / "x")
    code, out, err = called(*words, "--dry-run")
    assert code == 0, err
    assert "they change different layers: cat keeps both whole" in out
    assert "they take each other back" in out and "(most in v_proj)" in out
    assert not (tmp_path / "x").exists()
    pairs = json.loads(called(*words, "--json")[1])["conflicts"]
    assert [(pair["common"], pair["apart"]) for pair in pairs] == [(0, 6), (2, 2), (0, 4)]
    module = pairs[1]["modules"]["v_proj"]
    assert module["cosine"] == pytest.approx(-1, abs=1e-5)
    assert module["interference"] == pytest.approx(1, abs=1e-5)
    made, one, up = (updates(folder, base) for folder in (tmp_path / "x", first, beside))
    expected = up | {path: update for path, update in one.items() if "q_proj" in path}
    same({path: update for path, update in made.items() if "v_proj" not in path}, expected)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "regmean"])
def test_order_is_immaterial_and_a_combination_loads(method: str, bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    folders = [save_adapter(base, tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    made = []
    for order in (folders, folders[::-1]):
        out = tmp_path / f"c{len(made)}"
        words = ("--method", method, "--density", "1", "--out", out)
        code, text, err = called("adapter", "combine", *order, *words)
        assert code == 0, err
        assert "common layers" in text
        made.append(updates(out, base))
    same(made[1], made[0])


def test_regmean_answers_on_each_task_nearer_to_its_adapter(bases: Bases, tmp_path: Path) -> None:
    """Two tasks of different words, with adapters that differ everywhere."""
    base, targets = bases("llama"), ["q_proj", "v_proj", "up_proj", "down_proj"]
    folders = [
        save_adapter(base, tmp_path / name, seed=seed, spread=0.1, target_modules=targets)
        for seed, name in enumerate("ab")
    ]
    data: list[object] = []
    texts = [
        [f"w{first + i % 6} w{first + i * i % 6} w{first + i // 6}" for i in range(30)]
        for first in (1, 30)
    ]
    for number, rows in enumerate(texts):
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        data += ["--data", file]
    words = (*folders, "--model", base)
    more = ("--method", "regmean", *data, "--out", tmp_path / "r")
    code, _, err = called("adapter", "combine", *words, *more)
    assert code == 0, err
    assert called("adapter", "combine", *words, "--out", tmp_path / "c")[0] == 0
    tokenizer = AutoTokenizer.from_pretrained(base)
    for folder, rows in zip(folders, texts, strict=True):
        ids = tokenizer(rows, return_tensors="pt").input_ids
        own, cat, regmean = (
            PeftModel.from_pretrained(load_base(base, "CAUSAL_LM"), str(place))(ids).logits
            for place in (folder, tmp_path / "c", tmp_path / "r")
        )
        assert float((regmean - own).norm()) < 0.5 * float((cat - own).norm())


def test_dare_follows_its_seed(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    folders = [save_adapter(base, tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    made = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"c{number}"
        words = ("--method", "dare", "--seed", seed, "--rank", 24, "--out", out)
        assert called("adapter", "combine", *folders, *words)[0] == 0
        made.append(updates(out, base))
    same(made[1], made[0])
    path = next(iter(made[0]))
    assert not torch.allclose(made[2][path], made[0][path], rtol=1e-2)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[object, ...], str]] = {
    "DoRA": ({"use_dora": True}, {}, (), "DoRA"),
    "whole modules": ({}, {"modules_to_save": ["lm_head"]}, (), "trained whole"),
    "unequal ranks": ({}, {"r": 2}, ("--method", "linear"), "equal ranks"),
    "a weight too few": ({}, {}, ("--weights", "1"), "2 adapters and 1 weights"),
    "no method": ({}, {}, ("--method", "mix"), "cat, linear"),
    "regmean without rows": ({}, {}, ("--method", "regmean"), "--data A.jsonl"),
    "rows of one task": ({}, {}, ("--method", "regmean", "--data", "a.jsonl"), "rows of 1 tasks"),
    "rows for cat": ({}, {}, ("--data", "a.jsonl"), "regmean alone"),
    "cat of a rank": ({}, {}, ("--rank", "3"), "--method svd"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_combined_is_refused(kind: str, bases: Bases, tmp_path: Path) -> None:
    first, second, words, expected = REFUSED[kind]
    base = bases("llama")
    folders = [save_adapter(base, tmp_path / "a", **first), save_adapter(base, tmp_path / "b", **second)]
    code, _, err = called("adapter", "combine", *folders, *words, "--out", tmp_path / "c")
    assert code == 2 and expected in err, err
    assert not list(tmp_path.glob("*c*"))


def test_adapters_of_two_bases_are_refused(bases: Bases, tmp_path: Path) -> None:
    one = save_adapter(bases("llama"), tmp_path / "a")
    other = save_adapter(bases("qwen2"), tmp_path / "b")
    code, _, err = called("adapter", "combine", one, other, "--out", tmp_path / "c")
    assert code == 2 and "different bases" in err


def test_resize_refuses_dora_and_needs_one_size(bases: Bases, tmp_path: Path) -> None:
    dora = save_adapter(bases("llama"), tmp_path / "a", use_dora=True)
    plain = save_adapter(bases("llama"), tmp_path / "b")
    code, _, err = called("adapter", "resize", dora, "--rank", 2, "--out", tmp_path / "c")
    assert code == 2 and "DoRA" in err
    code, _, err = called("adapter", "resize", plain, "--out", tmp_path / "c")
    assert code == 2 and "--energy" in err


def test_extract_lists_what_it_leaves_out(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    model = load_base(base, "CAUSAL_LM")
    with torch.no_grad():
        model.model.norm.weight.add_(0.1)
        model.model.layers[0].mlp.up_proj.weight.add_(0.01 * torch.randn(40, 24))
    model.save_pretrained(tmp_path / "t")
    words = ("--base", base, "--tuned", tmp_path / "t", "--rank", 2, "--out", tmp_path / "x", "--json")
    code, out, err = called("adapter", "extract", *words)
    assert code == 0, err
    found = json.loads(out)
    assert found["left_out"] == ["model.norm.weight"] and found["layers"] == 1
    assert 0.1 < found["error"] < 1
    words = ("--base", base, "--tuned", base, "--rank", 2, "--out", tmp_path / "y")
    code, _, err = called("adapter", "extract", *words)
    assert code == 2 and "no linear layer differs" in err


def test_what_was_resized_keeps_its_head(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a", modules_to_save=["lm_head"])
    code, _, err = called("adapter", "resize", adapter, "--rank", 2, "--out", tmp_path / "r")
    assert code == 0, err
    before, after = read_form(adapter), read_form(tmp_path / "r")
    assert torch.equal(before.whole["lm_head.weight"], after.whole["lm_head.weight"])
    assert after.ranks == (2,)
