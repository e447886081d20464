"""A stand-in for a GPU: tensors that say they live elsewhere and compute on the CPU.

How it works:

- A tensor of the device is an ordinary `torch.Tensor` over a CPU tensor's memory, made through DLPack:
  the capsule of the CPU tensor is given another device number (torch's spare one, "privateuseone",
  renamed) and read back. The same trick, the other way round, gives the CPU tensor under it. Neither
  copies, and views of one are views of the other.
- `StandIn` is a dispatch mode: it sees every operation below autograd. Operations on the device's
  tensors run on the CPU tensors under them, and the results are made tensors of the device again. So a
  wrong result is our fault, not the device's.
- What a GPU refuses is refused: host tensors beside the device's own, host generators for its draws, and
  with `float64=False` (an Apple GPU) numbers of that type.
- What costs time on a GPU is counted by the line of our package that asked for it: `waits`, where the
  host waits for the device to finish what was queued, and `launches`, one for each operation that
  computes.
- `name` is what the device's tensors answer to `.device`: "standin", or "cuda" or "mps"
  to be taken for one by code that looks.

- Triton's interpreter runs the kernels of our package, where Triton is there and TRITON_INTERPRET=1 was
  set before: each as one launch, on the memory under the device's tensors, to which the addresses in the
  kernels' tables belong too.

Its limits: attention is counted as its many plain operations, a `_foreach_` operation as one; there are
no streams, no races and no end of memory. torch starts a thread for each device at the first backward
pass of a process and cannot start one later, and a device cannot be unregistered: import this module in
a process of its own, before anything else computes.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import loraloom
from loraloom.lora import kernels

# PEFT imports it where it is, and it looks for CUDA's functions where torch says that there is a device:
# it has to have looked before a stand-in says so.
with suppress(ImportError):
    import bitsandbytes  # noqa: F401

PACKAGE = str(Path(loraloom.__file__).parent)
NAME = "standin"
DLPACK_CPU, DLPACK_EXTENSION = 1, 12
COPIES = ("_to_copy", "copy_", "_copy_from", "_copy_from_and_resize")
INDEXED = ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")
"""Operations that take host tensors beside the device's own; an index has to be sent
first, which is a wait."""
READS = (
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "masked_select",
    "is_nonzero",
    "_unique2",
    "unique_dim",
)
"""Operations whose results, or their sizes, the host has to know."""
NO_KERNEL = (
    "_unsafe_view",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_fused_sdp_choice",
)

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _seen_as(tensor: Tensor, device: int) -> Tensor:
    """The same memory as a tensor of another device."""
    capsule = torch._C._to_dlpack(tensor.detach())
    # struct DLTensor { void *data; struct { int32 device_type, device_id; } device; ... }
    place = (ctypes.c_int32 * 2).from_address(
        _pointer_of(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)
    )
    place[0], place[1] = device, 0
    return torch._C._from_dlpack(capsule)


def is_ours(value: Any) -> bool:
    """Whether this is a tensor of the stand-in device, whatever it answers to `.device`."""
    return isinstance(value, Tensor) and torch._C._dispatch_keys(value).has(
        torch._C.DispatchKey.PrivateUse1
    )


def under(value: Any) -> Any:
    """The CPU tensor under a tensor of the device; anything else as it is."""
    return _seen_as(value, DLPACK_CPU) if is_ours(value) else value


def over(value: Any) -> Any:
    """The tensor of the device over a CPU tensor; anything else as it is."""
    return (
        _seen_as(value, DLPACK_EXTENSION) if isinstance(value, Tensor) and not is_ours(value) else value
    )


# -- registration, once for a process
# ------------------------------------------------------------------------------------

_draws = SimpleNamespace(state=torch.Generator().manual_seed(0).get_state())
"""The state of the device's own generator."""


def _manual_seed_all(seed: int) -> None:
    _draws.state = torch.Generator().manual_seed(seed + 1).get_state()


_setup_privateuseone_for_python_backend(
    NAME,
    backend_module=SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        is_initialized=lambda: True,
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16],
        manual_seed_all=_manual_seed_all,
        _is_in_bad_fork=lambda: False,
    ),
)

_present: list[StandIn] = []
"""The modes that are on."""

_below = torch.library.Library("aten", "IMPL")
"""What torch runs where no mode is asked: `torch.tensor(..., device=...)`."""


def _empty(size: Any, **kwargs: Any) -> Tensor:
    return over(torch.empty(size, dtype=kwargs.get("dtype"), device="cpu"))


def _empty_strided(size: Any, stride: Any, **kwargs: Any) -> Tensor:
    return over(torch.empty_strided(size, stride, dtype=kwargs.get("dtype"), device="cpu"))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if is_ours(source) != is_ours(target):
        for device in _present[-1:]:
            device.waits[_line()] += 1
    under(target).copy_(under(source))
    return target


_below.impl("empty.memory_format", _empty, "PrivateUse1")
_below.impl("empty_strided", _empty_strided, "PrivateUse1")
_below.impl("_copy_from", _copy_from, "PrivateUse1")


# -- operations
# -------------------------------------------------------------------------------------------------------


class RefusedError(RuntimeError):
    """What a device would not do."""


class StandIn(TorchDispatchMode):
    """Runs the device's operations and counts them.

    Attributes:
        waits, launches: how often, by "file:line" of our package; "elsewhere" is
            autograd's own, and the tests'.
    """

    def __init__(self, name: str = NAME, *, float64: bool = True) -> None:
        super().__init__()
        self.names, self.float64 = {NAME, name}, float64
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.pop("pin_memory", None):
            return pinned(func(*args, **kwargs))
        flat, tree = tree_flatten((args, kwargs))
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
            flat, tree = tree_flatten((args, kwargs))
        ours = [value for value in flat if is_ours(value)]
        to_device = bool(ours) if asked is None else torch.device(asked).type in self.names
        if not ours and not to_device:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if ours:
            self._refuse_mixtures(name, flat)
        self._count(func, name, flat, kwargs, to_device)
        with _own_draws(func):
            cpu_args, cpu_kwargs = tree_unflatten([under(value) for value in flat], tree)
            result = func(*cpu_args, **cpu_kwargs)
        return self._result(func, args, kwargs, result, to_device)

    def _result(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any, to_device: bool) -> Any:
        """What was written in place is the argument itself; what is new is a tensor of the device."""
        schema = func._schema
        written = [
            args[place] if place < len(args) else kwargs.get(one.name)
            for place, one in enumerate(schema.arguments)
            if one.alias_info is not None and one.alias_info.is_write
        ]
        if any(one.alias_info is not None and one.alias_info.is_write for one in schema.returns):
            return written[0] if len(schema.returns) == 1 else tuple(written[: len(schema.returns)])
        if not to_device:
            return result
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float64 and not self.float64:
                raise RefusedError(f"{schema.name}: this device has no float64")
        return tree_map(over, result)

    def _refuse_mixtures(self, name: str, flat: list[Any]) -> None:
        for value in flat:
            if isinstance(value, torch.Generator):
                raise RefusedError(f"{name}: a generator of the host for a tensor of the device")
            if (
                isinstance(value, Tensor)
                and value.ndim
                and not is_ours(value)
                and name not in (*COPIES, *INDEXED)
            ):
                raise RefusedError(
                    f"{name}: a tensor of the host, {tuple(value.shape)}, beside tensors of the device"
                )

    def kernel(self, run: Callable[..., None], executor: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """A Triton kernel of ours: one launch."""
        self._refuse_mixtures(executor.fn.__name__, [*args, *kwargs.values()])
        self.launches[_line()] += 1
        run(executor, *map(under, args), **{key: under(value) for key, value in kwargs.items()})

    def _count(
        self, func: Any, name: str, flat: list[Any], kwargs: dict[str, Any], to_device: bool
    ) -> None:
        views = any(
            one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns
        )
        if not views and name not in NO_KERNEL:
            self.launches[_line()] += 1
        tensors = [value for value in flat if isinstance(value, Tensor)]
        if name in COPIES:
            # A copy between host and device makes the host wait, unless the host's part is
            # pinned memory and it need not be over.
            source, there = tensors[-1], to_device if len(tensors) == 1 else is_ours(tensors[0])
            free = any(is_pinned(tensor) for tensor in tensors) and (
                kwargs.get("non_blocking", False) or flat[-1] is True
            )
            waits = is_ours(source) != there and not free
        elif name in INDEXED:
            waits = any(
                one.dtype in (torch.bool, torch.uint8) or not is_ours(one) for one in tensors[1:]
            )
        else:
            waits = name in READS
        if waits:
            self.waits[_line()] += 1


def _line() -> str:
    """The innermost line of our package that led here, and where in transformers it led to."""
    frame, theirs = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return f"{file[len(PACKAGE) + 1 :]}:{frame.f_lineno}{theirs}"
        if "/transformers/" in file and not theirs:
            theirs = f" in {file.rpartition('/transformers/')[2]}"
        frame = frame.f_back
    return "elsewhere"


@contextmanager
def _own_draws(func: Any) -> Generator[None]:
    """Random numbers of the device come from its own generator."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        yield
        return
    kept = torch.get_rng_state()
    torch.set_rng_state(_draws.state)
    try:
        yield
    finally:
        _draws.state = torch.get_rng_state()
        torch.set_rng_state(kept)


# -- a name that code knows
# ----------------------------------------------------------------------------------------------


class Named(TorchFunctionMode):
    """Takes another device's name where a device is asked for, and lets the device's
    tensors answer with it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.device = torch.device(name, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*tree_map(self.own, tuple(args)), **tree_map(self.own, dict(kwargs or {})))

    def answers(self) -> dict[str, property]:
        """What tensors say of their device, in the thread of the device too, where
        modes of this kind are not known."""
        kind = self.device.type
        return {
            "device": property(
                lambda x: self.device if is_ours(x) else torch._C.TensorBase.device.__get__(x)
            ),
            f"is_{kind}": property(is_ours),
        }

    def own(self, value: Any) -> Any:
        """The stand-in where the name stands for a device."""
        if isinstance(value, torch.device) and value.type == self.device.type:
            return torch.device(NAME, 0)
        return (
            NAME
            if isinstance(value, str) and value in (self.device.type, f"{self.device.type}:0")
            else value
        )


def pinned(tensor: Tensor) -> Tensor:
    """A tensor of the host, marked as page-locked."""
    tensor._pinned = True  # type: ignore[attr-defined]
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    """Views are too, of what is."""
    whole = tensor._base if tensor._base is not None else tensor
    return getattr(whole, "_pinned", False)


def _deepcopy(tensor: Any, memo: dict[int, Any]) -> Any:
    """torch copies storages, and those of the stand-in are not torch's own."""
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        parameter = isinstance(tensor, torch.nn.Parameter)
        copy = (
            torch.nn.Parameter(copy, tensor.requires_grad)
            if parameter
            else copy.requires_grad_(tensor.requires_grad)
        )
        memo[id(tensor)] = copy
    return memo[id(tensor)]


def _module_to(move: Callable[..., Any], named: Named | None) -> Callable[..., Any]:
    def to(module: Any, *args: Any, **kwargs: Any) -> Any:
        if named is not None:
            args, kwargs = (
                tuple(map(named.own, args)),
                {key: named.own(value) for key, value in kwargs.items()},
            )
        # Tensors are swapped whole: torch would else make new parameters, and weights
        # that are tied would come apart.
        kept = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return move(module, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(kept)

    return to


GPU = {
    "is_available": lambda: True,
    "mem_get_info": lambda *_: (60 * 2**30, 80 * 2**30),
    "empty_cache": lambda: None,
    "get_device_name": lambda *_: "stand-in",
    "get_device_capability": lambda *_: (9, 0),
    "synchronize": lambda *_: None,
    "max_memory_allocated": lambda *_: 2**30,
    "memory_allocated": lambda *_: 2**29,
    "reset_peak_memory_stats": lambda *_: None,
    "memory_reserved": lambda *_: 2**29,
    "device_of": lambda _: nullcontext(),
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "is_current_stream_capturing": lambda: False,
    "get_device_properties": lambda *_: SimpleNamespace(major=9, minor=0, multi_processor_count=1),
    "set_sync_debug_mode": lambda *_: None,
    "set_per_process_memory_fraction": lambda *_: None,
}


def _interpreted(run: Callable[..., None]) -> Callable[..., None]:
    """`run` launches a kernel by Triton's interpreter."""

    def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
        ours = any(map(is_ours, (*args, *kwargs.values())))
        _present[-1].kernel(run, executor, args, kwargs) if ours else run(executor, *args, **kwargs)

    return launch


@contextmanager
def stand_in(name: str = NAME, *, float64: bool = True) -> Generator[StandIn]:
    """Within, the device is there under `name`, and the given mode counts."""
    mode, named = StandIn(name, float64=float64), None if name == NAME else Named(name)
    with ExitStack() as stack:
        patch: Callable[..., Any] = lambda *args: stack.enter_context(mock.patch.object(*args))  # noqa: E731
        patch(Tensor, "__deepcopy__", _deepcopy)
        patch(torch.nn.Parameter, "__deepcopy__", _deepcopy)
        patch(Tensor, "pin_memory", lambda tensor, *_: pinned(tensor.clone()))
        patch(torch.nn.Module, "to", _module_to(torch.nn.Module.to, named))
        if name == "cuda":
            for key, value in GPU.items():
                patch(torch.cuda, key, value)
        if kernels.interpreted() and kernels.refusal("cpu", torch.float32) is None:
            from triton.runtime.interpreter import GridExecutor

            patch(GridExecutor, "__call__", _interpreted(GridExecutor.__call__))
        if named is not None:
            stack.enter_context(named)
            for key, answer in named.answers().items():
                stack.enter_context(mock.patch.object(Tensor, key, answer))
        _present.append(mode)
        stack.callback(_present.remove, mode)
        yield stack.enter_context(mode)
