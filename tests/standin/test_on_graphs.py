"""Passes that are recorded as CUDA graphs train as passes that are not.

`recorded` does to them what CUDA does: addresses and numbers of the host stay what they were, and
nothing that makes the host wait is let through.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny
import torch
from engine import attention, candidate, largest_difference, linears, rows_for, trainer, weights_of
from recorded import CaptureError, Graph, Recorder, recorded
from stand_in import StandIn

from loraloom.evals.objective import CausalObjective
from loraloom.lora.packed_layer import PackedLinear
from loraloom.records import Candidate
from loraloom.train import cuda_graph
from loraloom.train.fast_path import unused
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

CLOSE = 1e-12
"""Relative difference of weights in float64."""
LATE = 3
"""Ticks before the last candidates join."""
ALIKE_LONG = {"llama": 5, "bert": 5, "t5": 4}
"""Rows of one length, so that passes repeat from the start."""


@pytest.fixture
def recorder(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setattr(cuda_graph, "SEEN", 2)  # the stand-in is slow
    with recorded(cuda) as found:
        yield found


def engine_of(
    family: str,
    *,
    graphs: bool,
    dtype: torch.dtype = torch.float64,
    longest: int | None = None,
    **more: Any,
) -> PackTrainer:
    chosen = tiny.FAMILIES[family]
    rows = rows_for(family, count=48, longest=longest or ALIKE_LONG[family])
    model = tiny.model_of(family, dtype).to("cuda")
    return trainer(
        model, rows, chosen.task, validation=rows[:4], fresh_modules=chosen.heads, graphs=graphs, **more
    )


def mixed(family: str, model: Any) -> list[Candidate]:
    """Candidates of different kinds; the last ones join later."""
    heads = tiny.FAMILIES[family].heads
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"evaluations": 2, "max_steps": 10},
        "ranks": {
            "r": 3,
            "rank_pattern": {linears(model)[0]: 6},
            "per_device_train_batch_size": 1,
            "max_steps": 7,
        },
        "some": {"targets": attention(model), "optim": "sgd", "bias": "all", "max_steps": 10},
        "slow": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1, "max_steps": 5},
        "dora": {"use_dora": True, "max_steps": 7},
        "pissa": {"init_lora_weights": "pissa", "max_steps": 7},
    }
    return [candidate(name, model, heads=heads, **values) for name, values in kinds.items()]


def finish(
    engine: PackTrainer, late: list[Candidate], *, tick: Callable[[int], object] = lambda n: None
) -> dict[str, Seat]:
    """Train to the end, with candidates that join late."""
    done: dict[str, Seat] = {}
    for number in itertools.count():
        if number == LATE:
            for one in late:
                engine.join(one)
        tick(number)
        engine.tick()
        engine.evaluate(engine.due())
        done |= {name: engine.leave(name) for name in engine.finished()}
        if not engine.seats and number > LATE:
            return done
    raise AssertionError


def trained(engine: PackTrainer, chosen: list[Candidate], **more: Any) -> dict[str, Seat]:
    for one in chosen[:-2]:
        engine.join(one)
    return finish(engine, chosen[-2:], **more)


def furthest(there: dict[str, Seat], here: dict[str, Seat]) -> float:
    assert set(there) == set(here)
    return max(
        largest_difference(weights_of(there[name]).cpu(), weights_of(seat).cpu())
        for name, seat in here.items()
    )


@pytest.mark.parametrize(
    ("family", "checkpointing"),
    [("llama", False), ("llama", True), ("bert", False), ("bert", True), ("t5", False)],
)
def test_graphs_train_as_passes_that_are_asked_for_one_by_one(
    family: str, checkpointing: bool, recorder: Recorder
) -> None:
    found: dict[bool, dict[str, Seat]] = {}
    for graphs in (False, True):
        engine = engine_of(family, graphs=graphs, checkpointing=checkpointing)
        found[graphs] = trained(engine, mixed(family, engine.packed.model))
    assert engine.graphs is not None and engine.graphs.replays >= 3 and not engine.graphs.refused
    assert sum(graph.replays for graph in recorder.graphs) == engine.graphs.replays
    assert furthest(found[True], found[False]) < CLOSE
    for name, seat in found[False].items():
        assert found[True][name].signals.trace.norms == pytest.approx(seat.signals.trace.norms, rel=1e-9)
        assert found[True][name].tokens == seat.tokens


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_rows_of_many_lengths_share_graphs(
    family: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "TARGET_STEPS", 1)
    found: dict[bool, dict[str, Seat]] = {}
    for graphs in (False, True):
        engine = engine_of(family, graphs=graphs, longest=14)
        own, heads = engine.packed.model, tiny.FAMILIES[family].heads
        chosen = [
            candidate(f"c{n}", own, heads=heads, seed=n, max_steps=9, per_device_train_batch_size=4)
            for n in range(3)
        ]
        found[graphs] = trained(engine, chosen)
    assert engine.graphs is not None and engine.graphs.recorded > 1 and engine.graphs.replays
    assert furthest(found[True], found[False]) < CLOSE


def test_attention_of_a_decoder_is_recorded_without_a_mask(recorder: Recorder) -> None:
    """As it is when it is not recorded: what is fastest takes none."""
    engine = engine_of("llama", graphs=True)
    chosen, masks = alike(engine), []
    for layer in engine.packed.model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _module, _args, kwargs: masks.append(
                (recorder.open is not None, kwargs["attention_mask"])
            ),
            with_kwargs=True,
        )
    trained(engine, chosen)
    assert {True, False} == {recording for recording, _ in masks} and all(
        mask is None for _, mask in masks
    )


def test_few_graphs_are_kept(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MOST", 1)
    found: dict[bool, dict[str, Seat]] = {}
    for graphs in (False, True):
        engine = engine_of("bert", graphs=graphs, longest=14)
        own = engine.packed.model
        chosen = [candidate(f"c{n}", own, heads=("classifier",), seed=n, max_steps=6) for n in range(3)]
        found[graphs] = trained(engine, chosen)
        assert engine.graphs is None or len(engine.graphs._graphs) <= 1
    assert engine.graphs is not None and engine.graphs.recorded > 1
    assert furthest(found[True], found[False]) < CLOSE


def test_a_candidate_that_is_not_finite_leaves_its_neighbours(recorder: Recorder) -> None:
    def broken(engine: PackTrainer) -> Callable[[int], None]:
        def tick(number: int) -> None:
            if number == 2:  # the first that is replayed
                engine.seats["c0"].adapter.arena.weights.fill_(torch.nan)
                engine.seats["c0"].adapter.refresh()

        return tick

    found: dict[bool, dict[str, Seat]] = {}
    for graphs in (False, True):
        engine = engine_of("llama", graphs=graphs)
        found[graphs] = trained(engine, alike(engine), tick=broken(engine))
    assert engine.graphs is not None and engine.graphs.replays
    assert found[True].pop("c0").nonfinite == found[False].pop("c0").nonfinite > 0
    assert furthest(found[True], found[False]) < CLOSE


def test_a_run_goes_on_from_a_checkpoint(recorder: Recorder) -> None:
    def chosen(engine: PackTrainer) -> list[Candidate]:
        return [
            candidate(f"c{n}", engine.packed.model, seed=n, gradient_accumulation_steps=2, max_steps=5)
            for n in range(3)
        ]

    plain, begun, resumed = (engine_of("llama", graphs=graphs) for graphs in (False, True, True))
    here = trained(plain, chosen(plain))
    first, *late = chosen(begun)
    begun.join(first)
    for _ in range(LATE):
        begun.tick()
    assert begun.graphs is not None and begun.graphs.recorded
    resumed.load_state_dict(begun.state_dict())
    done: dict[str, Seat] = {}
    for one in late:
        resumed.join(one)
    while resumed.seats:
        resumed.tick()
        done |= {name: resumed.leave(name) for name in resumed.finished()}
    assert resumed.graphs is not None and resumed.graphs.replays
    assert furthest(done, here) < CLOSE


# -- what cannot be recorded
# -----------------------------------------------------------------------------------------


def alike(engine: PackTrainer, **values: Any) -> list[Candidate]:
    return [candidate(f"c{n}", engine.packed.model, seed=n, max_steps=5, **values) for n in range(4)]


def test_a_pass_that_reads_on_the_host_is_run_as_before(recorder: Recorder) -> None:
    found: dict[bool, dict[str, Seat]] = {}
    for graphs in (False, True):
        engine = engine_of("llama", graphs=graphs)
        chosen = alike(engine)
        engine.packed.model.get_input_embeddings().register_forward_hook(
            lambda _module, _inputs, y: y if y.sum() > 0 else 2 * y
        )
        found[graphs] = trained(engine, chosen)
    assert engine.graphs is not None and not engine.graphs.recorded and not recorder.graphs
    assert "not permitted when stream is capturing" in next(iter(engine.graphs.refused.values()))
    assert furthest(found[True], found[False]) == 0


def test_a_backward_pass_that_reads_on_the_host_is_run_as_before(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some gradients are there by then: none is counted twice."""
    backward = PackedLinear.backward

    def looks(ctx: Any, *grads: Any) -> Any:
        found = backward(ctx, *grads)
        assert grads[0].isfinite().all()
        return found

    monkeypatch.setattr(PackedLinear, "backward", staticmethod(looks))
    found = {}
    for graphs in (False, True):
        engine = engine_of("llama", graphs=graphs)
        found[graphs] = trained(engine, alike(engine))
    assert engine.graphs is not None and engine.graphs.refused and not engine.graphs.recorded
    assert furthest(found[True], found[False]) == 0


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"lora_dropout": 0.2}, "the seed of a candidate's dropout"), ({"neftune_noise_alpha": 5.0}, None)],
    ids=["masks drawn by plain torch", "noise of the host"],
)
def test_what_the_host_draws_is_not_recorded(
    values: dict[str, Any], reason: str | None, recorder: Recorder
) -> None:
    found = {}
    for graphs in (False, True):
        engine = engine_of("llama", graphs=graphs)
        found[graphs] = trained(engine, alike(engine, **values))
    assert engine.graphs is not None and not engine.graphs.recorded
    assert reason is None or all(reason in why for why in engine.graphs.refused.values())
    assert furthest(found[True], found[False]) == 0


def test_a_graph_that_cannot_be_recorded_stops_it_all(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", full)
    found = {}
    for graphs in (False, True):
        engine = engine_of("llama", graphs=graphs)
        found[graphs] = trained(engine, alike(engine))
    assert (
        engine.graphs is not None
        and engine.graphs.stopped == "CUDA out of memory. Tried to allocate 2 GiB"
    )
    assert f"no more CUDA graphs are recorded: {engine.graphs.stopped}" in unused(
        engine.packed, engine.graphs
    )
    assert furthest(found[True], found[False]) < CLOSE


def test_a_number_of_the_host_that_changes_would_be_noticed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These tests can fail: a graph keeps the number that it was recorded with."""
    count, rows = itertools.count(1), CausalObjective.rows

    def planted(self: Any, *args: Any) -> Any:
        found = rows(self, *args)
        found.loss = found.loss * next(count) if torch.is_grad_enabled() else found.loss
        return found

    found = {}
    for graphs in (False, True):
        count = itertools.count(1)
        monkeypatch.setattr(CausalObjective, "rows", planted)
        engine = engine_of("llama", graphs=graphs)
        found[graphs] = trained(engine, alike(engine, optim="sgd", max_grad_norm=0.0))
    assert engine.graphs is not None and engine.graphs.replays
    assert furthest(found[True], found[False]) > 1e-6


# -- with the kernels
# ------------------------------------------------------------------------------------------------


def by_kernels(monkeypatch: pytest.MonkeyPatch) -> tuple[PackTrainer, dict[str, Seat], dict[str, Seat]]:
    """Candidates of different dropouts, ranks and targets, by graphs and without; the
    interpreter is slow: one layer."""
    pytest.importorskip("triton", reason="needs Triton: pip install loraloom[gpu], on Linux")
    monkeypatch.setitem(tiny.LLAMA_LIKE, "num_hidden_layers", 1)
    found = {}
    for graphs in (False, True):
        engine = engine_of("llama", graphs=graphs, dtype=torch.float32)
        assert engine.packed.kernels
        own = engine.packed.model
        kinds: list[dict[str, Any]] = [
            {"lora_dropout": 0.3},
            {"r": 2, "lora_dropout": 0.1},
            {"targets": attention(own), "bias": "lora_only"},
            {},
        ]
        same = {"per_device_train_batch_size": 1, "max_steps": 5}
        for one in [candidate(f"c{n}", own, seed=n, **same, **values) for n, values in enumerate(kinds)]:
            engine.join(one)
        done: dict[str, Seat] = {}
        while engine.seats:
            engine.tick()
            done |= {name: engine.leave(name) for name in engine.finished()}
        found[graphs] = done
    return engine, found[True], found[False]


def test_dropout_is_drawn_anew_by_the_kernels_of_a_graph(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, there, here = by_kernels(monkeypatch)
    assert engine.graphs is not None and engine.graphs.replays >= 3 and not engine.graphs.refused
    assert furthest(there, here) < 1e-5


def test_seeds_that_are_not_sent_anew_would_be_noticed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = cuda_graph.Block.fill

    def forgetful(self: Any, tensors: dict[str, Any]) -> None:
        self.first = getattr(self, "first", tensors)
        fill(
            self,
            tensors | {name: table for name, table in self.first.items() if name.startswith("spans")},
        )

    monkeypatch.setattr(cuda_graph.Block, "fill", forgetful)
    _, there, here = by_kernels(monkeypatch)
    assert furthest(there, here) > 1e-4


# -- lengths
# -------------------------------------------------------------------------------------------------------


def test_lengths_that_rows_are_padded_to_are_few_and_never_beyond_the_longest() -> None:
    padded = [cuda_graph.padded_length(length, 300) for length in range(1, 301)]
    assert all(length <= wide <= 300 for length, wide in enumerate(padded, 1))
    assert sorted(set(padded)) == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 300]


# -- the stand-in for CUDA
# -------------------------------------------------------------------------------------------


def test_a_recording_computes_nothing_and_a_replay_does_it_all_again(recorder: Recorder) -> None:
    x, total, graph = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda"), Graph()
    with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
        y = x * 2
        total.add_(y)
    assert not total.any()
    x.fill_(5.0)
    graph.replay()
    graph.replay()
    assert y.tolist() == [10, 10, 10] and total.tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x.new_tensor([1.0]),
    ],
)
def test_nothing_that_waits_is_recorded(read: Callable[[Any], object], recorder: Recorder) -> None:
    x = torch.ones(3, device="cuda")
    with pytest.raises(CaptureError), torch.cuda.graph(Graph(), stream=torch.cuda.Stream()):
        read(x)
