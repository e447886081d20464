"""Will the place that the adapter is meant for take it as it was trained? One function a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloom.adapters.gguf.families import FAMILIES
from loraloom.config import names
from loraloom.config.servers import VLLM_HEADS, VLLM_RANKS, vllm_rank
from loraloom.lora.init import LOFTQ, moves_base
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.planner import candidate
from loraloom.records import AdapterSpec, built_as

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
    """Every largest rank that it may have on disk, smallest first: the plan's, and those
    of the space that is searched."""


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
    """A PEFT folder; patterns, rsLoRA and heads that it knows by name are served as they are."""
    yield from _extras(adapter, "vLLM", heads=VLLM_HEADS)
    yield from _another_base(adapter, "served over the full ones")
    for rank in adapter.ranks:
        served = vllm_rank(rank)
        if served is None:
            yield Fault(
                f"vLLM has no rank {rank}",
                f"r = {rank}; its ranks are {', '.join(map(str, VLLM_RANKS))}",
                "it refuses larger adapters",
                f"--r {VLLM_RANKS[-1] // _saved_times(adapter.spec)}",
            )
        elif served != rank:
            near = max(size for size in VLLM_RANKS if size <= rank)
            yield Fault(
                f"vLLM holds and computes rank {rank} as rank {served}",
                f"r = {rank}; its ranks are {', '.join(map(str, VLLM_RANKS))}",
                "--max-lora-rank takes these sizes alone: in between, the next larger one",
                f"--r {near // _saved_times(adapter.spec) or 1}",
                level="warn",
            )


def _sglang(adapter: Adapter) -> Iterator[Fault]:
    """A PEFT folder whose B has taken every scale on: the server scales by alpha / r alone."""
    yield from _extras(adapter, "SGLang")
    yield from _another_base(adapter, "served over the full ones")
    yield from _no_classes(adapter, "SGLang serves adapters of language models")


def _mlx(adapter: Adapter) -> Iterator[Fault]:
    """mlx-lm's own format: A and B (and DoRA's magnitudes), with 1 as the scale of all layers."""
    yield from _extras(adapter, "mlx-lm", dora=True)
    yield from _another_base(adapter, "used over the full ones")
    yield from _no_classes(adapter, "mlx-lm knows language models")


def _gguf(adapter: Adapter) -> Iterator[Fault]:
    """llama.cpp, and Ollama on top of it: a merged file, which holds whatever was trained."""
    yield from _prequantized(adapter)
    yield from _another_base(adapter, "served over a GGUF file made of the full ones")
    yield from _no_classes(adapter, "a GGUF file is written of a language model")
    model = adapter.subject.facts.model
    if built_as(adapter.subject.facts.data.task) == "causal_lm" and model.architecture not in FAMILIES:
        yield Fault(
            f"{model.architecture} is no family whose GGUF file is written here",
            f"one of {', '.join(sorted(FAMILIES))}",
            "llama.cpp calls and orders the weights of each family in its own way",
            "LLAMA_CPP=FOLDER with a checkout of llama.cpp, whose own converter is used then",
            level="warn",
        )


def _merged(adapter: Adapter) -> Iterator[Fault]:
    yield from _prequantized(adapter)
    yield from _another_base(adapter, "merged into the full ones")


def _prequantized(adapter: Adapter) -> Iterator[Fault]:
    model = adapter.subject.facts.model
    if model.prequantized:
        yield Fault(
            "the base is quantised: an adapter cannot be merged into it without loss",
            f"the weights are stored in {model.prequantized}",
            "merging rounds the sum to the same few levels again, and most of the adapter is lost",
            "--model THE_ORIGINAL of this checkpoint",
        )


def _no_classes(adapter: Adapter, because: str) -> Iterator[Fault]:
    task = adapter.subject.facts.data.task
    if built_as(task) != "causal_lm":
        yield Fault(
            f"{because}, and this is trained for {task}",
            f"task: {task}",
            "what it would be served with has no place for this model's output",
            "--set deploy.target=merged",
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


def _extras(
    adapter: Adapter, place: str, *, heads: Sequence[str] = (), dora: bool = False
) -> Iterator[Fault]:
    """What a server's adapter format has no place for.

    Args:
        heads: last names of modules trained whole that it takes.
        dora: whether it takes DoRA's magnitudes.
    """
    spec = adapter.spec
    if spec.use_dora and not dora:
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
    whole = [path for path in spec.modules_to_save if path.rpartition(".")[2] not in heads]
    if whole:
        head = built_as(adapter.subject.facts.data.task) == "seq_cls"
        yield Fault(
            f"{place} does not take modules that are trained whole",
            f"adapter.modules_to_save: {', '.join(whole)}",
            "a classifier's head is one" if head else "only A and B are read",
            "--set deploy.target=merged" if head else "--set adapter.modules_to_save=[]",
        )


def _adapter(subject: Subject) -> Adapter:
    spec = candidate(subject.plan, "check", {}).adapter
    asked = subject.config.search.space
    searched: Any = asked.get(names.R, ()) if isinstance(asked, dict) else ()
    # A server makes room for the largest rank of an adapter in all of its layers.
    largest = max(spec.rank_pattern.get(path, spec.r) for path in spec.target_modules)
    ranks = {largest, *(searched if isinstance(searched, list) else ())}
    return Adapter(subject, spec, tuple(sorted(rank * _saved_times(spec) for rank in ranks)))


def _saved_times(spec: AdapterSpec) -> int:
    """PiSSA and OLoRA are saved as plain LoRA of twice the rank."""
    return 2 if moves_base(spec.init_lora_weights) else 1


def _ranks(adapter: Adapter) -> str:
    return f"rank {', '.join(map(str, adapter.ranks))}"


def _serve_vllm(adapter: Adapter) -> str:
    classes = built_as(adapter.subject.facts.data.task) == "seq_cls"
    return (
        f"vllm serve {_base(adapter)}{' --runner pooling --convert classify' if classes else ''}"
        f" --enable-lora --max-lora-rank {vllm_rank(adapter.ranks[-1])} --lora-modules"
        " NAME=runs/NAME/best"
    )


def _ship_sglang(adapter: Adapter) -> str:
    return "loraloom ship runs/NAME --to sglang"


def _ship_mlx(adapter: Adapter) -> str:
    return "loraloom ship runs/NAME --to mlx"


def _ship_llama(adapter: Adapter) -> str:
    return "loraloom ship runs/NAME --to gguf:Q4_K_M"


def _ship_ollama(adapter: Adapter) -> str:
    return "loraloom ship runs/NAME --to ollama: a folder with a GGUF file and its Modelfile"


def _use_merged(adapter: Adapter) -> str:
    return f"loraloom adapter merge runs/NAME/best --model {_base(adapter)} --out FOLDER"


def _base(adapter: Adapter) -> str:
    return adapter.subject.facts.model.name_or_path


Find = Callable[[Adapter], Iterator[Fault]]
Use = Callable[[Adapter], str]

TARGETS: Mapping[str, tuple[Find, Use]] = {
    "vllm": (_vllm, _serve_vllm),
    "sglang": (_sglang, _ship_sglang),
    "llama.cpp": (_gguf, _ship_llama),
    "ollama": (_gguf, _ship_ollama),
    "mlx": (_mlx, _ship_mlx),
    "merged": (_merged, _use_merged),
}
