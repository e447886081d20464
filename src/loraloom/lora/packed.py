"""Many adapters on one frozen model: each layer runs once, each candidate's rows get
that candidate's delta.

`PackedModel` takes a loaded Hugging Face model, wraps the layers that any candidate touches, and hands
out adapters. `with packed.route(routing):` says whose rows are whose, for the forward *and* the backward
pass: the backward pass may run layers again (checkpointing), and a recomputation that lost its routing
would give silent zero gradients (huggingface/peft#2826). Without a route the wrapped layers refuse to
run.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from loraloom.errors import ModelError
from loraloom.lora.adapter_builder import AdapterBuilder
from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.lora.attention import use_row_attention
from loraloom.lora.checkpointing import checkpoint_blocks
from loraloom.lora.freed_memory import keep_freed_memory
from loraloom.lora.frozen import keep_few_programs
from loraloom.lora.fused_base import Fused, fuse
from loraloom.lora.kernels import refusal
from loraloom.lora.kernels.selftest import fault
from loraloom.lora.kernels.tables import PackTables
from loraloom.lora.module_tree import ModuleTree
from loraloom.lora.offload import HostInputs
from loraloom.lora.pass_stack import MOST_BYTES, PassStack
from loraloom.lora.probe import probe
from loraloom.lora.refusals import refuse_coupled
from loraloom.lora.routing import BASE, Routing
from loraloom.records import AdapterSpec


class PackedModel:
    """A frozen model that many adapters share.

    Args:
        model: any Hugging Face model; put into eval mode (base dropout off) and frozen.
        fresh_modules: paths of modules that the checkpoint did not carry (a new head): initialised anew
            for each adapter from its own seed.
        dtype: of the adapters' weights, gradients and moments; float32 unless the model is float64.
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
        kernels: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        refuse_coupled(model)
        self.model = model.eval().requires_grad_(False)
        use_row_attention(model)
        keep_few_programs()
        if next(model.parameters()).device.type == "cpu":
            keep_freed_memory()
        # Asked before anything is fused: it runs the model, and must see its modules
        # called as they came.
        uses = probe(model)
        reference = next(model.parameters())
        self.device = reference.device
        self.base_dtype = reference.dtype
        self.dtype = dtype or (torch.float64 if reference.dtype == torch.float64 else torch.float32)
        self.kernels_refusal = self._kernels_refusal(kernels)
        self.fused = self._fuse(fused)
        self._tree = ModuleTree(model, uses)
        self._route = self._tree.route
        self._builder = AdapterBuilder(model, self._tree, fresh_modules=fresh_modules, dtype=self.dtype)
        self.adapters: dict[str, AdapterWeights] = {}
        self.checkpointing = False
        self.host_inputs: HostInputs | None = None
        self._tables: PackTables | None = None
        self._kinds: dict[Any, int] = {}
        self.changes = 0

    def get_submodule(self, path: str) -> nn.Module:
        """A module of the base as it came, without what candidates have in it."""
        return self._tree.originals[path]

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
        if stack is not None:
            routing = replace(routing, stack=stack)
        elif self.kernels and routing.segments and routing.tables is None:
            routing = replace(routing, tables=self.tables())
        previous = self._route.current
        self._route.current = routing
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
        places = adapters[0].places
        blocks = [block for one in adapters if (block := one.block) is not None]
        if len(blocks) < len(adapters) or any(one.places != places for one in adapters):
            return None
        # Twice: weights and gradients.
        if 2 * len(blocks) * blocks[0].nbytes > MOST_BYTES:
            return None
        grads = [one.arena.grads[: one.arena.lora_numel] for one in adapters]
        return PassStack(blocks, grads, places)

    def tables(self) -> PackTables | None:
        """What all candidates have in all layers, for the kernels, where they are used; made when it is
        first asked for after one has joined or left."""
        if self._tables is None and self.kernels:
            wrapped = self._tree.wrapped.values()
            layers = {layer.number: layer.adapters for layer in wrapped if layer.adapters}
            self._tables = PackTables(list(self.adapters), layers, self.device)
        return self._tables

    def kind(self, trial: str) -> int:
        """Candidates of one kind may take each other's place in a pass whose kernels read in tables
        whose tokens are whose: plain LoRA in the same layers. Any other candidate is of a kind of its
        own."""
        wrapped = self._tree.wrapped.values()
        plain = self.kernels and not any(
            trial in layer.parts or trial in layer.whole for layer in wrapped
        )
        key = self.adapters[trial].spec.target_modules if plain else trial
        return self._kinds.setdefault(key, len(self._kinds))

    @property
    def bare(self) -> bool:
        """Whether the base runs alone just now."""
        current = self._route.current
        return current is not None and not current.segments

    @contextmanager
    def base_only(self) -> Generator[Any]:
        with self.route(BASE):
            yield self.model

    def checkpoint(self, *, offload: bool = False) -> None:
        """From now on, keep only each repeated block's input for the backward pass and
        run the block again there.

        Args:
            offload: keep the inputs on the host (CUDA alone).

        Raises:
            ModelError: the model has no repeated blocks.
        """
        if not self.checkpointing:
            self.host_inputs = HostInputs(self.device) if offload else None
            checkpoint_blocks(self.model, lambda: self.route(self._route.get()), self.host_inputs)
            self.checkpointing = True

    def layers(self) -> dict[str, nn.Module]:
        """Every module that runs, wrapped or not, by its path in the model as it came."""
        return self._tree.running()

    def add(self, trial: str, spec: AdapterSpec, seed: int | None) -> AdapterWeights:
        """Make an adapter, initialised as PEFT does, from `seed` alone: neighbours and
        trial numbers play no part.

        Args:
            seed: None where everything is to be restored: then nothing is drawn, nor
                taken out of the base by a slow SVD.

        Raises:
            ModelError: an option that the packed layers do not have, or a module that cannot take it.
        """
        try:
            adapter = self._builder.build(trial, spec, seed)
        except BaseException:  # memory that ran out too
            self._tree.clear(trial)
            raise
        self.adapters[trial] = adapter
        self._changed()
        return adapter

    def remove(self, trial: str) -> None:
        """Take an adapter out; nothing of it stays behind."""
        self._tree.clear(trial)
        del self.adapters[trial]
        self._changed()

    def _changed(self) -> None:
        """What was made for the candidates of before no longer holds."""
        self._tables = None
        self._kinds.clear()
        self.changes += 1
