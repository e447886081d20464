"""Many adapters on one frozen model: each layer runs once, each candidate's rows get
that candidate's delta.

`PackedModel` takes a loaded Hugging Face model, wraps the layers that any candidate touches, and hands
out adapters. `with packed.route(routing):` says whose rows are whose, for the forward *and* the backward
pass: the backward pass may run layers again (checkpointing), and a recomputation that lost its routing
would give silent zero gradients (huggingface/peft#2826). Without a route the wrapped layers refuse to
run.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.lora.arena import BIAS_NAME, Arena, Entry
from loraloom.lora.attention import use_row_attention
from loraloom.lora.checkpointing import checkpoint_blocks
from loraloom.lora.deltas import LayerWeights
from loraloom.lora.frozen import keep_few_programs
from loraloom.lora.function import BASE, Routing, Segment
from loraloom.lora.fused_base import Fused, fuse
from loraloom.lora.init import Start, check_init, moves_base, named_seed, reinitialised, start_of
from loraloom.lora.kernels import fault, refusal
from loraloom.lora.kernels.tables import PackTables
from loraloom.lora.layer import lora_scale
from loraloom.lora.packed_layer import (
    PackedLayer,
    Route,
    dense_weight,
    dtype_of,
    linear_shape,
    split_by_candidate,
)
from loraloom.lora.parts import Dora, OwnDtype, Part, Removed, Shift
from loraloom.lora.pass_stack import MOST_BYTES, PassStack, Place
from loraloom.lora.probe import probe
from loraloom.lora.refusals import refuse_coupled, shiftable_biases
from loraloom.lora.targets import resolve_pattern
from loraloom.records import AdapterSpec

MAGNITUDE_NAME = "lora_magnitude_vector"
"""PEFT's name, in files, of DoRA's magnitude."""

REMOVED = ".removed"
"""Ends the names of what PiSSA or OLoRA took out of the base, beside the A or B of the same name."""


class AdapterWeights:
    """One candidate's adapter in the pack: its arena, and what the layers see of it.

    Attributes:
        constants: tensors that belong to the saved adapter and are never trained (what
            PiSSA took out of the base).
        places: where A and B of each layer are in `block`, by the layer's number.
    """

    def __init__(self, trial: str, spec: AdapterSpec, arena: Arena) -> None:
        self.trial, self.spec, self.arena = trial, spec, arena
        self.constants: list[tuple[Entry, Tensor]] = []
        self.places: dict[int, Place] = {}
        self._blocks: dict[torch.dtype, Tensor] = {}

    def seen(self, entry: Entry, dtype: torch.dtype) -> Tensor:
        """What a layer of this dtype multiplies with: A or B itself, or its place in a
        copy kept up by `refresh`."""
        block = self._blocks.get(dtype)
        if block is None:
            masters = self.arena.weights[: self.arena.lora_numel]
            block = self._blocks[dtype] = (
                masters if masters.dtype == dtype else torch.empty_like(masters, dtype=dtype)
            )
        return self.arena.view(block, entry)

    @property
    def block(self) -> Tensor | None:
        """All A and B as layers multiply with them, flat; None where layers differ in dtype."""
        return next(iter(self._blocks.values())) if len(self._blocks) == 1 else None

    @property
    def copied(self) -> Tensor | None:
        """The block, where it is a copy of the masters in another dtype."""
        block = self.block
        return None if block is None or block.dtype == self.arena.weights.dtype else block

    def refresh(self) -> None:
        """Bring the copies in other dtypes up to the masters, after an optimiser step or a restore."""
        for block in self._blocks.values():
            if block.dtype != self.arena.weights.dtype:
                block.copy_(self.arena.weights[: block.numel()])

    def snapshot(self) -> Tensor:
        return self.arena.weights.clone()

    def restore(self, weights: Tensor) -> None:
        self.arena.weights.copy_(weights)
        self.refresh()

    def tensors(self, flat: Tensor | None = None) -> Iterator[tuple[Entry, Tensor]]:
        """Every tensor with its entry, of the present weights or of a snapshot."""
        source = self.arena.weights if flat is None else flat
        for entry in self.arena.entries:
            yield entry, self.arena.view(source, entry)
        yield from self.constants


class PackedModel:
    """A frozen model that many adapters share.

    Args:
        model: any Hugging Face model; put into eval mode (base dropout off) and frozen.
        fresh_modules: paths of modules that the checkpoint did not carry (a new head): initialised anew
            for each adapter from its own seed.
        dtype: of the adapters' weights, gradients and moments; float32 unless the model is float64.
        prepack: spend memory on faster layouts of frozen weights (`frozen.frozen_kernel`).
        kernels: do the candidates' part in the kernels of `lora.kernels`; None for
            where they can be used.
        fused: do norms and gates of the base in one kernel each, where nothing but rounding differs;
            None for where the device is CUDA and the kernels are used.

    Attributes:
        fused: which modules of the base are, and why others are not.
        kernels_refusal: why they are not used, in words that follow "because"; None where they are.
        changes: how often a candidate has joined or left.

    Raises:
        ModelError: the model couples the rows of a batch, so that packing would change the training; or
            kernels are demanded that cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        fresh_modules: tuple[str, ...] = (),
        dtype: torch.dtype | None = None,
        prepack: bool = True,
        kernels: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        refuse_coupled(model)
        self.model = model.eval().requires_grad_(False)
        use_row_attention(model)
        keep_few_programs()
        self._uses = probe(model)
        self.fresh_modules, self.prepack = fresh_modules, prepack
        reference = next(model.parameters())
        self.device, self.base_dtype = reference.device, reference.dtype
        self.dtype = dtype or (torch.float64 if reference.dtype == torch.float64 else torch.float32)
        self.kernels_refusal = self._kernels_refusal(kernels)
        self.fused = self._fuse(fused)
        self.adapters: dict[str, AdapterWeights] = {}
        self.checkpointing = False
        self._route = Route(shared=self.device.type != "cpu")
        self._anchor = torch.zeros((), device=self.device, requires_grad=True)
        self._originals = dict(model.named_modules())
        self._shapes = {
            name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)
        }
        self._numbers = {name: number for number, name in enumerate(self._originals)}
        self._wrapped: dict[str, PackedLayer] = {}
        self._split: set[str] = set()
        self._tables: PackTables | None = None
        self._kinds: dict[Any, int] = {}
        self.changes = 0

    @property
    def kernels(self) -> bool:
        """Whether the kernels of `lora.kernels` do the candidates' part."""
        return self.kernels_refusal is None

    def _kernels_refusal(self, wanted: bool | None) -> str | None:
        if wanted is False:
            return "plain torch was asked for"
        reason = refusal(self.device, self.base_dtype)
        if self.dtype != torch.float32:
            reason = reason or "they add up gradients in float32"
        if wanted is None and self.device.type != "cuda":
            reason = reason or "a CPU runs them by an interpreter"
        reason = reason or fault(self.device, self.base_dtype)
        if wanted and reason:
            raise ModelError(
                "the kernels cannot be used",
                got=reason,
                next="leave out `kernels`: plain torch does the same",
            )
        return reason

    def _fuse(self, wanted: bool | None) -> Fused:
        reason = refusal(self.device, self.base_dtype)
        if wanted and reason:
            raise ModelError(
                "the base cannot be fused",
                got=reason,
                next="leave out `fused`: plain torch does the same",
            )
        by_itself = self.kernels and self.device.type == "cuda"
        return fuse(self.model) if wanted or (wanted is None and by_itself) else Fused()

    @contextmanager
    def route(self, routing: Routing) -> Generator[Any]:
        """Everything run inside, backward passes too, follows `routing`. Gradients are
        all in their arenas when it ends."""
        stack = self._stack(routing)
        if self.kernels and routing.segments and routing.tables is None:
            routing = replace(routing, tables=self.tables())
        previous, self._route.current = (
            self._route.current,
            routing if stack is None else replace(routing, stack=stack),
        )
        try:
            yield self.model
        finally:
            self._route.current = previous
        if stack is not None:
            stack.settle()

    def _stack(self, routing: Routing) -> PassStack | None:
        """A and B of all segments side by side, where they are alike and small, and not yet so."""
        if self.kernels or routing.stack is not None or len(routing.segments) < 2 or not routing.even:
            return None
        adapters = [self.adapters[segment.trial] for segment in routing.segments]
        places, blocks = (
            adapters[0].places,
            [block for one in adapters if (block := one.block) is not None],
        )
        if len(blocks) < len(adapters) or any(one.places != places for one in adapters):
            return None
        if 2 * len(blocks) * blocks[0].nbytes > MOST_BYTES:
            return None
        grads = [one.arena.grads[: one.arena.lora_numel] for one in adapters]
        return PassStack(blocks, grads, places)

    def tables(self) -> PackTables | None:
        """What all candidates have in all layers, for the kernels, where they are used; made when it is
        first asked for after one has joined or left."""
        if self._tables is None and self.kernels:
            layers = {layer.number: layer.adapters for layer in self._wrapped.values() if layer.adapters}
            self._tables = PackTables(list(self.adapters), layers, self.device)
        return self._tables

    def kind(self, trial: str) -> int:
        """Candidates of one kind may take each other's place in a pass whose kernels read in tables
        whose tokens are whose: plain LoRA in the same layers. Any other candidate is of a kind of its
        own."""
        alike = self.kernels and not any(
            trial in layer.parts or trial in layer.whole for layer in self._wrapped.values()
        )
        key = self.adapters[trial].spec.target_modules if alike else trial
        return self._kinds.setdefault(key, len(self._kinds))

    @contextmanager
    def base_only(self) -> Generator[Any]:
        with self.route(BASE):
            yield self.model

    def checkpoint(self) -> None:
        """From now on, keep only each repeated block's input for the backward pass and
        run the block again there.

        Raises:
            ModelError: the model has no repeated blocks.
        """
        if not self.checkpointing:
            checkpoint_blocks(self.model, lambda: self.route(self._route.get()))
            self.checkpointing = True

    def layers(self) -> dict[str, nn.Module]:
        """Every module that runs, wrapped or not, by its path in the model as it came."""
        return {path: module for path, module in (self._originals | self._wrapped).items() if path}

    # -- adapters
    # ------------------------------------------------------------------------------------------------

    def add(self, trial: str, spec: AdapterSpec, seed: int | None) -> AdapterWeights:
        """Make an adapter, initialised as PEFT does, from `seed` alone: neighbours and
        trial numbers play no part.

        Args:
            seed: None where everything is to be restored: then nothing is drawn, nor
                taken out of the base by a slow SVD.

        Raises:
            ModelError: an option that the packed layers do not have, or a module that cannot take it.
        """
        spec = self._checked(spec)
        biases = self._biases(spec)
        entries = [
            entry
            for path in spec.target_modules
            for entry in self._linear_entries(path, spec, path in biases)
        ]
        entries += [entry for path in spec.modules_to_save for entry in self._module_entries(path)]
        for path in biases:
            if path not in spec.target_modules:
                entries.append(
                    Entry(path, "bias", "vector", tuple(self._original(path).bias.shape), relative=True)
                )
        adapter = AdapterWeights(trial, spec, Arena(entries, self.dtype, self.device))
        try:
            self._connect(adapter, biases, seed)
        except BaseException:  # memory that ran out too
            self._forget(trial)
            raise
        self.adapters[trial] = adapter
        self._changed()
        return adapter

    def remove(self, trial: str) -> None:
        """Take an adapter out; nothing of it stays behind."""
        self._forget(trial)
        del self.adapters[trial]
        self._changed()

    def _changed(self) -> None:
        self._tables = None
        self._kinds.clear()
        self.changes += 1

    def _forget(self, trial: str) -> None:
        for layer in self._wrapped.values():
            layer.clear(trial)

    def _connect(self, adapter: AdapterWeights, biases: Sequence[str], seed: int | None) -> None:
        """Fill the arena with first values and let the layers see it."""
        spec, entries = adapter.spec, adapter.arena.entries
        own = {
            path: {e.name: e for e in entries if e.path == path} for path in {e.path for e in entries}
        }
        removed = (
            _nothing_drawn(spec, own) if seed is None else self._draw(adapter.arena, spec, own, seed)
        )
        for path in spec.target_modules:
            self._connect_linear(adapter, path, own[path], removed.get(path))
        for path in spec.modules_to_save:
            self._connect_module(adapter, path, own[path])
        for path in biases:
            if path not in spec.target_modules:
                self._wrap(path).parts[adapter.trial] = [
                    Shift(adapter.arena.parameter(own[path]["bias"]))
                ]
        adapter.refresh()

    def _checked(self, spec: AdapterSpec) -> AdapterSpec:
        """The same spec with patterns by full path, as PEFT matches them; everything
        impossible refused by name."""
        check_init(spec.init_lora_weights)
        if spec.use_dora and moves_base(spec.init_lora_weights):
            raise ModelError(
                f"`adapter.use_dora` with `init_lora_weights: {spec.init_lora_weights}` is not packed",
                got="two methods that each redefine the frozen weight",
                next="take one of the two",
            )
        whole = spec.modules_to_save
        for path in (*spec.target_modules, *whole):
            key = "adapter.target_modules" if path in spec.target_modules else "adapter.modules_to_save"
            if path not in self._originals:
                raise ModelError(f"`{key}` names `{path}`, which the model does not have")
            if path not in self._uses:
                raise ModelError(
                    f"`{key}` names `{path}`, which the model never runs: it would not be trained",
                    next=(
                        "name the module that does the work (an encoder-decoder embeds with"
                        " `encoder.embed_tokens`)"
                    ),
                )
        for path in whole:
            if not self._uses[path].simple:
                raise ModelError(
                    f"`adapter.modules_to_save` names `{path}`, whose rows cannot be handed to one"
                    " candidate each",
                    need=(
                        "a module that takes one tensor and gives one: a head, an embedding, a norm, a"
                        " linear layer"
                    ),
                )
        for path in spec.target_modules:
            if self._uses[path].features != linear_shape(self._original(path)):
                raise ModelError(
                    f"`adapter.target_modules` names `{path}`, which is no plain product of its input"
                    " and weight",
                    got=f"a {type(self._original(path)).__name__} with a forward of its own",
                    need="a layer that gives [..., features out] for [..., features in]",
                    next="take it out of `adapter.target_modules`",
                )
            if any(path == module or path.startswith(f"{module}.") for module in whole):
                raise ModelError(
                    f"`{path}` is in modules_to_save and a LoRA target at once",
                    next="name it in one of the two",
                )
        return _with_patterns(spec)

    def _biases(self, spec: AdapterSpec) -> tuple[str, ...]:
        """Paths of the modules whose bias this candidate trains."""
        if spec.bias == "none":
            return ()
        if spec.bias == "lora_only":
            return tuple(
                path
                for path in spec.target_modules
                if getattr(self._original(path), "bias", None) is not None
            )
        inside = tuple(f"{path}." for path in spec.modules_to_save)
        paths = shiftable_biases(self._originals, self._uses)
        return tuple(
            path for path in paths if path not in spec.modules_to_save and not path.startswith(inside)
        )

    def _linear_entries(self, path: str, spec: AdapterSpec, biased: bool) -> list[Entry]:
        d, o = linear_shape(self._original(path))
        r = spec.rank_pattern.get(path, spec.r)
        entries = [
            Entry(path, "lora_A.weight", "lora_A", (r, d)),
            Entry(path, "lora_B.weight", "lora_B", (o, r)),
        ]
        if spec.use_dora:
            entries.append(Entry(path, MAGNITUDE_NAME, "vector", (o,)))
        if biased:
            entries.append(Entry(path, BIAS_NAME, "vector", (o,), relative=True))
        return entries

    def _module_entries(self, path: str) -> list[Entry]:
        inside = [
            (name.removeprefix(f"{path}."), shape)
            for name, shape in self._shapes.items()
            if name.startswith(f"{path}.")
        ]
        return [
            Entry(path, name, "vector" if len(shape) < 2 else "module", shape) for name, shape in inside
        ]

    def _draw(
        self, arena: Arena, spec: AdapterSpec, own: dict[str, dict[str, Entry]], seed: int
    ) -> dict[str, Start]:
        """First values of A, B and fresh heads. They are drawn on the CPU, whatever the
        device, and go there in one copy.

        Returns:
            What PiSSA or OLoRA take out of the base, by path.
        """
        first = torch.zeros_like(arena.weights, device="cpu")
        removed: dict[str, Start] = {}
        for path in spec.target_modules:
            layer, a, b = self._original(path), own[path]["lora_A.weight"], own[path]["lora_B.weight"]
            start = start_of(
                spec.init_lora_weights,
                a.shape[0],
                _scale_of(spec, path, a),
                linear_shape(layer),
                lambda layer=layer: dense_weight(layer),
                named_seed(seed, path),
            )
            arena.view(first, a).copy_(start.a_RD)
            arena.view(first, b).copy_(start.b_OR)
            if start.moves_base:
                removed[path] = start
        for path in spec.modules_to_save:
            if path in self.fresh_modules:
                drawn = reinitialised(self.model, self._pristine(path), named_seed(seed, path))
                for name, parameter in drawn.named_parameters():
                    arena.view(first, own[path][name]).copy_(parameter.detach())
        arena.weights.copy_(first)
        return removed

    def _connect_linear(
        self, adapter: AdapterWeights, path: str, entries: dict[str, Entry], removed: Start | None
    ) -> None:
        spec, arena, layer = adapter.spec, adapter.arena, self._wrap(path)
        entry_a, entry_b = entries["lora_A.weight"], entries["lora_B.weight"]
        scale = _scale_of(spec, path, entry_a)
        layer.dropouts[adapter.trial] = spec.lora_dropout
        parts: list[Part] = []
        if spec.use_dora:
            parts.append(self._dora(adapter, layer, entries, scale))
            if BIAS_NAME in entries:
                parts.append(Shift(arena.parameter(entries[BIAS_NAME])))
        else:
            layer.adapters[adapter.trial] = self._fused(adapter, layer, entries, scale)
        if removed is not None:
            product = Removed(
                removed.a_RD.to(self.device, self.dtype), removed.b_OR.to(self.device, self.dtype), scale
            )
            parts.append(product)
            adapter.constants.append((replace(entry_a, name=f"{entry_a.name}{REMOVED}"), product.a_RD))
            adapter.constants.append((replace(entry_b, name=f"{entry_b.name}{REMOVED}"), product.b_OR))
        if parts:
            layer.parts[adapter.trial] = parts

    def _fused(
        self, adapter: AdapterWeights, layer: PackedLayer, entries: dict[str, Entry], scale: float
    ) -> LayerWeights:
        arena, bias, dtype = adapter.arena, entries.get(BIAS_NAME), dtype_of(layer.base, self.base_dtype)
        a, b = entries["lora_A.weight"], entries["lora_B.weight"]
        place = Place(arena.offset(a), arena.offset(b), a.shape[0], a.shape[1], b.shape[0])
        adapter.places[self._numbers[a.path]] = place
        return LayerWeights(
            a_RD=adapter.seen(a, dtype),
            b_OR=adapter.seen(b, dtype),
            grad_a_RD=arena.grad(a),
            grad_b_OR=arena.grad(b),
            scale=scale,
            dropout=adapter.spec.lora_dropout,
            bias_O=None if bias is None else arena.weight(bias),
            grad_bias_O=None if bias is None else arena.grad(bias),
        )

    def _dora(
        self, adapter: AdapterWeights, layer: PackedLayer, entries: dict[str, Entry], scale: float
    ) -> Dora:
        arena, base = adapter.arena, layer.base
        a_RD, b_OR = arena.parameter(entries["lora_A.weight"]), arena.parameter(entries["lora_B.weight"])
        magnitude_O = arena.parameter(entries[MAGNITUDE_NAME])
        part = Dora(
            lambda: dense_weight(base), getattr(base, "bias", None), a_RD, b_OR, magnitude_O, scale
        )
        magnitude_O.data.copy_(part.norm(dense_weight(base)))
        return part

    def _connect_module(self, adapter: AdapterWeights, path: str, entries: dict[str, Entry]) -> None:
        own = self._pristine(path)
        for name, parameter in list(own.named_parameters()):
            if path not in self.fresh_modules:
                adapter.arena.weight(entries[name]).copy_(parameter.detach())
            parent, _, leaf = name.rpartition(".")
            own.get_submodule(parent)._parameters[leaf] = adapter.arena.parameter(entries[name])  # pyright: ignore[reportPrivateUsage]
        alike = all(parameter.dtype == self.dtype for parameter in self._original(path).parameters())
        self._wrap(path).whole[adapter.trial] = (
            own if alike else OwnDtype(own, self.dtype, self._uses[path].dtype or self.base_dtype)
        )

    # -- the module tree
    # -----------------------------------------------------------------------------------------

    def _original(self, path: str) -> Any:
        return self._originals[path]

    def _wrap(self, path: str) -> PackedLayer:
        layer = self._wrapped.get(path)
        if layer is None:
            rowless = self._uses[path].rowless
            layer = PackedLayer(
                self._originals[path],
                path,
                self._numbers[path],
                self._route,
                self._anchor,
                rowless=rowless,
                prepack=self.prepack,
            )
            parent, _, name = path.rpartition(".")
            setattr(self._originals[parent], name, layer)
            self._wrapped[path] = layer
            if rowless:
                self._split_around(path)
        return layer

    def _split_around(self, path: str) -> None:
        """Run the smallest module around a layer that has rows candidate by candidate:
        the layer then has one owner."""
        around = path
        while around and (around == path or around not in self._uses or self._uses[around].rowless):
            around = around.rpartition(".")[0]
        use = self._uses.get(around)
        if use is None or not use.row_results:
            raise ModelError(
                f"`{path}` works on something that all rows of a batch share: it would not know whose"
                " adapter to use",
                next="take it out of `adapter.target_modules` or `adapter.modules_to_save`",
            )
        if around not in self._split:
            split_by_candidate(self._originals[around], use, self._route)
            self._split.add(around)

    def _pristine(self, path: str) -> nn.Module:
        """A copy of a module as the model came, whatever was wrapped inside it since."""
        inside = {id(w): w.base for name, w in self._wrapped.items() if name.startswith(f"{path}.")}
        memo: dict[int, Any] = {}
        for key, base in inside.items():
            memo[key] = copy.deepcopy(base, memo)
        return copy.deepcopy(self._originals[path], memo)


def _scale_of(spec: AdapterSpec, path: str, a: Entry) -> float:
    return lora_scale(spec.alpha_pattern.get(path, spec.lora_alpha), a.shape[0], spec.use_rslora)


def _nothing_drawn(spec: AdapterSpec, own: dict[str, dict[str, Entry]]) -> dict[str, Start]:
    """Room for what PiSSA or OLoRA took out of the base, by path."""
    if not moves_base(spec.init_lora_weights):
        return {}
    shapes = {
        path: (own[path]["lora_A.weight"].shape, own[path]["lora_B.weight"].shape)
        for path in spec.target_modules
    }
    return {
        path: Start(torch.zeros(a), torch.zeros(b), moves_base=True) for path, (a, b) in shapes.items()
    }


def _with_patterns(spec: AdapterSpec) -> AdapterSpec:
    return replace(
        spec,
        rank_pattern=resolve_pattern(spec.target_modules, spec.rank_pattern, key="adapter.rank_pattern"),
        alpha_pattern=resolve_pattern(
            spec.target_modules, spec.alpha_pattern, key="adapter.alpha_pattern"
        ),
    )


__all__ = ["BASE", "AdapterWeights", "PackedLayer", "PackedModel", "Routing", "Segment", "linear_shape"]
