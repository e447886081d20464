"""Making one candidate's adapter: which tensors it has, their first values, and their
places in the layers.

What is made is what PEFT would make of the same options, each layer drawn from the seed and the layer's
path alone: neighbours in the pack and numbers of trials play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from loraloom.config import names
from loraloom.lora.adapter_weights import MAGNITUDE_NAME, REMOVED, AdapterWeights
from loraloom.lora.arena import BIAS_NAME, Arena, Entry
from loraloom.lora.checkpointing import bring_weights
from loraloom.lora.deltas import LayerWeights
from loraloom.lora.frozen import DenseWeight, dense_weight, frozen_weight
from loraloom.lora.init import Start, moves_base, named_seed, reinitialised, start_of
from loraloom.lora.layer import lora_scale
from loraloom.lora.module_tree import ModuleTree
from loraloom.lora.packed_layer import PackedLayer, dtype_of, linear_shape
from loraloom.lora.parts import Dora, OwnDtype, Part, Removed, Shift, share_norms
from loraloom.lora.pass_stack import Place
from loraloom.lora.refusals import refuse_impossible, shiftable_biases
from loraloom.lora.targets import resolve_pattern
from loraloom.records import AdapterSpec

Entries = dict[str, dict[str, Entry]]
"""Of each module, by its path, the adapter's tensors by name."""


class AdapterBuilder:
    """Makes adapters for one model.

    Args:
        tree: the model's modules.
        fresh_modules: paths of modules that the checkpoint did not carry: each adapter draws its own.
        dtype: of the adapters' weights.
    """

    def __init__(
        self, model: nn.Module, tree: ModuleTree, *, fresh_modules: Sequence[str], dtype: torch.dtype
    ) -> None:
        reference = next(model.parameters())
        self.model = model
        self.tree = tree
        self.fresh_modules = fresh_modules
        self.dtype = dtype
        self.base_dtype = reference.dtype
        self.device = reference.device
        # Before anything is wrapped: a wrapped layer has other names inside.
        self._shapes = {
            name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)
        }

    def build(self, trial: str, spec: AdapterSpec, seed: int | None) -> AdapterWeights:
        """Make an adapter and let the layers see it. What fails on the way leaves parts
        of it in the layers.

        Args:
            seed: None where everything is to be restored: nothing is drawn, nor taken
                out of the base by a slow SVD.

        Raises:
            ModelError: an option that the packed layers do not have, or a module that cannot take it.
        """
        refuse_impossible(spec, self.tree.originals, self.tree.uses)
        spec = _with_patterns(spec)
        biases = self._biases(spec)
        adapter = AdapterWeights(trial, spec, Arena(self._layout(spec, biases), self.dtype, self.device))
        entries: Entries = {}
        for entry in adapter.arena.entries:
            entries.setdefault(entry.path, {})[entry.name] = entry
        removed = (
            _not_drawn(spec, entries) if seed is None else self._draw(adapter.arena, spec, entries, seed)
        )
        for path in spec.target_modules:
            self._connect_linear(adapter, path, entries[path], removed.get(path))
        for path in spec.modules_to_save:
            self._connect_module(adapter, path, entries[path])
        for path in biases:
            if path not in spec.target_modules:
                shift = Shift(adapter.arena.parameter(entries[path]["bias"]))
                self.tree.wrap(path).parts[trial] = [shift]
        adapter.refresh()
        return adapter

    # -- which tensors ----------------------------------------------------------------------------------

    def _biases(self, spec: AdapterSpec) -> tuple[str, ...]:
        """Paths of the modules whose bias this candidate trains."""
        if spec.bias == "none":
            return ()
        if spec.bias == "lora_only":
            original = self.tree.original
            return tuple(
                path for path in spec.target_modules if getattr(original(path), "bias", None) is not None
            )
        inside = tuple(f"{path}." for path in spec.modules_to_save)
        paths = shiftable_biases(self.tree.originals, self.tree.uses)
        return tuple(
            path for path in paths if path not in spec.modules_to_save and not path.startswith(inside)
        )

    def _layout(self, spec: AdapterSpec, biases: Sequence[str]) -> list[Entry]:
        """All tensors of an adapter."""
        entries: list[Entry] = []
        for path in spec.target_modules:
            entries += self._linear_entries(path, spec, biased=path in biases)
        for path in spec.modules_to_save:
            entries += self._module_entries(path)
        for path in biases:
            if path not in spec.target_modules:
                shape = tuple(self.tree.original(path).bias.shape)
                entries.append(Entry(path, "bias", "vector", shape, relative=True))
        return entries

    def _linear_entries(self, path: str, spec: AdapterSpec, *, biased: bool) -> list[Entry]:
        d, o = linear_shape(self.tree.original(path))
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
        prefix = f"{path}."
        return [
            Entry(path, name.removeprefix(prefix), "vector" if len(shape) < 2 else "module", shape)
            for name, shape in self._shapes.items()
            if name.startswith(prefix)
        ]

    # -- first values -----------------------------------------------------------------------------------

    def _draw(self, arena: Arena, spec: AdapterSpec, entries: Entries, seed: int) -> dict[str, Start]:
        """First values of A, B and fresh heads. They are drawn on the CPU, whatever the device, and go
        there in one copy: the same seed gives the same numbers everywhere.

        Returns:
            What PiSSA or OLoRA take out of the base, by path.
        """
        first = torch.zeros_like(arena.weights, device="cpu")
        removed: dict[str, Start] = {}
        for path in spec.target_modules:
            layer = self.tree.original(path)
            a, b = entries[path]["lora_A.weight"], entries[path]["lora_B.weight"]
            start = start_of(
                spec.init_lora_weights,
                a.shape[0],
                _scale_of(spec, path, a),
                linear_shape(layer),
                lambda layer=layer: dense_weight(layer),
                named_seed(seed, path),
                lambda layer=layer: layer.full_weight() - dense_weight(layer).to("cpu", torch.float32),
            )
            arena.view(first, a).copy_(start.a_RD)
            arena.view(first, b).copy_(start.b_OR)
            if start.moves_base:
                removed[path] = start
        for path in spec.modules_to_save:
            if path in self.fresh_modules:
                drawn = reinitialised(self.model, self.tree.pristine(path), named_seed(seed, path))
                for name, parameter in drawn.named_parameters():
                    arena.view(first, entries[path][name]).copy_(parameter.detach())
        arena.weights.copy_(first)
        return removed

    # -- places in the layers ---------------------------------------------------------------------------

    def _connect_linear(
        self, adapter: AdapterWeights, path: str, entries: dict[str, Entry], removed: Start | None
    ) -> None:
        """A and B, and what goes with them, of one target layer."""
        layer = self.tree.wrap(path)
        entry_a, entry_b = entries["lora_A.weight"], entries["lora_B.weight"]
        scale = _scale_of(adapter.spec, path, entry_a)
        layer.dropouts[adapter.trial] = adapter.spec.lora_dropout
        parts: list[Part] = []
        if adapter.spec.use_dora:
            parts.append(self._dora(adapter, layer, entries, scale))
            if BIAS_NAME in entries:
                parts.append(Shift(adapter.arena.parameter(entries[BIAS_NAME])))
        else:
            layer.adapters[adapter.trial] = self._fused(adapter, layer, entries, scale)
        if removed is not None:
            a_RD = removed.a_RD.to(self.device, self.dtype)
            b_OR = removed.b_OR.to(self.device, self.dtype)
            parts.append(Removed(a_RD, b_OR, scale))
            # The part and the saved adapter share these tensors, so that restoring one
            # restores the other.
            adapter.constants.append((replace(entry_a, name=f"{entry_a.name}{REMOVED}"), a_RD))
            adapter.constants.append((replace(entry_b, name=f"{entry_b.name}{REMOVED}"), b_OR))
        if parts:
            layer.parts[adapter.trial] = parts

    def _fused(
        self, adapter: AdapterWeights, layer: PackedLayer, entries: dict[str, Entry], scale: float
    ) -> LayerWeights:
        """Plain LoRA of one layer, for the fused path."""
        arena = adapter.arena
        dtype = dtype_of(layer.base, self.base_dtype)
        a, b, bias = entries["lora_A.weight"], entries["lora_B.weight"], entries.get(BIAS_NAME)
        place = Place(arena.offset(a), arena.offset(b), a.shape[0], a.shape[1], b.shape[0])
        adapter.places[layer.number] = place
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
        """DoRA's part of one layer, whose magnitude begins as the norm of the weight with A and B."""
        arena, base = adapter.arena, layer.base
        a_RD = arena.parameter(entries["lora_A.weight"])
        b_OR = arena.parameter(entries["lora_B.weight"])
        magnitude_O = arena.parameter(entries[MAGNITUDE_NAME])
        weight = frozen_weight(base) or DenseWeight(base)
        part = Dora(weight, getattr(base, "bias", None), a_RD, b_OR, magnitude_O, scale)
        bring_weights(base)
        share_norms([part])
        magnitude_O.data.copy_(part.norm_O)
        return part

    def _connect_module(self, adapter: AdapterWeights, path: str, entries: dict[str, Entry]) -> None:
        """A module of the candidate's own, whose parameters lie in the arena."""
        own = self.tree.pristine(path)
        for name, parameter in list(own.named_parameters()):
            if path not in self.fresh_modules:
                adapter.arena.weight(entries[name]).copy_(parameter.detach())
            parent, _, leaf = name.rpartition(".")
            own.get_submodule(parent)._parameters[leaf] = adapter.arena.parameter(entries[name])  # pyright: ignore[reportPrivateUsage]
        alike = all(parameter.dtype == self.dtype for parameter in self.tree.original(path).parameters())
        if not alike:
            own = OwnDtype(own, self.dtype, self.tree.uses[path].dtype or self.base_dtype)
        self.tree.wrap(path).whole[adapter.trial] = own


def _scale_of(spec: AdapterSpec, path: str, a: Entry) -> float:
    return lora_scale(spec.alpha_pattern.get(path, spec.lora_alpha), a.shape[0], spec.use_rslora)


def _not_drawn(spec: AdapterSpec, entries: Entries) -> dict[str, Start]:
    """Room for what PiSSA or OLoRA took out of the base, by path, where it will be restored."""
    if not moves_base(spec.init_lora_weights):
        return {}
    removed: dict[str, Start] = {}
    for path in spec.target_modules:
        a, b = entries[path]["lora_A.weight"], entries[path]["lora_B.weight"]
        removed[path] = Start(torch.zeros(a.shape), torch.zeros(b.shape), moves_base=True)
    return removed


def _with_patterns(spec: AdapterSpec) -> AdapterSpec:
    """The same spec with ranks and alphas by full path, matched as PEFT matches them."""
    return replace(
        spec,
        rank_pattern=resolve_pattern(spec.target_modules, spec.rank_pattern, key=names.RANK_PATTERN),
        alpha_pattern=resolve_pattern(spec.target_modules, spec.alpha_pattern, key=names.ALPHA_PATTERN),
    )
