"""Packed LoRA training in one flat file: plain torch and transformers, nothing of loraloom.

Three adapters of different rank, rate and batch size train at the same time on one frozen base, and each
ends with the weights that it would have had alone. Read from top to bottom; run with `python
examples/packed_loop.py` (seconds).

Shapes: B rows of a batch, T tokens of its longest row, D features in, O features out, R
rank, V vocabulary.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_default_dtype(torch.float64)  # so that the comparison at the end shows faults and not rounding
torch.set_num_threads(1)  # the model is too small to be worth a second one

# 1. What is trained. Nothing has to be the same from one candidate to the next.


@dataclass(frozen=True)
class Candidate:
    name: str
    rank: int
    alpha: float
    learning_rate: float
    batch: int
    steps: int
    seed: int


CANDIDATES = [
    Candidate("small", rank=2, alpha=4, learning_rate=2e-2, batch=1, steps=60, seed=1),
    Candidate("wide", rank=8, alpha=16, learning_rate=1e-2, batch=4, steps=80, seed=2),
    Candidate("slow", rank=4, alpha=8, learning_rate=5e-3, batch=2, steps=80, seed=3),
]

# 2. Data: counting in steps. A row is start, start + step, start + 2 * step, ... modulo
# 29; its length varies.

VOCABULARY, PAD, IGNORE = 30, 29, -100
draw = torch.Generator().manual_seed(0)
ROWS: list[Tensor] = []
for _ in range(64):
    start, step, length = (
        int(torch.randint(low, high, (), generator=draw)) for low, high in ((0, 29), (1, 4), (8, 15))
    )
    ROWS.append((start + step * torch.arange(length)) % 29)

# 3. The frozen base: there once, whatever the number of adapters. `eval` because its own dropout, if it
# had any, would be drawn for all rows at once and make a candidate depend on its neighbours.

torch.manual_seed(0)
base = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
)
base.eval().requires_grad_(False)

# 4. Routing. A batch holds the rows of one candidate after those of another; `route` says whose are
# whose. Every adapted layer reads it, so the model in between needs to know nothing about adapters.

route: list[tuple[str, slice]] = []


class PackedLinear(nn.Module):
    """The frozen layer for all rows at once, then to each candidate's rows that
    candidate's scale * B A x."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.adapters: dict[str, tuple[nn.Parameter, nn.Parameter, float]] = {}
        self.passes = 0

    def forward(self, x_BTD: Tensor) -> Tensor:
        self.passes += 1
        y_BTO = self.frozen(x_BTD)  # the costly part, shared: its weights are read once for everyone
        deltas = [self.delta(name, x_BTD[rows]) for name, rows in route]
        return y_BTO + torch.cat(deltas)

    def delta(self, name: str, x_BTD: Tensor) -> Tensor:
        a_RD, b_OR, scale = self.adapters[name]
        return scale * F.linear(F.linear(x_BTD, a_RD), b_OR)

    def add(self, candidate: Candidate) -> list[nn.Parameter]:
        """A new adapter: A random, B zero, so that it starts as the bare base. It owns its weights."""
        a_RD = nn.Parameter(torch.empty(candidate.rank, self.frozen.in_features))
        b_OR = nn.Parameter(torch.zeros(self.frozen.out_features, candidate.rank))
        nn.init.kaiming_uniform_(a_RD, a=5**0.5)
        self.adapters[candidate.name] = (a_RD, b_OR, candidate.alpha / candidate.rank)
        return [a_RD, b_OR]


layers: list[PackedLinear] = []
for path, module in list(base.named_modules()):
    if isinstance(module, nn.Linear) and path != "lm_head":
        parent, _, leaf = path.rpartition(".")
        layers.append(PackedLinear(module))
        setattr(base.get_submodule(parent), leaf, layers[-1])

# 5. Losses. The model's own `labels=` would average over everybody's tokens; here each row keeps the sum
# of its own. Rows are padded on the right: in a causal model no real token ever sees the padding.


def row_losses(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of next-token losses in nats and number of predicted tokens, by row: [B] and [B]."""
    ids_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    targets_BT = nn.utils.rnn.pad_sequence(
        [row[1:] for row in rows], batch_first=True, padding_value=IGNORE
    )
    logits_BTV = base(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    losses_BT = F.cross_entropy(
        logits_BTV.transpose(1, 2), targets_BT, ignore_index=IGNORE, reduction="none"
    )
    return losses_BT.sum(1), (targets_BT != IGNORE).sum(1)


# 6. The packed loop. Used below for three candidates at once and for one at a time: it
# cannot tell the difference.


def train(candidates: list[Candidate]) -> tuple[dict[str, list[Tensor]], dict[str, list[float]]]:
    """Final weights and the losses of all steps, by candidate."""
    weights: dict[str, list[Tensor]] = {}
    losses: dict[str, list[float]] = {one.name: [] for one in candidates}
    optimisers: dict[str, torch.optim.Optimizer] = {}
    orders: dict[str, torch.Generator] = {}
    # all randomness comes from the candidate's own seed, none from the others in the pack
    for one in candidates:
        torch.manual_seed(one.seed)
        weights[one.name] = [weight for layer in layers for weight in layer.add(one)]
        optimisers[one.name] = torch.optim.AdamW(weights[one.name], lr=one.learning_rate)
        orders[one.name] = torch.Generator().manual_seed(one.seed)

    for step in range(max(one.steps for one in candidates)):
        # who has ended makes room: smaller passes from here on
        live = [one for one in candidates if step < one.steps]
        route.clear()
        batch: list[Tensor] = []
        for one in live:
            picked = torch.randint(len(ROWS), (one.batch,), generator=orders[one.name])
            route.append((one.name, slice(len(batch), len(batch) + one.batch)))
            batch += [ROWS[i] for i in picked.tolist()]

        loss_B, tokens_B = row_losses(batch)  # one pass forward for everyone
        means = {name: loss_B[rows].sum() / tokens_B[rows].sum() for name, rows in route}
        # and one back: a sum, so nobody's gradient holds another's
        torch.stack(list(means.values())).sum().backward()

        for one in live:
            # the norm of one's own gradient, not of the pack's
            nn.utils.clip_grad_norm_(weights[one.name], 1.0)
            rate = one.learning_rate * (1 - step / one.steps)
            optimisers[one.name].param_groups[0]["lr"] = rate
            optimisers[one.name].step()
            optimisers[one.name].zero_grad()
            losses[one.name].append(means[one.name].item())
    return weights, losses


# 7. The proof: train together, train one by one, compare every weight.

clock = time.perf_counter()
together, losses = train(CANDIDATES)
seconds_together, passes_together = time.perf_counter() - clock, layers[0].passes

clock = time.perf_counter()
alone = {one.name: train([one])[0][one.name] for one in CANDIDATES}
seconds_alone, passes_alone = time.perf_counter() - clock, layers[0].passes - passes_together

print("candidate  rank  rate   batch  loss first -> last  largest difference from training alone")
for one in CANDIDATES:
    differences = [
        (left - right).detach().abs().max()
        for left, right in zip(together[one.name], alone[one.name], strict=True)
    ]
    worst = float(torch.stack(differences).max())
    first, last = losses[one.name][0], losses[one.name][-1]
    print(
        f"{one.name:<9}  {one.rank:>4}  {one.learning_rate:<5g}  {one.batch:>5}  {first:>10.3f} ->"
        f" {last:.3f}  {worst:.1e}"
    )
    assert worst < 1e-6, f"{one.name} is not what it would be alone"
print(f"passes through each frozen layer: {passes_together} together, {passes_alone} one by one")
print(f"seconds: {seconds_together:.2f} together, {seconds_alone:.2f} one by one")
