"""What a training pass of a LLaMA-like model keeps for its backward pass, added up from its sizes.

It is what `facts.activations` counts on the model itself, to the byte, without the model: each operation
is named in the order of the pass, with what autograd keeps of it. An operation keeps something only
where a gradient goes through it, so nothing is kept before the first adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from loraloom.facts.llama import LlamaLike
from loraloom.facts.weights import BYTES
from loraloom.records import Task

FULL = 4
"""A float32 number: norms compute in it, whatever the base computes in."""
INDEX = 8
"""A position of a token."""


def kept_by_llama(
    model: LlamaLike,
    task: Task,
    targets: frozenset[str],
    rank: int,
    dtype: str,
    length: int,
    attention: str,
    rows: int,
) -> float | None:
    """Bytes that a pass of so many rows keeps of each; None for attention that is not fused. Arguments
    as in `activations.kept_bytes_per_row`."""
    if attention == "eager":
        return None
    made = Pass(
        model, rank, BYTES[dtype], length, _kind_of_attention(model, dtype, length, attention, rows)
    )
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}."
        made.block(frozenset(path.removeprefix(prefix) for path in targets if path.startswith(prefix)))
    made.norm(model.hidden, 1)
    # of the rotary positions, for all rows at once
    angles = 2 * length * model.head_size * made.element if made.turned else 0
    # which row, and which token of it is scored
    picked = 2 * INDEX if task == "seq_cls" and made.moving else 0
    return made.kept + angles / rows + picked


def _kind_of_attention(model: LlamaLike, dtype: str, length: int, attention: str, rows: int) -> str:
    """Which kernel serves rows of this length: "table", "blocks" or "fused" (`lora.attention`)."""
    import torch

    from loraloom.lora.attention import most_rows
    from loraloom.lora.attention_blocks import LONGEST, SHORTEST

    number = getattr(torch, dtype)
    if attention == "rows" and number in SHORTEST and SHORTEST[number] <= length <= LONGEST[number]:
        return "blocks"
    return (
        "table"
        if attention == "rows" and rows <= most_rows(model.heads, length, length, number)
        else "fused"
    )


@dataclass
class Pass:
    """A pass on its way through the blocks.

    Attributes:
        moving: whether a gradient goes through what the last block gave.
        turned: whether one goes through the rotary positions of any block.
        kept: bytes of one row so far.
    """

    model: LlamaLike
    rank: int
    element: int
    length: int
    attention: str
    moving: bool = False
    turned: bool = False
    kept: int = 0

    def block(self, adapted: frozenset[str]) -> None:
        """One block, whose layers with these paths inside it carry an adapter."""
        model = self.model
        heads = self.model.heads * self.model.head_size
        f = self.model.intermediate
        self.norm(model.hidden, 1)
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        queries, keys, values = self.linears(names, model.hidden, adapted)
        if model.head_norms:
            self.norm(model.head_size, model.heads, queries)
            self.norm(model.head_size, model.kv_heads, keys)
        self.turned |= queries or keys
        attended = queries or keys or values
        if attended:
            self.attend()
        # the fused kernel lays its result out as the next layer reads it, and has kept it
        read = 0 if attended and self.attention == "fused" else heads
        (written,) = self.linears(("self_attn.o_proj",), read, adapted, attended)
        self.moving |= written
        self.norm(model.hidden, 1)
        gate, up = self.linears(("mlp.gate_proj", "mlp.up_proj"), model.hidden, adapted)
        # SiLU's input, its output for the gradient of `up`, and `up` for that of SiLU
        self.keep(f * (gate + up + gate))
        (written,) = self.linears(("mlp.down_proj",), f, adapted, gate or up)
        self.moving |= written

    def linears(
        self, names: tuple[str, ...], width: int, adapted: frozenset[str], moving: bool | None = None
    ) -> tuple[bool, ...]:
        """Frozen layers that read one input of so many numbers: with an adapter they
        keep it, once, and the adapter's middle.

        Returns:
            For each, whether a gradient goes through what it gives.
        """
        chosen = [name in adapted for name in names]
        self.keep(any(chosen) * width + sum(chosen) * self.rank)
        moving = self.moving if moving is None else moving
        return tuple(moving or one for one in chosen)

    def attend(self) -> None:
        """Attention, by the kernel that serves rows of this length."""
        model = self.model
        queries, values = (number * model.head_size for number in (model.heads, model.kv_heads))
        if self.attention == "table":
            from loraloom.lora.attention_blocks import WIDTH

            wide = max(model.head_size, WIDTH)
            self.keep((model.heads + 2 * model.kv_heads) * wide + model.heads * self.length)
        elif self.attention == "blocks":
            self.keep(queries + 2 * values)
        else:
            self.keep(2 * queries + 2 * values)
            self.kept += FULL * model.heads * self.length

    def norm(self, width: int, count: int, moving: bool | None = None) -> None:
        """`count` norms of so many numbers a token: the numbers in float32, and a scale of each norm."""
        if self.moving if moving is None else moving:
            self.kept += FULL * (width + 1) * count * self.length

    def keep(self, numbers: int) -> None:
        """So many numbers a token, in the precision of the base."""
        self.kept += numbers * self.element * self.length
