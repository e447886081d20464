"""Linear layers in which an adapter would learn nothing, found by a pass on the meta
device: no weights, no numbers.

A decoder made of an encoder-decoder has cross-attention that reads no encoder; Mamba's blocks take the
weight of a layer without calling it; the output of a pooler may be unused, and the indexer of sparse
attention only chooses what is read; a subclass of `nn.Linear` may be a product of another kind, to whose
result no A and B can be added. PEFT puts adapters on all of these, and they stay as they began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from loraloom.records import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

TOKENS = 160
"""Enough for what only begins with some length: attention that folds 128 tokens into one."""

NEVER_RUN = "the model never runs them for this task"
NO_GRADIENT = (
    "no gradient comes back to them: what they give only chooses what others read, or is not read at all"
)
NO_PRODUCT = "they are no plain product of their input and weight, to which an adapter could be added"


def unused_linears(
    model: nn.Module, shapes: Mapping[str, tuple[int, int]], task: Task, positions: int | None
) -> dict[str, str]:
    """Of a model on the meta device the linear layers that an adapter would be wasted
    on, each with the reason.

    Args:
        shapes: features in and out of the layers that are asked for, by path.
        positions: the longest row that the model reads.

    Returns:
        path -> reason; nothing where the model's pass needs numbers. The engine then
            finds what never runs, by running it.
    """
    try:
        return _unused(model, shapes, task, min(TOKENS, positions or TOKENS))
    except Exception:  # families may ask tensors for their numbers, which are not there
        return {}


def _unused(
    model: nn.Module, shapes: Mapping[str, tuple[int, int]], task: Task, length: int
) -> dict[str, str]:
    import torch

    ran: dict[str, Tensor] = {}
    other: set[str] = set()

    def listen(path: str) -> Callable[..., Any]:
        d_in, d_out = shapes[path]

        def hear(_module: Any, args: tuple[Any, ...], result: Any) -> Any:
            nothing = ran.setdefault(path, torch.zeros((), device="meta", requires_grad=True))
            if (
                not isinstance(result, torch.Tensor)
                or result.shape != (*args[0].shape[:-1], d_out)
                or args[0].shape[-1] != d_in
            ):
                other.add(path)
                return None
            return result + nothing.to(result.dtype)

        return hear

    handles = [model.get_submodule(path).register_forward_hook(listen(path)) for path in shapes]
    ids = torch.zeros((1, length), dtype=torch.long, device="meta")
    asked: dict[str, Any] = {
        "input_ids": ids,
        **({"decoder_input_ids": ids} if task == "seq2seq_lm" else {}),
    }
    try:
        with torch.enable_grad(), _answering():
            answer = model.eval()(**asked)[0]
            grads: Any = torch.autograd.grad(answer.float().sum(), list(ran.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    silent = {path for path, grad in zip(ran, grads, strict=True) if grad is None}
    found: dict[str, str] = {}
    for path in shapes:
        if path not in ran:
            found[path] = NEVER_RUN
        elif path in other:
            found[path] = NO_PRODUCT
        elif path in silent:
            found[path] = NO_GRADIENT
    return found


def answers() -> dict[Any, Callable[..., Any]]:
    """What tensors without numbers say when families ask: the mask is all ones, an id
    is not there, a number is 0."""
    import torch

    return {
        torch.Tensor.__bool__: lambda tensor: True,
        torch.Tensor.__contains__: lambda tensor, element: False,
        torch.Tensor.item: lambda tensor: False if tensor.dtype == torch.bool else 0,
    }


def _answering() -> Any:
    import torch
    from torch.overrides import TorchFunctionMode

    def grouped(x: Tensor, weight: Tensor, **options: Any) -> Tensor:
        # torch's own takes bfloat16 alone on meta
        return x.sum(-1, keepdim=True).expand(*x.shape[:-1], weight.shape[-1])

    replaced: Mapping[Any, Callable[..., Any]] = {
        **answers(),
        torch._grouped_mm: grouped,  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    }

    class Answering(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return replaced.get(func, func)(*args, **(kwargs or {}))

    return Answering()
