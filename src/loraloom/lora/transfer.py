"""Between the host and a device, with as little waiting as there can be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`. CUDA copies from pinned memory in its own time;
    from any other the host would wait.

    Raises:
        RuntimeError: a CUDA graph is being recorded, which would read the same place of
            the host each time that it runs.
    """
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("something is sent to the device that a graph would not see change")
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same values on the host, by one copy for each dtype: the host waits once,
    however many there are."""
    found = [tensor.detach() for tensor in tensors]
    for dtype in {tensor.dtype for tensor in found if tensor.device.type != "cpu"}:
        places = [
            place
            for place, tensor in enumerate(found)
            if tensor.dtype == dtype and tensor.device.type != "cpu"
        ]
        joined = torch.cat([found[place].reshape(-1) for place in places]).cpu()
        for place, part in zip(
            places, joined.split([found[place].numel() for place in places]), strict=True
        ):
            found[place] = part.view(found[place].shape)
    return found
