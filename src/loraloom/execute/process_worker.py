"""What a worker process runs: it joins, obeys what comes through its pipe, and ends with the pipe.

python -m loraloom.execute.process_worker FILE_NUMBER_OF_THE_PIPE
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from copy import deepcopy
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from loraloom.errors import RunError, first_line


def work(pipe: Connection) -> None:
    """Join and obey, until the driver closes the pipe or is gone: the process then ends at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    name, cores, invitation = pipe.recv()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    try:
        # Slow to import, and only now is it known on which cores.
        from loraloom.execute import Joined
        from loraloom.execute.host import join

        worker = join(name, invitation)
        _send(pipe, Joined(name))
        while True:
            _send(pipe, worker.obey(inbox.get()))
    except BaseException as error:
        _send(pipe, _failed(error))
        inbox.get()  # whatever is ordered of it now, it obeys no more: its driver lets it go


def _listen(pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Take orders in while the worker computes, so that the end of the pipe is heard at any time."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)


def _send(pipe: Connection, message: object) -> None:
    try:
        pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _failed(error: BaseException) -> object:
    """The error as it can be sent, with where it happened."""
    from loraloom.execute.processes import Failed

    where = "".join(traceback.format_exception(error))
    try:
        ForkingPickler.dumps(error)
        deepcopy(error)  # is made anew as the driver would
    except Exception:  # classes of libraries need not be made for this
        error = RunError(f"{type(error).__name__}: {first_line(error)}")
    return Failed(error, where)


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
