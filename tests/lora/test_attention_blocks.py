"""Attention by blocks equals torch's own, forward and backward, for any shape and any
mask that it takes."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from loraloom.lora import attention_blocks
from loraloom.lora.attention import use_row_attention
from loraloom.lora.attention_blocks import BlockAttention, takes


def inputs(
    rows: int, heads: int, groups: int, length: int, width: int, value_width: int
) -> list[Tensor]:
    """q, k and v in float64, laid out as a model's projections give them."""
    generator = torch.Generator().manual_seed(rows + 7 * length + width)
    shapes = ((heads, width), (groups, width), (groups, value_width))
    made = [
        torch.randn(rows, length, n, d, generator=generator, dtype=torch.float64).transpose(1, 2)
        for n, d in shapes
    ]
    return [x.requires_grad_() for x in made]


def gradients(result: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return (result, *torch.autograd.grad(result, inputs, weights))


def padded(lengths: list[int], length: int) -> Tensor:
    """Causal, and no token sees the padding behind its row: [B, 1, T, T]."""
    real = torch.arange(length) < torch.tensor(lengths)[:, None]
    return real[:, None, None, :] & torch.ones(length, length, dtype=torch.bool).tril()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3),
    groups=st.integers(1, 3),
    share=st.integers(1, 3),
    length=st.integers(1, 150),
    width=st.sampled_from([4, 8, 16, 24]),
    value_width=st.sampled_from([8, 20]),
    data=st.data(),
)
def test_blocks_equal_torch(
    rows: int, groups: int, share: int, length: int, width: int, value_width: int, data: st.DataObject
) -> None:
    q, k, v = inputs(rows, groups * share, groups, length, width, value_width)
    mask = None
    if data.draw(st.booleans(), label="padding"):
        mask = padded(data.draw(st.lists(st.integers(1, length), min_size=rows, max_size=rows)), length)
    scale = data.draw(st.sampled_from([0.3, width**-0.5]))
    got = gradients(BlockAttention.apply(q, k, v, mask, scale), q, k, v)  # type: ignore[arg-type]
    expected = gradients(
        F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
        ),
        q,
        k,
        v,
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_window_is_a_mask_like_any_other() -> None:
    q, k, v = inputs(2, 4, 2, 200, 8, 8)
    seen = torch.ones(200, 200, dtype=torch.bool).tril().triu(-30)[None, None]
    got = gradients(BlockAttention.apply(q, k, v, seen, 0.5), q, k, v)  # type: ignore[arg-type]
    expected = gradients(
        F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.5, enable_gqa=True), q, k, v
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_what_is_causal_and_long_goes_by_blocks(dtype: torch.dtype) -> None:
    shortest, longest = attention_blocks.SHORTEST[dtype], attention_blocks.LONGEST[dtype]
    for length, taken in (
        (shortest - 1, False),
        (shortest, True),
        (longest, True),
        (longest + 1, False),
    ):
        q = torch.zeros(1, 2, length, 8, dtype=dtype)
        assert takes(q, q, None) is taken
        assert takes(q, q, padded([length - 1], length)) is taken
    q = torch.zeros(1, 2, shortest, 8, dtype=dtype)
    causal = padded([shortest], shortest)
    later = causal.clone()
    later[..., 3, 4] = True
    assert not takes(q, q, later), "a token that sees a later one"
    assert not takes(q, q, causal.to(dtype)), "numbers that are added may be more than a mask"
    assert not takes(q[:, :, -1:], q, None), "a query whose keys were kept from before"
    assert not takes(q.half(), q.half(), None)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_model_with_long_rows_gives_what_it_gave(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded rows of a model with a narrow head, with shared key heads, with a window: logits and
    gradients, one for one."""
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    kind = {"llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig}[family]
    window = {"sliding_window": 40} if family == "mistral" else {}
    config = kind(
        **sizes,
        intermediate_size=48,
        vocab_size=61,
        max_position_embeddings=512,
        pad_token_id=0,
        **window,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float64).eval()
    ids = torch.randint(1, 61, (3, 190))
    seen = (torch.arange(190) < torch.tensor([190, 170, 90])[:, None]).long()
    calls: list[int] = []
    blocks = attention_blocks.takes

    def counted(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
        calls.append(int(blocks(query, key, mask)))
        return bool(calls[-1])

    monkeypatch.setattr("loraloom.lora.attention.takes", counted)
    results: list[list[Tensor]] = []
    for ours in (False, True):
        if ours:
            use_row_attention(model)
        model.zero_grad()
        logits = model(ids, attention_mask=seen).logits * seen[..., None]
        logits.square().mean().backward()
        results.append(
            [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        )
    assert calls == [1, 1], "both layers went by blocks"
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
