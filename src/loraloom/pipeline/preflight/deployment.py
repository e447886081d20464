"""Will the place that the adapter is meant for take it as it was trained? One function a target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from loraloom.config import names
from loraloom.facts.meta_model import build_on_meta
from loraloom.lora.init import LOFTQ, moves_base
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.planner import candidate
from loraloom.records import AdapterSpec
from loraloom.report.commands import SERVED_RANKS

NAME = "deployment"


@dataclass(frozen=True)
class Fault:
    """One reason why the target refuses the adapter, or would compute something else with it."""

    what: str
    number: str
    cause: str
    command: str
    level: str = "fail"


@dataclass(frozen=True)
class Adapter:
    """The adapter as it would be saved."""

    subject: Subject
    spec: AdapterSpec
    ranks: tuple[int, ...]
    """Every rank that it may have on disk, smallest first: of the plan, of its
    patterns, of the space that is searched."""


def inspect(subject: Subject) -> CheckResult:
    """Fails where the declared `deploy.target` would refuse the adapter or compute something else."""
    target = subject.config.deploy.target
    if target is None:
        return CheckResult(NAME, "skipped", "no `deploy.target` was declared")
    find, use = TARGETS[target]
    adapter = _adapter(subject)
    faults = sorted(find(adapter), key=lambda fault: fault.level != "fail")
    if not faults:
        return CheckResult(
            NAME, "ok", f"{target} takes this adapter", number=_ranks(adapter), command=use(adapter)
        )
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return CheckResult(
        NAME,
        "fail" if first.level == "fail" else "warn",
        f"{first.what}{more}",
        number="; ".join(fault.number for fault in faults),
        cause="; ".join(fault.cause for fault in faults),
        command=" ".join(dict.fromkeys(fault.command for fault in faults)),
    )


def _vllm(adapter: Adapter) -> Iterator[Fault]:
    yield from _extras(adapter, "vLLM")
    yield from _another_base(adapter, "served over the full ones")
    for rank in adapter.ranks:
        if rank not in SERVED_RANKS:
            near = max((size for size in SERVED_RANKS if size <= rank), default=SERVED_RANKS[0])
            yield Fault(
                f"vLLM has no rank {rank}",
                f"r = {rank}; its ranks are {', '.join(map(str, SERVED_RANKS))}",
                (
                    "--max-lora-rank takes these sizes alone: in between, every adapter is held and"
                    " computed at the next larger one"
                    if rank < SERVED_RANKS[-1]
                    else "it refuses larger adapters"
                ),
                f"--r {near // _saved_times(adapter.spec)}",
            )
    for name in ("rank_pattern", "alpha_pattern"):
        if getattr(adapter.spec, name):
            yield _one_scale("vLLM", name)


def _gguf(adapter: Adapter) -> Iterator[Fault]:
    """llama.cpp, and ollama on top of it: one `adapter.lora.alpha` a file, each layer
    scaled by alpha / its rank."""
    yield from _extras(adapter, "GGUF")
    yield from _another_base(adapter, "served over a GGUF file made of the full ones")
    spec = adapter.spec
    if spec.use_rslora:
        scale = spec.lora_alpha / math.sqrt(spec.r)
        alpha = spec.lora_alpha * math.sqrt(spec.r)
        yield Fault(
            "a GGUF adapter does not know rsLoRA: it would be scaled by alpha / r",
            f"alpha / sqrt(r) = {scale:g} in training, alpha / r = {spec.lora_alpha / spec.r:g} there",
            "the file keeps alpha alone; the same scale can be had without rsLoRA",
            f"--set adapter.use_rslora=false --alpha {alpha:g}",
        )
    if spec.alpha_pattern:
        yield _one_scale("a GGUF adapter", "alpha_pattern")


def _merged(adapter: Adapter) -> Iterator[Fault]:
    model = adapter.subject.facts.model
    if model.prequantized:
        yield Fault(
            "the base is quantised: an adapter cannot be merged into it without loss",
            f"the weights are stored in {model.prequantized}",
            "merging rounds the sum to the same few levels again, and most of the adapter is lost",
            "--model THE_ORIGINAL of this checkpoint",
        )
    yield from _another_base(adapter, "merged into the full ones")
    touched = _tied_modules(adapter)
    if touched:
        yield Fault(
            f"embedding and output layer share one weight, and {touched[0]} would be trained apart",
            f"{len(touched)} of the tied modules",
            "after the merge the two differ and the config still says that they are one: the next load"
            " drops one of them",
            f"take {touched[0]} out of adapter.modules_to_save",
        )


def _another_base(adapter: Adapter, then: str) -> Iterator[Fault]:
    """Training over few bits, use over the full weights.

    Args:
        then: what becomes of the adapter: "merged into the full ones".
    """
    kind = adapter.subject.plan.settings.quantization
    if kind == "none":
        return
    if adapter.spec.init_lora_weights == LOFTQ:
        yield Fault(
            f"LoftQ's adapter holds what {kind} lost, and would be {then}: that part comes twice",
            f"model.quantization: {kind}, adapter.init_lora_weights: {LOFTQ}",
            "it starts as the difference between the full weights and the quantised ones, and is right"
            " over these alone",
            "--set adapter.init_lora_weights=true",
        )
        return
    yield Fault(
        f"the adapter is trained over {kind} weights and {then}",
        f"model.quantization: {kind}",
        "it has learnt to make up for the rounding, which is gone there: outputs shift a little",
        f"--set {names.QUANTIZATION}=none where memory allows, or evaluate it over both first",
        level="warn",
    )


def _extras(adapter: Adapter, place: str) -> Iterator[Fault]:
    """What no server's adapter format has."""
    spec = adapter.spec
    if spec.use_dora:
        yield Fault(
            f"{place} does not take DoRA",
            "adapter.use_dora: true",
            "its magnitudes have no place in a plain adapter",
            "--set adapter.use_dora=false",
        )
    if spec.bias != "none":
        yield Fault(
            f"{place} does not take trained biases",
            f"adapter.bias: {spec.bias}",
            "only A and B are read",
            "--set adapter.bias=none",
        )
    if spec.modules_to_save:
        head = adapter.subject.facts.data.task == "seq_cls"
        yield Fault(
            f"{place} does not take modules that are trained whole",
            f"adapter.modules_to_save: {', '.join(spec.modules_to_save)}",
            "a classifier's head is one" if head else "only A and B are read",
            "--set deploy.target=merged" if head else "--set adapter.modules_to_save=[]",
        )


def _one_scale(place: str, name: str) -> Fault:
    return Fault(
        f"{place} has one scale for all layers",
        f"adapter.{name} is set",
        "layers named there would be scaled otherwise than they were trained",
        f"--set adapter.{name}={{}}",
    )


def _tied_modules(adapter: Adapter) -> list[str]:
    model = adapter.subject.facts.model
    if not model.tied_embeddings or model.config is None or not adapter.spec.modules_to_save:
        return []
    built = cast(Any, build_on_meta(model.config, model.task))
    shared = {
        id(module)
        for module in (built.get_input_embeddings(), built.get_output_embeddings())
        if module is not None
    }
    return [path for path in adapter.spec.modules_to_save if id(built.get_submodule(path)) in shared]


def _adapter(subject: Subject) -> Adapter:
    spec = candidate(subject.plan, "check", {}).adapter
    asked = subject.config.search.space
    searched: Any = asked.get(names.R, ()) if isinstance(asked, dict) else ()
    ranks = {spec.r, *spec.rank_pattern.values(), *(searched if isinstance(searched, list) else ())}
    return Adapter(subject, spec, tuple(sorted(rank * _saved_times(spec) for rank in ranks)))


def _saved_times(spec: AdapterSpec) -> int:
    """PiSSA and OLoRA are saved as plain LoRA of twice the rank."""
    return 2 if moves_base(spec.init_lora_weights) else 1


def _ranks(adapter: Adapter) -> str:
    return f"rank {', '.join(map(str, adapter.ranks))}"


def _serve_vllm(adapter: Adapter) -> str:
    return (
        f"vllm serve {_base(adapter)} --enable-lora --max-lora-rank {adapter.ranks[-1]} --lora-modules"
        " NAME=runs/NAME/best"
    )


def _serve_llama(adapter: Adapter) -> str:
    return (
        f"python convert_lora_to_gguf.py --base {_base(adapter)} --outfile adapter.gguf runs/NAME/best,"
        " then --lora adapter.gguf"
    )


def _serve_ollama(adapter: Adapter) -> str:
    return (
        f"{_serve_llama(adapter).partition(', then')[0]}, and a Modelfile of two lines: FROM base.gguf,"
        " ADAPTER adapter.gguf"
    )


def _use_merged(adapter: Adapter) -> str:
    return f"loraloom adapter merge runs/NAME/best --model {_base(adapter)} --out FOLDER"


def _base(adapter: Adapter) -> str:
    return adapter.subject.facts.model.name_or_path


Find = Callable[[Adapter], Iterator[Fault]]
Use = Callable[[Adapter], str]

TARGETS: Mapping[str, tuple[Find, Use]] = {
    "vllm": (_vllm, _serve_vllm),
    "llama.cpp": (_gguf, _serve_llama),
    "ollama": (_gguf, _serve_ollama),
    "merged": (_merged, _use_merged),
}
