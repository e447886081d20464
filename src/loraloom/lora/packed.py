"""Many adapters on one frozen model: each layer runs once, each candidate's rows get that candidate's delta.

`PackedModel` takes a loaded Hugging Face model, wraps the layers that any candidate targets, and hands out
adapters. `with packed.route(routing):` says whose rows are whose, for the forward *and* the backward pass: the
backward pass may run layers again (checkpointing), and a recomputation that lost its routing would give silent
zero gradients (huggingface/peft#2826). Without a route the wrapped layers refuse to run.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.lora.arena import BIAS_NAME, Arena, Entry
from loraloom.lora.frozen import frozen_kernel
from loraloom.lora.function import BASE, LayerWeights, PackedLinear, Routing, Segment
from loraloom.lora.layer import lora_scale
from loraloom.records import AdapterSpec

BATCH_COUPLED = (nn.modules.batchnorm._BatchNorm,)  # pyright: ignore[reportPrivateUsage]


class _Route:
    """The one mutable cell that all wrapped layers of a model share. Not thread-local: on CUDA the backward pass
    runs in another thread."""

    def __init__(self) -> None:
        self.current: Routing | None = None

    def get(self) -> Routing:
        if self.current is None:
            raise AssertionError("a packed layer was run outside `PackedModel.route`")
        return self.current


class PackedLoRALinear(nn.Module):
    """A frozen linear layer with any number of adapters, by slot. Slots that do not target it have no entry."""

    def __init__(self, base: nn.Module, route: _Route, anchor: Tensor, number: int) -> None:
        super().__init__()
        self.base = base
        self.slots: dict[str, LayerWeights] = {}
        self.number = number
        self._route = [route]
        self._anchor = [anchor]
        self._kernel = frozen_kernel(base)
        self.in_features, self.out_features = linear_shape(base)

    @property
    def weight(self) -> Tensor:
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.base, "bias", None)

    def forward(self, x: Tensor) -> Tensor:
        routing = self._route[0].get()
        if not any(segment.slot in self.slots for segment in routing.segments):
            return self.base(x)
        y_base = self.base(x) if self._kernel is None else None
        return PackedLinear.apply(x, y_base, self._anchor[0], self._kernel, routing, self.slots, self.number)  # type: ignore[return-value]


class PackedModule(nn.Module):
    """A module that every candidate trains whole, as its own copy (a classification head; `modules_to_save`).

    The input's first dimension is rows; each segment's rows go through its slot's copy. Rows of no slot, and the
    bare base, go through the original.
    """

    def __init__(self, base: nn.Module, route: _Route) -> None:
        super().__init__()
        self.base = base
        self.slots: dict[str, nn.Module] = {}
        self._route = [route]

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        segments = self._route[0].get().segments
        if not segments:
            return self.base(x, *args, **kwargs)
        parts = [self.slots.get(s.slot, self.base)(x[s.start : s.stop], *args, **kwargs) for s in segments]
        return torch.cat(parts)


class AdapterWeights:
    """One candidate's adapter in the pack: its arena, and what the layers see of it."""

    def __init__(self, slot: str, spec: AdapterSpec, arena: Arena) -> None:
        self.slot, self.spec, self.arena = slot, spec, arena
        self._copies: list[tuple[Tensor, Tensor]] = []

    def add_copy(self, copy_: Tensor, master: Tensor) -> None:
        self._copies.append((copy_, master))

    def refresh(self) -> None:
        """Bring the base-dtype copies up to the masters, after an optimiser step or a restore."""
        if self._copies:
            torch._foreach_copy_([c for c, _ in self._copies], [m for _, m in self._copies])  # pyright: ignore[reportPrivateUsage]

    def snapshot(self) -> Tensor:
        return self.arena.weights.clone()

    def restore(self, weights: Tensor) -> None:
        self.arena.weights.copy_(weights)
        self.refresh()

    def tensors(self, flat: Tensor | None = None) -> Iterator[tuple[Entry, Tensor]]:
        """Every tensor with its entry, of the present weights or of a snapshot."""
        source = self.arena.weights if flat is None else flat
        for entry in self.arena.entries:
            yield entry, self.arena._view(source, entry)  # pyright: ignore[reportPrivateUsage]


class PackedModel:
    """A frozen model that many adapters share.

    Args:
        model: any Hugging Face model; put into eval mode (base dropout off) and frozen.
        fresh_modules: paths of modules that the checkpoint did not carry (a new head): initialised anew for each
            adapter from its own seed.
        dtype: of the adapters' weights, gradients and moments; float32 unless the model is float64.

    Raises:
        ModelError: the model couples the rows of a batch (BatchNorm), so that packing would change the training.
    """

    def __init__(self, model: nn.Module, *, fresh_modules: tuple[str, ...] = (), dtype: torch.dtype | None = None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.fresh_modules = fresh_modules
        reference = next(model.parameters())
        self.device, self.base_dtype = reference.device, reference.dtype
        self.dtype = dtype or (torch.float64 if reference.dtype == torch.float64 else torch.float32)
        self.adapters: dict[str, AdapterWeights] = {}
        self._route = _Route()
        self._anchor = torch.zeros((), device=self.device, requires_grad=True)
        self._paths = {name: number for number, (name, _) in enumerate(model.named_modules())}
        self._wrapped: dict[str, PackedLoRALinear | PackedModule] = {}
        for name, module in model.named_modules():
            if isinstance(module, BATCH_COUPLED):
                raise ModelError(
                    f"layer `{name}` ({type(module).__name__}) mixes the rows of a batch",
                    need="a model whose rows do not see each other: a packed neighbour would change the result",
                    next="train one at a time with PEFT",
                )

    @contextmanager
    def route(self, routing: Routing) -> Iterator[nn.Module]:
        """Everything run inside, backward passes too, follows `routing`."""
        previous, self._route.current = self._route.current, routing
        try:
            yield self.model
        finally:
            self._route.current = previous

    @contextmanager
    def base_only(self) -> Iterator[nn.Module]:
        with self.route(BASE):
            yield self.model

    def add(self, slot: str, spec: AdapterSpec, seed: int) -> AdapterWeights:
        """Make an adapter, initialised as PEFT does, from `seed` alone: neighbours and slot numbers play no part.

        Raises:
            ModelError: an option that the packed layers do not have.
        """
        refuse_unsupported(spec)
        linears = {path: self._wrap_linear(path) for path in spec.target_modules}
        modules = {path: self._wrap_module(path) for path in spec.modules_to_save}
        entries: list[Entry] = []
        for path, layer in linears.items():
            r = spec.rank_pattern.get(path, spec.r)
            entries.append(Entry(path, "lora_A.weight", "lora_A", (r, layer.in_features)))
            entries.append(Entry(path, "lora_B.weight", "lora_B", (layer.out_features, r)))
            if spec.bias == "lora_only" and layer.bias is not None:
                entries.append(Entry(path, BIAS_NAME, "bias", (layer.out_features,)))
        for path, module in modules.items():
            for name, parameter in module.base.named_parameters():
                group = "bias" if name.endswith("bias") else "module"
                entries.append(Entry(path, name, group, tuple(parameter.shape)))
        adapter = AdapterWeights(slot, spec, Arena(entries, self.dtype, self.device))
        views = {entry.key: entry for entry in adapter.arena.entries}
        for path, layer in linears.items():
            self._connect_linear(adapter, path, layer, views, seed)
        for path, module in modules.items():
            self._connect_module(adapter, path, module, seed)
        self.adapters[slot] = adapter
        return adapter

    def remove(self, slot: str) -> None:
        """Take an adapter out; nothing of it stays behind."""
        for module in self._wrapped.values():
            module.slots.pop(slot, None)
        del self.adapters[slot]

    def _wrap_linear(self, path: str) -> PackedLoRALinear:
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            base = self.model.get_submodule(path)
            wrapped = PackedLoRALinear(base, self._route, self._anchor, self._paths[path])
            self._replace(path, wrapped)
        if not isinstance(wrapped, PackedLoRALinear):
            raise ModelError(f"`{path}` is in modules_to_save and a LoRA target at once", next="name it in one of the two")
        return wrapped

    def _wrap_module(self, path: str) -> PackedModule:
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            wrapped = PackedModule(self.model.get_submodule(path), self._route)
            self._replace(path, wrapped)
        if not isinstance(wrapped, PackedModule):
            raise ModelError(f"`{path}` is in modules_to_save and a LoRA target at once", next="name it in one of the two")
        return wrapped

    def _replace(self, path: str, wrapped: PackedLoRALinear | PackedModule) -> None:
        parent, _, name = path.rpartition(".")
        setattr(self.model.get_submodule(parent) if parent else self.model, name, wrapped)
        self._wrapped[path] = wrapped

    def _connect_linear(
        self, adapter: AdapterWeights, path: str, layer: PackedLoRALinear, views: Mapping[str, Entry], seed: int
    ) -> None:
        spec, arena = adapter.spec, adapter.arena
        entry_a, entry_b = views[f"{path}.lora_A.weight"], views[f"{path}.lora_B.weight"]
        r = entry_a.shape[0]
        init_a(arena.weight(entry_a), spec.init_lora_weights, named_seed(seed, path))
        bias = views.get(f"{path}.{BIAS_NAME}")
        layer.slots[adapter.slot] = LayerWeights(
            a_RD=self._seen(adapter, arena.weight(entry_a)),
            b_OR=self._seen(adapter, arena.weight(entry_b)),
            grad_a_RD=arena.grad(entry_a),
            grad_b_OR=arena.grad(entry_b),
            scale=lora_scale(spec.alpha_pattern.get(path, spec.lora_alpha), r, spec.use_rslora),
            dropout=spec.lora_dropout,
            bias_O=None if bias is None else self._seen(adapter, arena.weight(bias)),
            grad_bias_O=None if bias is None else arena.grad(bias),
        )

    def _connect_module(self, adapter: AdapterWeights, path: str, module: PackedModule, seed: int) -> None:
        own = copy.deepcopy(module.base)
        if path in self.fresh_modules:
            reinitialise(self.model, own, named_seed(seed, path))
        entries = {entry.name: entry for entry in adapter.arena.entries if entry.path == path}
        for name, parameter in list(own.named_parameters()):
            entry = entries[name]
            view = adapter.arena.weight(entry)
            view.copy_(parameter.detach())
            parent, _, leaf = name.rpartition(".")
            owner = own.get_submodule(parent) if parent else own
            trained = nn.Parameter(view)
            trained.grad = adapter.arena.grad(entry)
            owner._parameters[leaf] = trained  # pyright: ignore[reportPrivateUsage]
        module.slots[adapter.slot] = own if self.dtype == self.base_dtype else _InOwnDtype(own, self.dtype)

    def _seen(self, adapter: AdapterWeights, master: Tensor) -> Tensor:
        """What the layer multiplies with: the master itself, or a copy in the base's dtype kept up by `refresh`."""
        if self.dtype == self.base_dtype:
            return master
        seen = master.to(self.base_dtype)
        adapter.add_copy(seen, master)
        return seen


class _InOwnDtype(nn.Module):
    """A module kept in float32 under a bfloat16 base."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.module(x.to(self.dtype), *args, **kwargs)


def linear_shape(layer: nn.Module) -> tuple[int, int]:
    """(features in, features out) of a linear layer; transformers' Conv1D keeps its weight transposed."""
    if hasattr(layer, "in_features"):
        return int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        d, o = layer.weight.shape  # type: ignore[union-attr]
        return int(d), int(o)
    raise ModelError(f"LoRA on a {type(layer).__name__} is not known", need="a linear layer or GPT-2's Conv1D")


def named_seed(seed: int, path: str) -> int:
    """A seed for one module of one candidate."""
    return (seed * 0x1_0000_0001 + zlib.crc32(path.encode())) & 0x7FFF_FFFF_FFFF_FFFF


def init_a(a_RD: Tensor, how: bool | str, seed: int) -> None:
    """Fill A as `peft.LoraConfig.init_lora_weights` names it: True is Kaiming-uniform with a = sqrt(5), "gaussian" is
    normal with standard deviation 1 / r. Drawn on the CPU in float32, so that every device and dtype starts alike."""
    drawn = torch.empty(a_RD.shape, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    if how == "gaussian":
        drawn.normal_(0.0, 1.0 / a_RD.shape[0], generator=generator)
    else:
        bound = math.sqrt(1.0 / a_RD.shape[1])
        drawn.uniform_(-bound, bound, generator=generator)
    a_RD.copy_(drawn)


def reinitialise(model: nn.Module, module: nn.Module, seed: int) -> None:
    """Start a head anew, as the model's own class starts it, from `seed`."""
    init = getattr(model, "_init_weights", None)
    if init is None:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]
            init(part)


def refuse_unsupported(spec: AdapterSpec) -> None:
    """Options that would silently be something else in a pack are refused by name."""
    if spec.use_dora:
        raise ModelError(
            "`adapter.use_dora` is not packed yet", next="leave it false: DoRA measured 46.9 against 47.8, at +26% time (PEFT)"
        )
    if spec.bias == "all":
        raise ModelError("`adapter.bias: all` is not packed yet", next="use `none` or `lora_only`")
    if spec.init_lora_weights not in (True, "gaussian"):
        raise ModelError(
            f"`adapter.init_lora_weights: {spec.init_lora_weights}` is not packed yet",
            need="true or gaussian",
            next="leave it true: nine variants land within 1-2% once the rate is tuned (arXiv:2602.04998)",
        )


__all__ = ["BASE", "AdapterWeights", "PackedLoRALinear", "PackedModel", "PackedModule", "Routing", "Segment", "linear_shape"]
