"""Forecast of seconds: operations over the measured rate of this machine, and a fixed
cost of every layer call.

LoRA training costs 4 operations a frozen weight and token: two forward, two for the gradient of the
activations (a full fine-tune adds two for the weights). With recomputation it is 6. An adapter adds 6 r
(d_in + d_out).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from loraloom.config import names
from loraloom.config.choices import MEASURED_ALLOCATIONS
from loraloom.facts.data import DataFacts
from loraloom.facts.speed import matmul_flops
from loraloom.plan import engine
from loraloom.plan.case import Case
from loraloom.plan.memory import streamed_bytes
from loraloom.plan.pass_memory import supervised_share
from loraloom.plan.preference import is_reference_free
from loraloom.plan.ranks import ROWS, TIMES, allocations_asked, measured_steps
from loraloom.plan.shape import Shape, decided_shape
from loraloom.plan.weight_memory import coded_linears, is_spread
from loraloom.records import Estimate, TrainingSpec
from loraloom.search.finals import race_runs
from loraloom.search.pruners import is_wide
from loraloom.search.pruners.halving import whole_trainings

EFFICIENCY = {"cpu": 0.35, "cuda": 0.40, "mps": 0.30}
"""Share of the rate of a large matrix product that a whole training step reaches (CPU: measured on a 92M
LLaMA, the others assumed until a probe says better)."""
LAYER_SECONDS = {"cpu": 1.0e-3, "cuda": 0.6e-3, "mps": 0.8e-3}
"""Python, launches and small operations of one block, forward and backward: assumed,
right within a factor of two."""
PADDING = 1.1
"""Tokens of a batch over those that are not padding, with rows grouped by length."""
LINK_BYTES = 2.0e10
"""Bytes a second between pinned memory of the host and a GPU: PCIe 4.0 with 16 lanes moves 3.2e10 at
most. Assumed."""
DISK_BYTES = 1.0e9
"""Bytes a second from a disk: a fast one, read in order. Assumed."""
SPREADING_SECONDS = {"cpu": 2.0e-10, "cuda": 2.5e-12, "mps": 2.0e-10}
"""Seconds that a core, or a GPU, takes to spread one number from its codes (CPU: 7 ms for 35 million,
measured on one core of an EPYC; CUDA: 2.5 bytes at 1e12 bytes a second, assumed)."""
PEFT_SPREADING = 0.5
"""The share by which PEFT's step takes longer over four bits: its layers spread for each candidate and
product anew (arXiv:2305.14314; litgpt measured 56%)."""
EVALUATIONS = TrainingSpec.evaluations
"""How often a candidate is scored on validation."""
SPREAD = (0.5, 2.0)
"""A forecast without a probe may be off by this factor."""
STARTUP_SECONDS = 8.0
PROBED = 0.15
"""Share by which a forecast may be off that stands on measured steps."""


def forecast_time(
    case: Case, *, trials: float = 1, packed: int = 1, token_budget: int | None = None
) -> Estimate:
    """Seconds for so many candidates trained to their ends, `packed` at a time; `parts`
    sum to its value.

    Args:
        token_budget: padded tokens of a pass; None for the device's own number.
    """
    device = case.facts.device.kind
    token_budget = token_budget or engine.TOKEN_BUDGET[device]
    rate = operations_a_second(case)
    steps = case.total_steps
    rows = case.facts.data.sides * case.decided.batch
    tokens = steps * rows * case.facts.data.mean_length * PADDING
    per_token = operations_per_token(case)
    waiting = offload_share(case) if case.decided.checkpointing == "offload" else 0.0
    micro = steps * case.decided.accumulation
    passes = micro * passes_of_all(case, trials, packed, token_budget)
    # Scoring goes forwards only: half of what a training token takes.
    scored = EVALUATIONS * held_out_tokens(case.facts.data) * PADDING
    parts = {
        "training": trials * tokens * per_token * (1 + waiting) / rate,
        "layers": passes * case.facts.model.layers * LAYER_SECONDS[device],
        "evaluation": trials * scored * per_token / 2 / rate,
        "startup": STARTUP_SECONDS,
    }
    parts |= _measured_ranks(case, token_budget) | _reference(case, trials, token_budget)
    if is_spread(case, case.decided.quantization):
        parts["spreading"] = passes * spreading_seconds(case, bool(case.decided.checkpointing))
    if case.decided.streaming:
        shape = decided_shape(case.decided, packed=packed, token_budget=token_budget)
        parts["streaming"] = passes * streaming_seconds(case, shape)
    value = sum(parts.values())
    return Estimate(
        value=value, low=value * SPREAD[0], high=value * SPREAD[1], unit="seconds", parts=parts
    )


def _measured_ranks(case: Case, token_budget: int) -> dict[str, float]:
    """Once a run: the short training, and the look at the inputs of layers, that allocations of rank ask
    for."""
    wanted = {name for name in allocations_asked(case) if name in MEASURED_ALLOCATIONS}
    data = case.facts.data
    row = data.sides * data.mean_length * PADDING
    seconds = 0.0
    if "eva" in wanted:
        seconds += _forwards(case, min(ROWS, data.rows) * row, token_budget)
    if wanted - {"eva"}:
        steps = measured_steps(case.total_steps)
        wider = 6 * (TIMES - 1) * case.adapter_parameters
        operations = steps * case.decided.batch * row * (operations_per_token(case) + wider)
        passes = steps * case.decided.accumulation
        layers = passes * case.facts.model.layers * LAYER_SECONDS[case.facts.device.kind]
        seconds += operations / operations_a_second(case) + layers
    return {"ranks": seconds} if wanted else {}


def _reference(case: Case, trials: float, token_budget: int) -> dict[str, float]:
    """Once a run: what the reference makes of the rows that candidates are trained and chosen on. And in
    each step of KTO, how far a candidate has moved: a forward of it and one of its reference."""
    data = case.facts.data
    if data.task != "preference":
        return {}
    row = data.sides * data.mean_length * PADDING
    rows = data.validation_rows + data.confirm_rows + (0 if is_reference_free(case) else data.rows)
    parts = {"reference": _forwards(case, rows * row, token_budget)}
    if data.sides == 1:
        windows = 2 * trials * case.total_steps
        parts["kl"] = windows * _forwards(case, case.decided.batch * row, token_budget)
    return parts


def _forwards(case: Case, tokens: float, token_budget: int) -> float:
    """Passes of so many tokens together that go forwards only: half of a training token's products, and
    a third of what its passes take beside them."""
    layers = case.facts.model.layers * LAYER_SECONDS[case.facts.device.kind]
    products = tokens * operations_per_token(case) / 2 / operations_a_second(case)
    return products + math.ceil(tokens / token_budget) * layers / 3


def operations_a_second(case: Case) -> float:
    """What a training step reaches."""
    kind = case.facts.device.kind
    return matmul_flops(kind, case.decided.dtype) * EFFICIENCY[kind]


def offload_share(case: Case) -> float:
    """The share by which a step takes longer where blocks' inputs wait on the host: what their copies
    take beyond the products of a block, on the way forward (2 operations a weight and token) and on the
    way back (4)."""
    model = case.facts.model
    products = 2 * model.linear_parameters / max(1, model.layers) / operations_a_second(case)
    copy = model.hidden_size * case.decided.dtype_bytes / LINK_BYTES
    return (max(0.0, copy - products) + max(0.0, copy - 2 * products)) / (3 * products)


def streaming_seconds(case: Case, shape: Shape) -> float:
    """What a training pass of this shape waits for weights, which come twice, for the way forward and
    for the way back. While they come from the host's memory a GPU computes; a disk is waited for."""
    bytes_moved = 2 * streamed_bytes(case, shape)
    if case.facts.device.kind == "cpu":
        return bytes_moved / DISK_BYTES
    return max(0.0, bytes_moved / LINK_BYTES - computing_seconds(case, shape))


def computing_seconds(case: Case, shape: Shape) -> float:
    """The products of a pass of this shape."""
    tokens = shape.tokens(case.facts.device.kind)
    recomputes = case.assuming({names.GRADIENT_CHECKPOINTING: shape.checkpointing})
    return tokens * operations_per_token(recomputes) / operations_a_second(case)


def scoring_seconds(case: Case, tokens: float) -> float:
    """What the passes of scoring one candidate take beside their products, with so many tokens in each:
    a third of a training pass's, as they go forwards only."""
    passes = EVALUATIONS * math.ceil(held_out_tokens(case.facts.data) * PADDING / tokens)
    return passes * case.facts.model.layers * LAYER_SECONDS[case.facts.device.kind] / 3


def streaming_share(case: Case, shape: Shape) -> float:
    """The share by which a pass takes longer where the weights are streamed."""
    return streaming_seconds(case, shape) / computing_seconds(case, shape)


def spreading_seconds(case: Case, recomputes: bool) -> float:
    """What a training pass takes to spread the weights from their codes, for all of its candidates
    together: once on the way forward, once on the way back, and where blocks are run again once more."""
    device = case.facts.device
    numbers = sum(linear.parameters for linear in coded_linears(case.facts.model))
    sweeps = 3 if recomputes else 2
    cores = device.threads if device.kind == "cpu" else 1
    return sweeps * numbers * SPREADING_SECONDS[device.kind] / cores


def spreading_share(case: Case, shape: Shape) -> float:
    """The share by which a pass of this shape takes longer over a base in few bits."""
    if case.asked.engine == "peft":
        return PEFT_SPREADING
    return spreading_seconds(case, bool(shape.checkpointing)) / computing_seconds(case, shape)


def alone_share(case: Case, shape: Shape) -> float:
    """The share by which a search takes longer where its candidates train one after another."""
    trials = trainings_of_search(case)
    alone = forecast_time(case, trials=trials)
    packed = forecast_time(case, trials=trials, packed=shape.packed, token_budget=shape.token_budget)
    return max(0.0, alone.value / packed.value - 1)


def passes_of_all(case: Case, trials: float, packed: int, token_budget: int) -> float:
    """Passes through the model for one micro-step of every trial: as many candidates
    share one as its tokens allow."""
    rows = case.facts.data.sides * case.decided.micro_batch
    one = rows * min(case.facts.data.mean_length, case.decided.length)
    share = max(1, min(packed, trials, int(token_budget // max(1.0, one))))
    return trials / share


def held_out_tokens(data: DataFacts) -> float:
    """Validation tokens as rows are long: of a translation the longer of source and
    target, where the facts count both."""
    whole = data.sides * data.rows * data.mean_length
    return data.validation_tokens * whole / max(1, data.tokens)


def with_measured(
    forecast: Estimate, case: Case, tick_seconds: float, evaluation_seconds: float
) -> Estimate:
    """The forecast of a search with what was measured in place of products and layers.

    Args:
        tick_seconds: of one micro-step of every candidate in the pack.
        evaluation_seconds: of scoring the pack once on all validation rows.
    """
    parts = {
        "training": ticks_of_search(case) * tick_seconds,
        "layers": 0.0,
        "evaluation": packs_of_search(case) * EVALUATIONS * evaluation_seconds,
        # What is done once: it was not among the steps that were timed.
        **{
            name: forecast.parts[name]
            for name in ("startup", "ranks", "reference")
            if name in forecast.parts
        },
    }
    value = sum(parts.values())
    return Estimate(
        value=value, low=value * (1 - PROBED), high=value * (1 + PROBED), unit="seconds", parts=parts
    )


def seconds_at(tokens: float, ticks: Sequence[tuple[float, float]]) -> float:
    """Seconds of a tick of so many tokens, from the (tokens, seconds) of timed ones, by
    the line that fits them best.

    A few ticks may have drawn longer rows than a run has on average. More tokens take no less time,
    and a tick of none still takes some, so the line rises, and meets zero tokens at no less than zero
    seconds.
    """
    mean_tokens, mean_seconds = (fmean(column) for column in zip(*ticks, strict=True))
    spread = sum((one - mean_tokens) ** 2 for one, _ in ticks)
    together = sum((one - mean_tokens) * (seconds - mean_seconds) for one, seconds in ticks)
    slope = min(max(together / spread, 0.0), mean_seconds / mean_tokens) if spread else 0.0
    return mean_seconds + slope * (tokens - mean_tokens)


def ticks_of_search(case: Case) -> int:
    """Micro-steps of all packs, one after another."""
    micro = case.total_steps * case.decided.accumulation
    return micro * packs_of_search(case)


def packs_of_search(case: Case) -> int:
    """Packs that follow one on another, each trained to its end."""
    return math.ceil(trainings_of_search(case) / max(1, case.decided.max_packed))


def trainings_of_search(case: Case) -> float:
    """How many trainings from start to end a search and its races come to."""
    seeds = case.decided.seeds_for_finalists
    raced = len(case.asked.data.augment or ()) * seeds
    return trainings_of(case, case.decided.trials, seeds) + raced


def trainings_of(case: Case, trials: int, seeds: int) -> float:
    """The same for so many candidates and seeds of a finalist. Only a search that
    starts wide is sure to cut them short."""
    search = whole_trainings(trials) if is_wide(case.asked.search.pruner, trials) else float(trials)
    return search + race_runs(trials, seeds)


def operations_per_token(case: Case) -> float:
    """Floating-point operations of one training token: frozen products, attention, the
    head and the adapters."""
    model, data = case.facts.model, case.facts.data
    frozen = 6 if case.decided.checkpointing else 4
    length = min(data.mean_length, case.decided.length)
    attention = 2 * frozen * model.layers * model.hidden_size * length
    # A classifier's head is too small to count.
    logits = 0.0 if model.task == "seq_cls" else model.vocab_size * supervised_share(case)
    head = frozen * logits * model.hidden_size
    adapters = 6 * case.adapter_parameters
    return frozen * model.linear_parameters + attention + head + adapters
