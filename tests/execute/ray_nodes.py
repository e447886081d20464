"""Ray clusters of this machine, whose nodes come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or it looks for an address that other machines see
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
}
WORKER = "ray::Post"
"""What Ray calls the processes of our workers."""


class Nodes:
    """A cluster: one node to which the drivers connect, and others that come and go. A core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )

    @property
    def address(self) -> str:
        return self._cluster.address

    def add(self, **environment: str) -> Any:
        """One more node, for `kill`."""
        return self._cluster.add_node(num_cpus=1, env_vars=environment)

    def kill(self, node: Any) -> None:
        """End it at once, if it is still there."""
        if node in self._cluster.worker_nodes:
            self._cluster.remove_node(node, allow_graceful=False)

    @contextmanager
    def another(self, **environment: str) -> Iterator[Callable[[], None]]:
        """One more node for a while; what is given kills it at once."""
        node = self.add(**environment)
        yield lambda: self.kill(node)
        self.kill(node)

    def close(self) -> None:
        self._cluster.shutdown()


def workers() -> list[psutil.Process]:
    """Processes of our workers, on any node."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.cmdline() and process.cmdline()[0].startswith(WORKER):
                found.append(process)
        except psutil.Error:
            continue
    return found
