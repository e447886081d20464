"""What a training pass keeps for its backward pass, counted rather than estimated.

A model that is built like LLaMA is added up from its sizes (`facts.llama_pass`). Any other runs forward
once on the meta device, where tensors have shapes and no numbers, and autograd tells every tensor that
it saves. Frozen layers save nothing of their input, layers with an adapter keep it (and h, the input
times A), fused attention keeps its inputs, its output and one float32 a row and head, and row attention
is run as it is: that is what the packed layers and the kernels do. So the count holds for any family,
activation function and precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from loraloom.facts.llama_pass import kept_by_llama
from loraloom.facts.meta_model import build_on_meta
from loraloom.facts.model import ModelFacts
from loraloom.facts.unused import answers

if TYPE_CHECKING:
    from torch import Tensor, nn

FEW = 2
"""Layers that are run of a model with more than DEEP like ones, and then twice as many."""
DEEP = 12
ROWS = 4
"""Rows of the pass that is counted: what does not grow with the batch (positions,
masks) weighs little then."""


@lru_cache(maxsize=256)
def kept_bytes_per_row(
    model: ModelFacts, targets: frozenset[str], rank: int, dtype: str, length: int, attention: str
) -> float | None:
    """Bytes that a training pass keeps of one row of `length` tokens, without the loss and the weights.

    Args:
        targets: paths of the layers that carry an adapter of this rank.
        dtype: in which the base computes ("float32", "bfloat16", ...).
        attention: "sdpa" for torch's fused kernel, "rows" for the one that the packed model runs on
            short rows on a CPU (`lora.attention`), or "eager".

    Returns:
        None where it cannot be counted: no config is at hand, or the family's forward
            pass looks at numbers.
    """
    if model.llama is not None:
        known = kept_by_llama(model.llama, model.task, targets, rank, dtype, length, attention, ROWS)
        if known is not None:
            return known
    if model.config is None:
        return None
    try:
        network = _network(model, dtype, attention)
        return _count_of_all(network, model, targets, rank, length) / ROWS
    except Exception:  # any model's forward pass may refuse tensors without numbers, each in its own way
        return None


@lru_cache(maxsize=256)
def kept_by_widest_layer(
    model: ModelFacts, targets: frozenset[str], rank: int, dtype: str, length: int, attention: str
) -> float | None:
    """Bytes of one row that a pass keeps less when it has one layer less, of the kind
    of layer that keeps most.

    Of an encoder and a decoder that is a layer of the decoder, which reads both.
    Arguments and None as in `kept_bytes_per_row`.
    """
    if model.config is None:
        return None
    try:
        network = _network(model, dtype, attention)
        adapted = _adapted(network, targets)
        whole = _count(network, model, adapted, rank, length)
        fewer = (
            _count_of_first(network, model, adapted, rank, length, owner, name, len(layers) - 1)
            for owner, name, layers in _layer_lists(network)
            if len(layers) > 1
        )
        return (whole - min(fewer)) / ROWS
    except Exception:  # as above; min() where no list has two layers
        return None


@lru_cache(maxsize=2)
def _network(model: ModelFacts, dtype: str, attention: str) -> nn.Module:
    import torch

    from loraloom.lora.attention import use_row_attention

    config = copy.deepcopy(model.config)
    asked = "sdpa" if attention == "rows" else attention
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = 0  # a decoder that classifies would refuse the rows
    network = (
        build_on_meta(config, model.task, attention=asked)
        .to(getattr(torch, dtype))
        .eval()
        .requires_grad_(False)
    )
    if attention == "rows":
        use_row_attention(network, device_type="cpu")
    return network


def _count_of_all(
    network: nn.Module, model: ModelFacts, targets: frozenset[str], rank: int, length: int
) -> float:
    """The count of a whole pass; of a deep model's like layers only the first few are
    run, and the rest follow from them."""
    adapted = _adapted(network, targets)
    found = _like_layers(network, model, adapted)
    if found is None:
        return _count(network, model, adapted, rank, length)
    owner, name, layers = found
    try:
        few, more = (
            _count_of_first(network, model, adapted, rank, length, owner, name, n)
            for n in (FEW, 2 * FEW)
        )
    except Exception:  # a family that asks for a layer by its number
        return _count(network, model, adapted, rank, length)
    return more + (len(layers) - 2 * FEW) * (more - few) / FEW


def _adapted(network: nn.Module, targets: frozenset[str]) -> frozenset[int]:
    """The identities of the weights that carry an adapter."""
    return frozenset(id(network.get_submodule(path).weight) for path in targets)


def _count_of_first(
    network: nn.Module,
    model: ModelFacts,
    adapted: frozenset[int],
    rank: int,
    length: int,
    owner: Any,
    name: str,
    number: int,
) -> int:
    layers = getattr(owner, name)
    setattr(owner, name, layers[:number])
    try:
        return _count(network, model, adapted, rank, length)
    finally:
        setattr(owner, name, layers)


def _like_layers(
    network: nn.Module, model: ModelFacts, adapted: frozenset[int]
) -> tuple[nn.Module, str, nn.ModuleList] | None:
    """The one deep list of layers of a model: its owner, its name there, itself. None where it is not
    the only one, where it is short, or where its layers, past the first few, differ in kind, sizes or
    adapters."""
    lists = [found for found in _layer_lists(network) if len(found[2]) > DEEP]
    if len(lists) != 1 or len(set(getattr(model.config, "layer_types", None) or ())) > 1:
        return None
    kinds = {
        tuple(
            (name, parameter.shape, id(parameter) in adapted)
            for name, parameter in layer.named_parameters()
        )
        for layer in lists[0][2][FEW:]
    }
    return lists[0] if len(kinds) == 1 else None


def _layer_lists(network: nn.Module) -> list[tuple[nn.Module, str, nn.ModuleList]]:
    """The outermost lists of modules, a model's layers: the owner of each, its name there, itself."""
    from torch import nn

    lists = [path for path, part in network.named_modules() if isinstance(part, nn.ModuleList)]
    outermost = [
        path.rpartition(".")
        for path in lists
        if not any(path.startswith(f"{other}.") for other in lists)
    ]
    owners = [(network.get_submodule(owner), name) for owner, _, name in outermost]
    return [(owner, name, getattr(owner, name)) for owner, name in owners]


def _count(
    network: nn.Module, model: ModelFacts, adapted: frozenset[int], rank: int, length: int
) -> int:
    import torch

    own = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Any] = {}

    def remember(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor.untyped_storage()
        return tensor

    inputs = torch.zeros((ROWS, length), dtype=torch.long, device="meta")
    with (
        torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor),
        _as_packed(adapted, rank),
    ):
        result = _forward(network, model, inputs)
    del result
    return sum(int(storage.nbytes()) for storage in kept.values())


def _forward(network: Any, model: ModelFacts, inputs: Tensor) -> Any:
    """The pass up to where the loss begins: a language model's logits are formed in
    chunks, outside of it."""
    if model.task == "causal_lm":
        return network.base_model(input_ids=inputs, use_cache=False)
    if model.task == "seq2seq_lm":
        return network(input_ids=inputs, decoder_input_ids=inputs, use_cache=False)
    return network(input_ids=inputs)


def _storage(tensor: Tensor) -> int:
    """Identity of the memory behind a tensor. Meta tensors have no address, so the
    storage object stands for it."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _as_packed(adapted: frozenset[int], rank: int) -> Any:
    """A mode in which linear layers and attention keep what they keep in training,
    although nothing is computed."""
    import torch
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    anchor = torch.zeros((), device="meta", requires_grad=True)

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, result: Tensor, anchor: Tensor, *kept: Tensor) -> Tensor:
            ctx.save_for_backward(*kept)
            # no view: models may add to it in place
            return torch.ops.aten._unsafe_view(result, result.shape)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            raise RuntimeError("a count has no backward pass")

    def adapter(weight: Tensor, x: Tensor, result: Tensor) -> Tensor:
        if id(weight) not in adapted:
            return result
        hidden = x.new_empty((x.numel() // x.shape[-1], rank))
        return Keep.apply(result, anchor, x, hidden)

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return adapter(weight, x, F.linear(x, weight, bias))

    def addmm(bias: Tensor, x: Tensor, weight: Tensor, **scales: Any) -> Tensor:
        return adapter(weight, x, torch.addmm(bias, x, weight, **scales))

    def attend(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *rest: Any, **options: Any
    ) -> Tensor:
        # torch's kernels lay the result out as q is: whether the output projection
        # reads it in place follows from that
        result = (
            torch.empty_like(q)
            if q.shape[-1] == v.shape[-1]
            else q.new_empty((*q.shape[:-1], v.shape[-1]))
        )
        if not (q.requires_grad or k.requires_grad or v.requires_grad):
            return result
        sums = torch.empty(q.shape[:-1], dtype=torch.float32, device="meta")
        # a mask of yes and no becomes numbers that are added to the scores, anew in every layer
        bias = () if attn_mask is None else (torch.empty_like(attn_mask, dtype=q.dtype),)
        return Keep.apply(result, anchor, q, k, v, result, sums, *bias)

    def grouped(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
        # A token's experts, frozen: the product for x needs their weights only. torch's own takes
        # bfloat16 alone on meta.
        result = x.new_empty((*x.shape[:-1], weight.shape[-1]))
        return Keep.apply(result, anchor) if x.requires_grad else result

    replaced: Mapping[Any, Callable[..., Any]] = {
        F.linear: linear,
        torch.addmm: addmm,
        torch._grouped_mm: grouped,  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        F.scaled_dot_product_attention: attend,
        **answers(),
    }

    class Packed(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return replaced.get(func, func)(*args, **(kwargs or {}))

    return Packed()
