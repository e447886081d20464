"""combine, resize and extract: what comes out is what the live adapters compute."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from small_bases import called, load_base, save_adapter

from loraloom.adapters.combine import METHODS
from loraloom.adapters.combine.conflicts import cosine
from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import approximated, concatenated, truncated
from loraloom.adapters.form import Factor, read_form

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


@pytest.mark.parametrize("method", METHODS)
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


# -- properties --------------------------------------------------------------------------------------

SEEDS = st.integers(0, 10**6)
RANKS = st.integers(1, 5)


def pair(seed: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rank, 9, generator=random), torch.randn(7, rank, generator=random)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, rank=RANKS, kept=RANKS)
def test_truncation_has_the_best_error_of_its_rank(seed: int, rank: int, kept: int) -> None:
    a, b = pair(seed, rank)
    short_a, short_b = truncated(a, b, kept)
    assert short_a.shape[0] == kept == short_b.shape[1]
    values = torch.linalg.svdvals((b @ a).double())
    optimum = float(values[kept:].square().sum().sqrt())
    error = float((b @ a - short_b @ short_a).norm())
    assert error == pytest.approx(optimum, rel=1e-4, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, ranks=st.lists(RANKS, min_size=2, max_size=4))
def test_methods_that_keep_everything_are_the_sum(seed: int, ranks: list[int]) -> None:
    pairs = [pair(seed + i, rank) for i, rank in enumerate(ranks)]
    task = LayerTask("layer", pairs, [1.0] * len(pairs), 7, 1.0, seed)
    total = sum(b @ a for a, b in pairs)
    for method in ("cat", "svd", "dare"):
        a, b = METHODS[method](task)
        torch.testing.assert_close(b @ a, total, rtol=1e-4, atol=1e-4)
    a, b = METHODS["soup"](task)
    torch.testing.assert_close(b @ a, total / len(pairs), rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, rank=RANKS, copies=st.integers(2, 4))
def test_equal_updates_agree_in_every_sign(seed: int, rank: int, copies: int) -> None:
    a, b = pair(seed, rank)
    task = LayerTask("layer", [(a, b)] * copies, [1.0] * copies, 7, 1.0, 0)
    for method in ("ties", "knots", "soup"):
        got_a, got_b = METHODS[method](task)
        torch.testing.assert_close(got_b @ got_a, b @ a, rtol=1e-4, atol=1e-4)


@given(seed=SEEDS, rank=RANKS)
def test_cosine_is_that_of_the_dense_updates(seed: int, rank: int) -> None:
    (a, b), (a2, b2) = pair(seed, rank), pair(seed + 1, 3)
    expected = torch.cosine_similarity((b @ a).flatten().double(), (b2 @ a2).flatten().double(), dim=0)
    got = cosine(Factor("x", a, b, 0.5), Factor("x", a2, b2, 3.0))
    assert got == pytest.approx(float(expected), abs=1e-5)


def test_a_large_update_is_approximated_as_well_as_can_be() -> None:
    random = torch.Generator().manual_seed(0)
    dense = torch.randn(700, 600, generator=random) / (1 + torch.arange(600))
    a, b = approximated(dense, 8)
    optimum = float(torch.linalg.svdvals(dense)[8:].square().sum().sqrt())
    assert float((dense - b @ a).norm()) <= 1.001 * optimum
    one, other = concatenated([(a, b), (a, -b)])
    assert float((other @ one).norm()) < 1e-4


def test_what_was_resized_keeps_its_head(bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a", modules_to_save=["lm_head"])
    code, _, err = called("adapter", "resize", adapter, "--rank", 2, "--out", tmp_path / "r")
    assert code == 0, err
    before, after = read_form(adapter), read_form(tmp_path / "r")
    assert torch.equal(before.whole["lm_head.weight"], after.whole["lm_head.weight"])
    assert after.ranks == (2,)
